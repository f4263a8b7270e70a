"""Trains a vision transformer and a ConvNeXt on Fashion-MNIST, and shows what their classes respond to.

    cargo build --release
    python studies/trained_networks.py --data data/usr/share/datasets/fashion-mnist

Everything goes the way of a user of PyTorch: networks of timm, exported by `torch.onnx.export` with its default settings and
added by `proxygrad models add`. Each class is maximized by some presets; the other network, and the residual network that the
program contains, judge the PNGs. Needs `zoo/requirements.txt`, pillow, and the IDX files of Fashion-MNIST. Writes the weights,
the ONNX files, `table.md` and `sheet.png` to `--output`; trained weights are not trained again.
"""

import argparse
import json
import math
import subprocess
import time
from pathlib import Path

import torch
from fashion_mnist import ROOT, images
from PIL import Image
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
MEAN, DEVIATION = 0.286, 0.353
# A network that is embedded in the program.
EMBEDDED = "fashion-resnet8"
SCALE = 4

# A transformer learns more slowly.
EPOCHS = {"vit": 6, "convnext": 3}

NETWORKS = {
    "vit": lambda: VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4
    ),
    # Maps of 7 and 3 pixels.
    "convnext": lambda: ConvNeXt(
        in_chans=1, num_classes=10, depths=(2, 2, 1, 1), dims=(48, 96, 96, 96), patch_size=2, output_stride=8
    ),
}


def prepared(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.float() / 255 - MEAN) / DEVIATION


def shifted(pixels: torch.Tensor) -> torch.Tensor:
    """Mirrored with probability 1/2, and shifted by up to two pixels."""
    padded = nn.functional.pad(pixels, (2, 2, 2, 2))
    x, y = (int(torch.randint(5, ())) for _ in range(2))
    cut = padded[:, :, y : y + 28, x : x + 28]
    return torch.where(torch.rand(len(cut), 1, 1, 1) < 0.5, cut.flip(3), cut)


def train(network: nn.Module, epochs: int, options: argparse.Namespace) -> None:
    pixels, labels = images(options.data, "train")
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.05)
    steps = epochs * math.ceil(len(pixels) / options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps)
    for epoch in range(epochs):
        network.train()
        started = time.perf_counter()
        for batch in torch.randperm(len(pixels)).split(options.batch):
            optimizer.zero_grad()
            logits = network(prepared(shifted(pixels[batch])))
            nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.1).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: {100 * accuracy(network, options):.1f} %, {time.perf_counter() - started:.0f} s")


def accuracy(network: nn.Module, options: argparse.Namespace) -> float:
    pixels, labels = images(options.data, "t10k")
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(prepared(part)).argmax(1) for part in pixels.split(500)])
    return (found == labels).double().mean().item()


def trained(name: str, options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    network, file = NETWORKS[name](), options.output / f"{name}.pt"
    if not file.exists():
        train(network, EPOCHS[name], options)
        torch.save(network.state_dict(), file)
    network.load_state_dict(torch.load(file))
    return network.eval()


def proxygrad(options: argparse.Namespace, *words: str) -> str:
    command = [str(options.program), *words, "--data-dir", str(options.output / "data")]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def add(name: str, network: nn.Module, options: argparse.Namespace) -> None:
    file, names = options.output / f"{name}.onnx", options.output / "classes.txt"
    if (options.output / "data/models" / name).exists():
        return
    torch.onnx.export(network, (torch.zeros(1, 1, 28, 28),), file)
    names.write_text("".join(f"{each}\n" for each in CLASSES))
    flags = ["--mean", str(MEAN), "--std", str(DEVIATION), "--classes", str(names)]
    proxygrad(options, "models", "add", str(file), *flags)


def maximized(name: str, preset: str, options: argparse.Namespace) -> list[dict]:
    """The stimuli of all classes."""
    folder = options.output / f"{name}-{preset}"
    folder.mkdir(exist_ok=True)
    layer = json.loads(proxygrad(options, "models", "layers", name, "--json"))[-1]["name"]
    units = [word for number in range(len(CLASSES)) for word in ("--unit", f"{layer}:{number}")]
    judges = ",".join(each for each in [*NETWORKS, EMBEDDED] if each != name)
    flags = ["--preset", preset, "--judges", judges, "--json", "--output", str(folder / "class.png")]
    return json.loads(proxygrad(options, "maximize", "--model", name, *units, *flags))["stimuli"]


def row(name: str, preset: str, stimuli: list[dict]) -> str:
    """How many of the classes each judge recognizes."""
    hits: dict[str, int] = {}
    for stimulus in stimuli:
        for verdict in stimulus["diagnostics"]["judges"]:
            hits[verdict["judge"]] = hits.get(verdict["judge"], 0) + (verdict["rank"] == 1)
    cells = [f"{hits[each]}" if each in hits else "" for each in [*NETWORKS, EMBEDDED]]
    scores = sorted(stimulus["score"] for stimulus in stimuli)
    middle = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    return f"| `{name}` | `{preset}` | {middle:.1f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/proxygrad")
    parser.add_argument("--output", type=Path, default=ROOT / "target/trained-networks")
    parser.add_argument("--presets", default="readable,lucid,maximum", help="separated by commas")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    heads = " | ".join(f"recognized by `{each}`" for each in [*NETWORKS, EMBEDDED])
    lines = [f"| network | preset | score, median | {heads} |", "|---|---|---:|" + "---:|" * (len(NETWORKS) + 1)]
    rows = []
    for name in NETWORKS:
        network = trained(name, options)
        add(name, network, options)
        print(f"{name}: {100 * accuracy(network, options):.2f} % of the test images")
    for name in NETWORKS:
        for preset in options.presets.split(","):
            stimuli = maximized(name, preset, options)
            lines.append(row(name, preset, stimuli))
            rows.append([Path(stimulus["file"]) for stimulus in stimuli])
    side = 28 * SCALE
    sheet = Image.new("L", (len(CLASSES) * (side + 4) - 4, len(rows) * (side + 4) - 4), 255)
    for y, files in enumerate(rows):
        for x, file in enumerate(files):
            with Image.open(file) as image:
                enlarged = image.convert("L").resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (x * (side + 4), y * (side + 4)))
    sheet.save(options.output / "sheet.png")
    (options.output / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
