"""The networks of crates/proxygrad/benches/networks for PyTorch: the same layers, the same seeded weights."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.fx.experimental.optimization
from torch import Tensor, nn

NAMES = ["resnet18", "efficientnet-lite0", "squeezenet1.1"]
# Networks of torchvision, and of timm after the prefix `timm/`; proxygrad imports them from ONNX files.
EXPORTED = [
    "resnet50",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "densenet121",
    "alexnet",
    "convnext_tiny",
    "timm/vit_small_patch16_224",
]
SIDE = 224
PROXY_SLOPE = 0.3

# `LAYERS` of a network are its top-level modules by the name of the layer that they end with: a network that ends at
# one of them is the sequence up to it.
Layers = dict[str, nn.Module]


class Noise:
    """Numbers evenly spread over [-1, 1): a counter, mixed as MurmurHash3 ends."""

    def __init__(self) -> None:
        self.position = 0

    def __call__(self, *shape: int, bound: float = 1.0) -> Tensor:
        count = torch.Size(shape).numel()
        x = torch.arange(self.position, self.position + count)
        self.position += count
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        x ^= x >> 16
        return (((x >> 8).float() * (2 / 2**24) - 1) * bound).view(shape)

    def weight_(self, weight: Tensor, gain: float) -> None:
        fan = weight[0].numel()
        weight.copy_(self(*weight.shape, bound=(3 * gain / fan) ** 0.5))

    def bias_(self, bias: Tensor) -> None:
        bias.copy_(self(*bias.shape, bound=0.1))


class ProxyRelu(torch.autograd.Function):
    """ReLU, whose derivative on the flat side is the proxy's slope: one fused kernel each way."""

    @staticmethod
    def forward(ctx, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            y = torch.relu_(x)
            ctx.mark_dirty(x)
        else:
            y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (y,) = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(gradient, y, PROXY_SLOPE, False), None


class ProxyRelu6(torch.autograd.Function):
    """ReLU6 with the proxy's slope on both flat sides."""

    @staticmethod
    def forward(ctx, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            y = torch.nn.functional.relu6(x, inplace=True)
            ctx.mark_dirty(x)
        else:
            y = torch.nn.functional.relu6(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (y,) = ctx.saved_tensors
        # The plain gradient g is 0 on flat sides, so that g + slope * (gradient - g) is what the proxy passes.
        return torch.ops.aten.hardtanh_backward(gradient, y, 0.0, 6.0).lerp_(gradient, PROXY_SLOPE), None


class Proxy(nn.Module):
    def __init__(self, function: type[torch.autograd.Function], inplace: bool) -> None:
        super().__init__()
        self.function, self.inplace = function, inplace

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x, self.inplace)


class Builder:
    """Makes layers. `fold` leaves batch normalizations out, as their convolution can do their work."""

    def __init__(self, *, fold: bool, proxy: bool, inplace: bool) -> None:
        self.fold, self.proxy, self.inplace = fold, proxy, inplace
        self.noise = Noise()

    def conv(self, inputs, outputs, kernel, *, gain=2.0, norm=None, act=None, **options) -> nn.Sequential:
        """A convolution, a batch normalization with epsilon `norm`, and an activation."""
        folded = norm is None or self.fold
        conv = nn.Conv2d(inputs, outputs, kernel, bias=folded, **options)
        self.noise.weight_(conv.weight, gain)
        layers = [conv]
        if not folded:
            layers.append(nn.BatchNorm2d(outputs, eps=norm))
            layers[-1].running_var.fill_(1 - norm)
        self.noise.bias_(layers[-1].bias)
        return nn.Sequential(*layers, *([act()] if act else []))

    def dense(self, inputs: int, outputs: int) -> nn.Linear:
        dense = nn.Linear(inputs, outputs)
        self.noise.weight_(dense.weight, 2.0)
        self.noise.bias_(dense.bias)
        return dense

    def relu(self) -> nn.Module:
        return Proxy(ProxyRelu, self.inplace) if self.proxy else nn.ReLU(self.inplace)

    def relu6(self) -> nn.Module:
        return Proxy(ProxyRelu6, self.inplace) if self.proxy else nn.ReLU6(self.inplace)


class ResidualBlock(nn.Module):
    def __init__(self, make: Builder, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        norm = 1e-5
        self.conv1 = make.conv(inputs, outputs, 3, stride=stride, padding=1, norm=norm, act=make.relu)
        self.conv2 = make.conv(outputs, outputs, 3, padding=1, gain=1.0, norm=norm)
        self.downsample = (
            nn.Identity() if stride == 1 else make.conv(inputs, outputs, 1, stride=stride, gain=1.0, norm=norm)
        )
        self.relu = make.relu()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv2(self.conv1(x))
        branch += self.downsample(x)
        return self.relu(branch)


def resnet18(make: Builder) -> Layers:
    layers: Layers = {
        "relu": make.conv(3, 64, 7, stride=2, padding=3, norm=1e-5, act=make.relu),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    inputs = 64
    for stage, outputs in enumerate([64, 128, 256, 512]):
        for number in range(2):
            stride = 2 if stage > 0 and number == 0 else 1
            layers[f"layer{stage + 1}.{number}"] = ResidualBlock(make, inputs, outputs, stride)
            inputs = outputs
    layers["avgpool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["logits"] = make.dense(512, 1000)
    return layers


def same(side: int, kernel: int, stride: int) -> tuple[list[nn.Module], int]:
    """TensorFlow's SAME: what to put before a convolution, and the convolution's own padding."""
    border = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    if border % 2 == 0:
        return [], border // 2
    before = border // 2
    return [nn.ZeroPad2d((before, border - before, before, border - before))], 0


class InvertedResidual(nn.Module):
    def __init__(self, make: Builder, side, inputs, outputs, kernel, stride, expansion) -> None:
        super().__init__()
        norm, hidden = 1e-3, inputs * expansion
        expand = [make.conv(inputs, hidden, 1, gain=1.0, norm=norm, act=make.relu6)] if expansion > 1 else []
        pad, padding = same(side, kernel, stride)
        depthwise = make.conv(
            hidden, hidden, kernel, stride=stride, padding=padding, groups=hidden, norm=norm, act=make.relu6
        )
        project = make.conv(hidden, outputs, 1, gain=1.0, norm=norm)
        self.branch = nn.Sequential(*expand, *pad, depthwise, project)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        if self.shortcut:
            branch += x
        return branch


def efficientnet_lite0(make: Builder) -> Layers:
    pad, padding = same(SIDE, 3, 2)
    stem = make.conv(3, 32, 3, stride=2, padding=padding, gain=1.0, norm=1e-3, act=make.relu6)
    layers: Layers = {"stem.relu6": nn.Sequential(*pad, stem)}
    side, inputs = SIDE // 2, 32
    # Blocks, kernel, stride, expansion, outputs.
    stages = [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ]
    number = 0
    for blocks, kernel, stride, expansion, outputs in stages:
        for repeat in range(blocks):
            block = InvertedResidual(make, side, inputs, outputs, kernel, 1 if repeat else stride, expansion)
            layers[f"blocks.{number}.{'add' if block.shortcut else 'project'}"] = block
            side, inputs = side if repeat else -(-side // stride), outputs
            number += 1
    layers["head.relu6"] = make.conv(320, 1280, 1, gain=1.0, norm=1e-3, act=make.relu6)
    layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["logits"] = make.dense(1280, 1000)
    return layers


class Fire(nn.Module):
    def __init__(self, make: Builder, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = make.conv(inputs, squeezed, 1, act=make.relu)
        self.expand1x1 = make.conv(squeezed, expanded, 1)
        self.expand3x3 = make.conv(squeezed, expanded, 3, padding=1)
        self.relu = make.relu()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return self.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def squeezenet11(make: Builder) -> Layers:
    layers: Layers = {"conv1.relu": make.conv(3, 64, 3, stride=2, act=make.relu), "pool1": nn.MaxPool2d(3, 2)}
    # Its weights stand second in the published file, and so in the stream of noise.
    conv10 = make.conv(512, 1000, 1)
    inputs = 64
    fires = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    for number, (squeezed, expanded) in enumerate(fires, start=2):
        if number in (4, 6):
            layers[f"pool{number - 1}"] = nn.MaxPool2d(3, 2)
        layers[f"fire{number}"] = Fire(make, inputs, squeezed, expanded)
        inputs = 2 * expanded
    layers["conv10"] = conv10
    layers["logits"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return layers


BUILDERS: dict[str, Callable[[Builder], Layers]] = dict(zip(NAMES, [resnet18, efficientnet_lite0, squeezenet11]))


def exported(name: str) -> nn.Module:
    """A network of torchvision or timm with seeded random weights."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        import timm

        model = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    else:
        import torchvision

        model = torchvision.models.get_model(name, weights=None)
    return model.eval().requires_grad_(False)


def export(name: str, path: Path) -> None:
    """Writes one of `EXPORTED` as an ONNX file with a dynamic batch axis."""
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(exported(name), (torch.zeros(1, 3, SIDE, SIDE),), path, dynamo=False, **names)


@torch.no_grad()
def build(name: str, layer: str, **options) -> nn.Module:
    """The network called `name` up to `layer`, its weights frozen."""
    if name in EXPORTED:
        if layer != "logits" or options["proxy"]:
            raise SystemExit(f"{name} is only measured up to its logits, with the plain gate")
        model = exported(name)
        return torch.fx.experimental.optimization.fuse(model) if options["fold"] else model
    layers = BUILDERS[name](Builder(**options))
    if layer not in layers:
        raise SystemExit(f"{name} can end at {', '.join(layers)}, not at {layer}")
    upto = list(layers).index(layer) + 1
    return nn.Sequential(*list(layers.values())[:upto]).eval().requires_grad_(False)
