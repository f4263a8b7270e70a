"""Trains ResNet-8 on Fashion-MNIST with this program and with PyTorch, the same recipe and seeds, and compares accuracy and time.

    cargo build --release
    python studies/fashion_mnist.py --data data/usr/share/datasets/fashion-mnist

Needs Python with PyTorch and numpy. Both draw their weights and the order of images from their own generators. Runs alternate;
those that are finished are kept in the output folder, so an interrupted comparison resumes.
"""

import argparse
import csv
import gzip
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))
from trainable_networks import ResNet8, parameter_groups  # noqa: E402

CLASSES = 10
RATE, MOMENTUM, DECAY, CLIP = 0.1, 0.9, 5e-4, 1.0


def images(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `[N,1,28,28]` as bytes, and labels."""

    def read(name: str, header: int) -> numpy.ndarray:
        file = folder / f"{part}-{name}-ubyte"
        data = file.read_bytes() if file.exists() else gzip.decompress(file.with_name(file.name + ".gz").read_bytes())
        return numpy.frombuffer(data, numpy.uint8, offset=header).copy()

    pixels = torch.from_numpy(read("images-idx3", 16)).reshape(-1, 1, 28, 28)
    return pixels, torch.from_numpy(read("labels-idx1", 8)).long()


def initialize(network: nn.Module) -> None:
    """He's initialization of all weights, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pytorch(options: argparse.Namespace, seed: int) -> dict:
    torch.set_num_threads(options.threads)
    torch.manual_seed(seed)
    train, labels = images(options.data, "train")
    test, truth = images(options.data, "t10k")
    started = time.perf_counter()
    mean, deviation = train.float().mean() / 255, train.float().std(correction=0) / 255

    def prepared(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels.float() / 255 - mean) / deviation).contiguous(memory_format=torch.channels_last)

    network = ResNet8(CLASSES)
    initialize(network)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(parameter_groups(network, DECAY), lr=RATE, momentum=MOMENTUM)
    steps = options.epochs * math.ceil(len(train) / options.batch)
    step = 0
    for _ in range(options.epochs):
        for batch in torch.randperm(len(train)).split(options.batch):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(prepared(train[batch])), labels[batch]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            step += 1
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(prepared(part)).argmax(1) for part in test.split(1000)])
    return {"accuracy": (found == truth).double().mean().item(), "seconds": time.perf_counter() - started}


def program(options: argparse.Namespace, seed: int, surrogate: str) -> dict:
    out = options.output / f"{surrogate.replace(':', '-')}-{seed}"
    command = [str(options.program), "train", "--data", str(options.data), "--out", str(out)]
    command += ["--architecture", "resnet8", "--surrogate", surrogate, "--seed", str(seed)]
    command += ["--epochs", str(options.epochs), "--batch", str(options.batch), "--threads", str(options.threads)]
    command += ["--optimizer", "sgd", "--learning-rate", str(RATE), "--momentum", str(MOMENTUM)]
    command += ["--weight-decay", str(DECAY), "--clip", str(CLIP), "--schedule", "cosine", "--initialization", "he"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    with (out / "epochs.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    return {"accuracy": float(last["test_accuracy"]), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/proxygrad")
    parser.add_argument("--output", type=Path, default=ROOT / "target/fashion-mnist")
    parser.add_argument("--surrogates", default="plain,decoupled:0.1@0.4", help="of this program, comma-separated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "runs.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    names = ["PyTorch", *options.surrogates.split(",")]
    for seed in range(options.seeds):
        for name in names:
            if any((run["name"], run["seed"]) == (name, seed) for run in runs):
                continue
            run = pytorch(options, seed) if name == "PyTorch" else program(options, seed, name)
            runs.append({"name": name, "seed": seed, **run})
            path.write_text(json.dumps(runs, indent=1))
            print(f"{name}, seed {seed}: {100 * run['accuracy']:.2f} %, {run['seconds']:.0f} s", file=sys.stderr)
    print(f"| | {' | '.join(f'seed {seed}' for seed in range(options.seeds))} | mean | seconds, median |")
    print("|---|" + "---:|" * (options.seeds + 2))
    for name in names:
        found = sorted((run for run in runs if run["name"] == name), key=lambda run: run["seed"])
        accuracies = [100 * run["accuracy"] for run in found]
        label = name if name == "PyTorch" else f"`{name}`"
        cells = [label, *(f"{value:.2f}" for value in accuracies), f"{statistics.mean(accuracies):.2f}"]
        print("| " + " | ".join([*cells, f"{statistics.median(run['seconds'] for run in found):.0f}"]) + " |")


if __name__ == "__main__":
    main()
