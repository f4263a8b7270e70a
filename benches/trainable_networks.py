"""The trainable architectures of the program as PyTorch modules, with the same names of tensors, and its surrogates."""

import torch
from torch import nn

# Of B-SiLU: (z + 1.67) sigmoid(z) - 0.835.
BSILU_OFFSET = 1.67


class Rectifier(torch.autograd.Function):
    """ReLU with another derivative in the backward pass."""

    @staticmethod
    def forward(context, z, derivative):
        context.save_for_backward(z)
        context.derivative = derivative
        return z.relu()

    @staticmethod
    def backward(context, gradient):
        (z,) = context.saved_tensors
        return gradient * context.derivative(z), None


def decoupled(slope: float):
    """ReLU with a slope below 0 in the backward pass."""
    return lambda z: Rectifier.apply(z, lambda z: torch.where(z > 0, 1.0, slope))


def bsilu(z: torch.Tensor) -> torch.Tensor:
    def derivative(z):
        gate = z.sigmoid()
        return gate + (z + BSILU_OFFSET) * gate * (1 - gate)

    return Rectifier.apply(z, derivative)


class Block(nn.Module):
    """The basic block of residual networks."""

    def __init__(self, network, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.network = [network]  # In a list, so that it is no submodule.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        rectify = self.network[0].rectify
        inner = self.bn2(self.conv2(rectify(self.bn1(self.conv1(x)))))
        return rectify(inner + self.downsample(x))


class ResNet8(nn.Module):
    def __init__(self, classes: int, width: int = 16, stem_stride: int = 1, channels: int = 1):
        super().__init__()
        self.rectify = torch.relu
        self.conv1 = nn.Conv2d(channels, width, 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(self, width, width, 1))
        self.layer2 = nn.Sequential(Block(self, width, 2 * width, 2))
        self.layer3 = nn.Sequential(Block(self, 2 * width, 4 * width, 2))
        self.logits = nn.Linear(4 * width, classes)

    def forward(self, x):
        x = self.rectify(self.bn1(self.conv1(x)))
        return self.logits(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Vgg8(nn.Module):
    def __init__(self, classes: int, width: int = 16, size: int = 28, channels: int = 1):
        super().__init__()
        self.rectify = torch.relu
        outputs = [width, 2 * width, 2 * width, 4 * width, 4 * width]
        for layer, (before, after) in enumerate(zip([channels, *outputs], outputs), 1):
            self.add_module(f"conv{layer}", nn.Conv2d(before, after, 3, 1, 1))
        self.fc1 = nn.Linear(4 * width * (size // 8) ** 2, 8 * width)
        self.fc2 = nn.Linear(8 * width, 8 * width)
        self.logits = nn.Linear(8 * width, classes)

    def forward(self, x):
        for layer in range(1, 6):
            x = self.rectify(self.get_submodule(f"conv{layer}")(x))
            if layer in (1, 3, 5):
                x = nn.functional.max_pool2d(x, 2)
        x = self.rectify(self.fc1(x.flatten(1)))
        return self.logits(self.rectify(self.fc2(x)))


def parameter_groups(network: nn.Module, decay: float) -> list[dict]:
    """Weights of convolutions and dense layers decay, biases and normalizations do not."""
    weights = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() == 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
