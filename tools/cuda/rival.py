"""Times activation maximization on ResNet-18 in PyTorch: what `device_check` times, at PyTorch's best.

An iteration is forward to one logit, backward to the image through ReLUs whose gradient leaks by 0.3, and a step of fixed
length. Weights are random, batch normalizations are folded, maps are channels-last. Prints lines for `check.sh`:
speed, contender, batch, milliseconds per iteration.

    python3 rival.py --device cuda --batches 1,16,64
"""

import argparse
import contextlib
import statistics
import sys
import time

import torch
from torch import nn


class Leak(torch.autograd.Function):
    """ReLU whose gradient has slope 0.3 on the flat side."""

    @staticmethod
    def forward(context, x):
        y = torch.relu(x)
        context.save_for_backward(y)
        return y

    @staticmethod
    def backward(context, gradient):
        (y,) = context.saved_tensors
        return torch.ops.aten.leaky_relu_backward(gradient, y, 0.3, False)


class Relu(nn.Module):
    def forward(self, x):
        return Leak.apply(x)


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, out, 1, stride)
        self.relu = Relu()

    def forward(self, x):
        return self.relu(self.conv2(self.relu(self.conv1(x))) + self.shortcut(x))


def resnet18():
    layers = [nn.Conv2d(3, 64, 7, 2, 3), Relu(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, out in enumerate([64, 128, 256, 512]):
        for block in range(2):
            layers.append(Block(channels, out, 2 if stage and not block else 1))
            channels = out
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*layers).eval().requires_grad_(False).to(memory_format=torch.channels_last)


def iteration(network, images, bf16):
    """A function without arguments that makes one step on `images` in place."""

    def step():
        leaf = images.detach().requires_grad_(True)
        autocast = torch.autocast(images.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        with autocast:
            logits = network(leaf)
        (gradient,) = torch.autograd.grad(logits[:, 42].float().sum(), leaf)
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-12
        with torch.no_grad():
            images.add_(gradient / length, alpha=0.5)

    return step


def graphed(step):
    """The same, recorded once and replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measure(step, images, seconds):
    """Milliseconds per iteration, the median of seven measurements."""

    def run(count):
        begin = time.perf_counter()
        for _ in range(count):
            step()
        images.sum().item()
        return time.perf_counter() - begin

    run(3)
    count = max(1, int(seconds / 7 / run(1)))
    return statistics.median(run(count) for _ in range(7)) / count * 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    network = resnet18().to(arguments.device)
    on_card = arguments.device.startswith("cuda")
    contenders = {"eager": lambda step: step}
    if on_card:
        contenders["CUDA graph"] = graphed
    if not arguments.no_compile:
        contenders["compiled"] = lambda step: step
        if on_card:
            contenders["compiled, CUDA graph"] = graphed
    for batch in map(int, arguments.batches.split(",")):
        for name, wrap in contenders.items():
            images = 0.1 * torch.randn(batch, 3, 224, 224, device=arguments.device)
            images = images.contiguous(memory_format=torch.channels_last)
            label = f"torch {arguments.precision} {name}"
            try:
                model = torch.compile(network) if name.startswith("compiled") else network
                step = wrap(iteration(model, images, arguments.precision == "bf16"))
                print("speed", label, batch, f"{measure(step, images, arguments.seconds):.3f}", sep="\t", flush=True)
            except Exception as error:  # one contender that does not run must not hide the others
                print(f"{label} at batch {batch} failed: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
