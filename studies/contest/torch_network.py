"""An ONNX file as a PyTorch module."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx2torch
import torch
from torch import Tensor, fx, nn

from contest.same import expected_output, must_be_same


class TorchNetwork:
    """The converted network; every node is a module `n0`, `n1`, … in the order of the file."""

    def __init__(self, path: Path, preprocessing: dict[str, Any], size: tuple[int, int]) -> None:
        model = onnx.load(path)
        self.modules = {}
        for number, node in enumerate(model.graph.node):
            # Names without dots and slashes: they become names of modules.
            node.name = f"n{number}"
            self.modules[node.output[0]] = node.name
        self.graph = onnx2torch.convert(model).eval().requires_grad_(False)
        # The fastest layout on CPUs.
        self.graph = self.graph.to(memory_format=torch.channels_last)
        self.preprocessing = Preprocessing(preprocessing)
        self.check(path, size)

    def check(self, path: Path, size: tuple[int, int]) -> None:
        """Fails unless the outputs on a random image agree with ONNX Runtime's."""
        levels = np.random.default_rng(0).uniform(size=(1, 3, *size)).astype(np.float32)
        image = self.preprocessing(torch.from_numpy(levels))
        expected = expected_output(path, image[0].numpy())
        with torch.no_grad():
            found = self.graph(image)[0].numpy()
        must_be_same("PyTorch", found, expected)

    def whole(self) -> nn.Module:
        """From an RGB image with values from 0 to 1 to the outputs; all nodes run."""
        return Preprocessed(self.preprocessing, copy.deepcopy(self.graph))

    def until(self, tensor: str) -> nn.Module:
        """The part of the network that computes `tensor`."""
        graph = copy.deepcopy(self.graph)
        output = next(node for node in graph.graph.nodes if node.op == "output")
        last = next(node for node in graph.graph.nodes if node.target == self.modules[tensor])
        output.args = (last,)
        graph.graph.eliminate_dead_code()
        return Preprocessed(self.preprocessing, fx.GraphModule(graph, graph.graph))

    def hooked(self, tensor: str) -> str:
        """The name of the module that computes `tensor` in `whole()`, as Lucent writes it."""
        return f"network_{self.modules[tensor]}"


class Preprocessing(nn.Module):
    """(value * range - mean) / std, channels in the network's order."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        super().__init__()
        self.flip = numbers["channels"] == "bgr"
        self.range = numbers["range"]
        self.mean, self.std = (torch.tensor(numbers[name]).reshape(1, -1, 1, 1) for name in ("mean", "std"))

    def forward(self, images: Tensor) -> Tensor:
        images = images.flip(1) if self.flip else images
        return (images * self.range - self.mean) / self.std


class Preprocessed(nn.Module):
    def __init__(self, preprocessing: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.preprocessing(images))


def unit_values(output: Tensor, channel: int, reduce: str) -> Tensor:
    """The unit's value for each image of a batch, of its layer's output `[N,C,H,W]` or `[N,K]`."""
    chosen = output[:, channel]
    if chosen.dim() == 1:
        return chosen
    if reduce == "center":
        return chosen[:, chosen.shape[1] // 2, chosen.shape[2] // 2]
    return chosen.mean((1, 2))
