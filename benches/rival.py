"""Iterations of activation maximization in PyTorch, in the line protocol of crates/proxygrad/examples/iterate.rs.

Prints `ready`; for each line with a number N on standard input runs N iterations and prints the seconds they took.
`--check` compares the contenders' results instead.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import rival_networks

# What each contender does beyond eager PyTorch.
CONTENDERS = {
    "eager": "as it comes: NCHW, batch normalizations",
    "folded": "batch normalizations folded, channels last",
    "compiled": "torch.compile of the folded one",
    "bf16": "the folded one in bf16: weights, images and all layers",
}
CHANNEL = 42
STEP = 0.5
WARM_UP = 3
# Exit status of a contender that this machine cannot run.
UNAVAILABLE = 3


def contender(name: str, network: str, layer: str, gate: str) -> nn.Module:
    eager = name == "eager"
    # The compiler plans memory itself; operations in place only hinder it.
    options = {"fold": not eager, "proxy": gate == "proxy", "inplace": name != "compiled"}
    model = rival_networks.build(network, layer, **options)
    if not eager:
        model = model.to(memory_format=torch.channels_last)
    if name == "bf16":
        model = model.to(torch.bfloat16)
    return torch.compile(model) if name == "compiled" else model


def start(name: str, batch: int) -> Tensor:
    images = rival_networks.Noise()(batch, 3, rival_networks.SIDE, rival_networks.SIDE)
    if name != "eager":
        images = images.contiguous(memory_format=torch.channels_last)
    if name == "bf16":
        images = images.to(torch.bfloat16)
    return images.requires_grad_(True)


def gradient(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The unit's value, a logit or the mean of a channel, summed over the batch; its gradient by the images."""
    output = model(images)
    score = output[:, CHANNEL % output.shape[1]].reshape(len(output), -1).mean(1).sum()
    return score, torch.autograd.grad(score, images)[0]


def iterate(model: nn.Module, images: Tensor) -> None:
    _, slope = gradient(model, images)
    with torch.no_grad():
        norm = torch.linalg.vector_norm(slope, dim=(1, 2, 3), keepdim=True).clamp_min_(1e-12)
        images.addcdiv_(slope, norm, value=STEP)


def check() -> None:
    """Differences to eager PyTorch. Single rectifiers decide otherwise between any two ways to add up in f32."""
    print("| network | layer | gate | contender | score | relative difference | gradient's |")
    print("|---|---|---|---|---|---|---|")
    for network, early in zip(rival_networks.NAMES, ["layer1.1", "blocks.4.add", "fire5"]):
        for layer in [early, "logits"]:
            for gate in ["plain", "proxy"]:
                found = {}
                for name in ["eager", "folded"]:
                    found[name] = gradient(contender(name, network, layer, gate), start(name, 2))
                score, slope = found["eager"]
                for name, (other, other_slope) in found.items():
                    apart = abs(other - score) / abs(score)
                    slope_apart = (other_slope - slope).norm() / slope.norm()
                    print(f"| {network} | {layer} | {gate} | {name} | {other:.5f} | {apart:.1e} | {slope_apart:.1e} |")


def peak_memory() -> str | None:
    try:
        with open("/proc/self/status") as status:
            return next(line.removeprefix("VmHWM:").strip() for line in status if line.startswith("VmHWM:"))
    except OSError:
        return None


def forget_peak_memory() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", choices=CONTENDERS, default="folded")
    parser.add_argument("--network", choices=rival_networks.NAMES + rival_networks.EXPORTED, default="resnet18")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the network as an ONNX file, and end")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layer", default="logits", help="the layer whose channel 42 is maximized")
    parser.add_argument("--gate", choices=["plain", "proxy"], default="plain")
    parser.add_argument("--threads", type=int, default=0, help="as many as PyTorch chooses when 0")
    parser.add_argument("--check", action="store_true", help="compare the contenders' results")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.check:
        return check()
    if arguments.export:
        return rival_networks.export(arguments.network, arguments.export)

    model = contender(arguments.contender, arguments.network, arguments.layer, arguments.gate)
    images = start(arguments.contender, arguments.batch)
    try:
        score, slope = gradient(model, images)
    except Exception as error:
        if arguments.contender != "compiled":
            raise
        reason = next(iter(str(error).splitlines()), "")
        print(f"torch.compile failed (it needs a C++ compiler): {type(error).__name__}: {reason}", file=sys.stderr)
        raise SystemExit(UNAVAILABLE)
    print(f"start: {score.item()} {slope.norm().item()}", file=sys.stderr)
    # What building and compiling took does not count, nor may anything of the first run stay in memory.
    del score, slope
    forget_peak_memory()
    for _ in range(WARM_UP):
        iterate(model, images)
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            iterate(model, images)
        print(f"{time.perf_counter() - started:.6f}", flush=True)
    print(f"peak: {peak_memory()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
