"""How long people wait for a picture: this program beside Lucent on the same classes, in one run.

    python studies/time_to_picture.py

Both make pictures of classes drawn with a seed. Lucent runs once per class, for the 512 steps of its `render_vis`, on
PyTorch with channels last, with as many threads as are fastest; its pictures after fewer steps are those of shorter
runs. The program runs once per class, preset and number of steps; the clock includes its start and reading the network.
Every picture is scored by ONNX Runtime and shown to judges, as in `transfer.py`. Needs a release build and
`studies/requirements.txt`. Writes `pictures.csv` and `table.md` to `--output`.
"""

import argparse
import csv
import json
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from lucent.optvis import objectives, param, render
from PIL import Image

from contest.task import save
from contest.torch_network import TorchNetwork
from transfer import CLASSES, SIDES, Judge, interval

# Of Lucent's `render_vis`.
LUCENT_STEPS = [32, 64, 128, 256, 512]
# Presets of the program with their numbers of steps.
OURS = {"readable": [48, 96, 192, 384], "maximum": [8, 16, 32, 64, 128]}
PREPROCESSING = {
    "efficientnet": {"channels": "rgb", "range": 255.0, "mean": [127.0] * 3, "std": [128.0] * 3},
    "squeezenet": {"channels": "bgr", "range": 255.0, "mean": [104.006, 116.669, 122.679], "std": [1.0] * 3},
}


@dataclass(frozen=True)
class Row:
    """A picture before a judge."""

    maker: str
    steps: int
    number: int
    seconds: float
    score: float
    judge: str
    # From 0.
    rank: int
    probability: float


@dataclass(frozen=True)
class Picture:
    maker: str
    steps: int
    number: int
    seconds: float
    png: Path


class Lucent:
    def __init__(self, chosen: argparse.Namespace) -> None:
        side = SIDES[chosen.model] // 2 * 2
        file = chosen.onnx / f"{chosen.model}.onnx"
        family = next(name for name in PREPROCESSING if chosen.model.startswith(name))
        self.network = TorchNetwork(file, PREPROCESSING[family], (side, side))
        self.side, self.folder = side, chosen.output / "lucent"
        last = list(self.network.modules)[-1]
        self.layer = self.network.hooked("logits" if "logits" in self.network.modules else last)
        self.threads = min(range(1, chosen.threads + 1), key=self.seconds_with)

    def seconds_with(self, threads: int) -> float:
        torch.set_num_threads(threads)
        self.pictures(0, [4])
        return min(self.pictures(0, [8])[0].seconds for _ in range(3))

    def pictures(self, number: int, steps: list[int]) -> list[Picture]:
        torch.manual_seed(0)
        np.random.seed(0)
        # A copy for each run: Lucent does not remove its hooks.
        model = self.network.whole().to(memory_format=torch.channels_last)
        started = time.perf_counter()
        images = render.render_vis(
            model,
            objectives.channel(self.layer, number),
            lambda: param.image(self.side),
            thresholds=steps,
            preprocess=False,
            progress=False,
            show_image=False,
        )
        seconds = time.perf_counter() - started
        found = []
        for step, image in zip(steps, images, strict=True):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Lucent's `export` truncates levels to integers.
            _, file = save((image[0] * 255).astype(np.uint8), str(self.folder), f"{number}", step)
            # All steps take the same time.
            found.append(Picture("lucent", step, number, seconds * step / steps[-1], Path(file)))
        return found


def ours(chosen: argparse.Namespace, preset: str, steps: int, number: int) -> Picture:
    folder = chosen.output / preset
    folder.mkdir(parents=True, exist_ok=True)
    png = folder / f"{number}-{steps}.png"
    command = [str(chosen.program), "maximize", "--model", chosen.model, "--unit", f"logits:{number}"]
    command += ["--preset", preset, "--steps", str(steps), "--threads", str(chosen.threads), "--output", str(png)]
    command += ["--data-dir", str(chosen.data_dir)] if chosen.data_dir else []
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Picture(preset, steps, number, time.perf_counter() - started, png)


