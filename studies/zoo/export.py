"""Exports a network with random weights as its user would, and records what PyTorch computes."""

from pathlib import Path

import torch
from networks import Entry
from safetensors.torch import save_file
from torch import Tensor, nn

SEED = 2024
EXPORTERS = ("dynamo", "torchscript")
# A constant parameter up to this magnitude silences its branch at the start of training.
SILENT = 1e-2
# Biases of batch normalizations. With random weights, every layer of batch normalization and ReLU multiplies rounding errors:
# by 1.21 if half of the ReLUs are 0, so that two right results of 50 layers agree in no more than 3 digits, by 1.06 if a sixth is.
OPEN = (0.5, 1.5)


def prepared(entry: Entry) -> tuple[nn.Module, Tensor]:
    """A network as it is exported, and the fixed image `[1,C,H,W]`."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = entry.build()
    size = entry.size(model)
    randomize(model, torch.randn(2, *size))
    return model, torch.randn(1, *size)


def export(entry: Entry, folders: dict[str, Path]) -> None:
    """Exports a network by the exporters that `folders` names.

    Each folder gets `net.onnx` (with `net.onnx.data`), `image.safetensors` with a fixed image, and `torch.safetensors`
    with PyTorch's first output and the gradient of the sum of its channel 0 with respect to the image.
    """
    model, image = prepared(entry)
    output = model(image.requires_grad_())
    output = output if isinstance(output, Tensor) else output[0]
    (gradient,) = torch.autograd.grad(output[:, 0].sum(), image)
    found = {"output": output.detach().contiguous(), "gradient": gradient.contiguous()}
    image = image.detach()
    for exporter, folder in folders.items():
        save_file({"image": image}, folder / "image.safetensors")
        save_file(found, folder / "torch.safetensors")
        try:
            if exporter == "dynamo":
                torch.onnx.export(model, (image,), folder / "net.onnx")
            else:
                torch.onnx.export(model, (image,), folder / "net.onnx", dynamo=False)
        except Exception as why:
            for file in folder.glob("net.onnx*"):
                file.unlink()
            (folder / "failed.txt").write_text(said(why))


def said(why: BaseException) -> str:
    """The first line of the error that caused the others."""
    while why.__cause__ is not None:
        why = why.__cause__
    return f"{type(why).__name__}: {next(iter(str(why).splitlines()), '')}"[:300]


def warm_up(folder: Path) -> None:
    """Loads what the exporters load at their first use."""
    torch.set_num_threads(1)
    for exporter in (True, False):
        torch.onnx.export(nn.Conv2d(3, 2, 1).eval(), (torch.ones(1, 3, 2, 2),), folder / "net.onnx", dynamo=exporter)


def randomize(model: nn.Module, images: Tensor) -> None:
    """Gives a network weights and batch statistics as training leaves them: no branch is silent, and every batch
    normalization has the statistics of its input."""
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.numel() > 1 and parameter.std() > 0:
                # Transformers start with weights so small that their attention is uniform.
                if parameter.dim() == 2 and parameter.std() < 0.03:
                    nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            elif parameter.abs().max() == 0:
                nn.init.normal_(parameter, std=0.1)
            elif parameter.abs().max() <= SILENT:
                nn.init.uniform_(parameter, 0.1, 0.5)
            elif (parameter == 1).all():
                nn.init.uniform_(parameter, 0.7, 1.3)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if norm.affine:
            nn.init.uniform_(norm.bias, *OPEN)
    hooks = [
        module.register_forward_pre_hook(take_statistics)
        for module in norms
        if module.running_mean is not None
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()


def take_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
    module.running_mean.copy_(inputs[0].mean(axes))
    # At least a little: a channel of a 1x1 map may be the same in all images.
    module.running_var.copy_(inputs[0].var(axes, correction=0).clamp(min=1e-3))
