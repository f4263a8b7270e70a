"""Runs training steps of PyTorch on request, like the example `train_steps` of the program."""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import nn

from trainable_networks import ResNet8, Vgg8, bsilu, decoupled, parameter_groups

SIZE, CLASSES, BATCHES, WARM_UP = 28, 10, 200, 3


def rectifier(name: str):
    if name == "plain":
        return torch.relu
    return bsilu if name == "bsilu" else decoupled(float(name.removeprefix("decoupled:")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=["resnet8", "vgg8"], required=True)
    parser.add_argument("--stem-stride", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--surrogate", default="plain")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--layout", choices=["contiguous", "channels-last"], default="channels-last")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.network == "vgg8":
        network = Vgg8(CLASSES)
    else:
        network = ResNet8(CLASSES, stem_stride=options.stem_stride)
    network.rectify = rectifier(options.surrogate)
    layout = torch.channels_last if options.layout == "channels-last" else torch.contiguous_format
    network = network.to(memory_format=layout)
    images = torch.randint(0, 256, (BATCHES * options.batch, 1, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    mean, std = images.float().mean() / 255, images.float().std() / 255
    optimizer = torch.optim.SGD(parameter_groups(network, 5e-4), lr=0.01, momentum=0.9)

    def batches():
        while True:
            yield from torch.randperm(len(images)).split(options.batch)

    order = batches()

    def step() -> None:
        batch = next(order)
        inputs = ((images[batch].float() / 255 - mean) / std).contiguous(memory_format=layout)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs), labels[batch])
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if not loss.isfinite():
            raise SystemExit("the loss is not finite")

    for _ in range(WARM_UP):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(f"{time.perf_counter() - started:.6f}", flush=True)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            print("peak:", *line.split()[1:], file=sys.stderr)


if __name__ == "__main__":
    main()