def made(chosen: argparse.Namespace, numbers: list[int]) -> Iterator[Picture]:
    """Class by class, so that a slow moment of the machine meets both."""
    lucent = Lucent(chosen)
    torch.set_num_threads(lucent.threads)
    print(f"Lucent with {lucent.threads} threads")
    for number in numbers:
        yield from lucent.pictures(number, LUCENT_STEPS)
        for preset, lengths in OURS.items():
            for steps in lengths:
                yield ours(chosen, preset, steps, number)


def judged(picture: Picture, scorer: Judge, judges: list[Judge]) -> Iterator[Row]:
    score = float(scorer.logits(picture.png)[picture.number])
    for judge in judges:
        verdict = judge.verdict(picture.png, picture.number)
        yield Row(picture.maker, picture.steps, picture.number, picture.seconds, score, judge.model, *verdict)


def table(rows: list[Row], judges: list[str]) -> Iterator[str]:
    heads = "".join(f" {judge}: top 1 | top 5 |" for judge in judges)
    yield f"| made by | steps | seconds, median | score, median |{heads}"
    yield "|---|---|---|---|" + "---|---|" * len(judges)
    for maker, steps in dict.fromkeys((row.maker, row.steps) for row in rows):
        of = [row for row in rows if (row.maker, row.steps) == (maker, steps)]
        seconds, score = (statistics.median(values) for values in zip(*((row.seconds, row.score) for row in of)))
        cells = ""
        for judge in judges:
            ranks = [row.rank for row in of if row.judge == judge]
            cells += "".join(f" {interval(sum(rank < top for rank in ranks), len(ranks))} |" for top in (1, 5))
        yield f"| {maker} | {steps} | {seconds:.2f} | {score:.1f} |{cells}"


def waits(rows: list[Row]) -> Iterator[str]:
    """How much sooner the program has the score that Lucent's last picture of the same class has."""
    one = [row for row in rows if row.judge == rows[0].judge]
    last = {row.number: row for row in one if row.maker == "lucent" and row.steps == LUCENT_STEPS[-1]}
    seconds = statistics.median(row.seconds for row in last.values())
    yield f"Lucent takes {seconds:.1f} s for {LUCENT_STEPS[-1]} steps (median)."
    for preset in OURS:
        times = []
        for number, target in last.items():
            own = [row for row in one if (row.maker, row.number) == (preset, number)]
            reached = [row.seconds for row in own if row.score >= target.score]
            times.append(target.seconds / min(reached) if reached else 0.0)
        middle, count = statistics.median(times), sum(time > 0 for time in times)
        shorter = f"; in the median over classes in 1/{middle:.1f} of its time" if middle else ""
        yield f"`{preset}` reaches Lucent's own score on {count} of {len(times)} classes{shorter}."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="efficientnet-lite0", choices=SIDES, help="default: %(default)s")
    parser.add_argument("--judges", nargs="+", default=["efficientnet-lite2", "squeezenet1.1"], choices=SIDES)
    parser.add_argument("--classes", type=int, default=16, metavar="N", help="classes to draw (default: 16)")
    parser.add_argument("--draw-seed", type=int, default=1, metavar="SEED", help="of the draw (default: 1)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of both (default: 2)")
    parser.add_argument("--output", type=Path, default=Path("target/time-to-picture"), metavar="DIR")
    parser.add_argument("--onnx", type=Path, default=Path("onnx"), metavar="DIR", help="where the networks are or go")
    parser.add_argument("--program", type=Path, default=Path("target/release/proxygrad"), metavar="FILE")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of the program")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    chosen.output.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(chosen.draw_seed).sample(range(CLASSES), chosen.classes)
    scorer, judges = Judge(chosen.model, chosen.onnx), [Judge(model, chosen.onnx) for model in chosen.judges]
    rows: list[Row] = []
    with (chosen.output / "pictures.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for picture in made(chosen, numbers):
            for row in judged(picture, scorer, judges):
                writer.writerow(asdict(row))
                file.flush()
                rows.append(row)
    text = "\n".join([*table(rows, chosen.judges), "", *waits(rows)])
    (chosen.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
