"""Generates the weight files of this folder that torch writes itself: python3 make_torch.py (needs torch)."""

from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent
torch.manual_seed(0)
weight = torch.arange(6.0).reshape(2, 3)
state = OrderedDict(
    {
        "conv.weight": weight,
        "conv.bias": torch.tensor([-1.0, 0.5]),
        "conv.transposed": weight.t(),
        "conv.double": torch.tensor([0.25], dtype=torch.float64),
        "conv.half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "conv.bfloat": torch.tensor([3.0, -0.5], dtype=torch.bfloat16),
        "conv.trained": torch.nn.Parameter(torch.tensor([4.0])),
        "bn.num_batches_tracked": torch.tensor(7),
    }
)
torch.save(state, HERE / "torch-zip.pth")
torch.save({"epoch": 3, "state_dict": state}, HERE / "torch-zip-training.pth")
torch.save(torch.nn.Linear(1, 1), HERE / "torch-zip-module.pth")
torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), HERE / "torchscript.pth")
