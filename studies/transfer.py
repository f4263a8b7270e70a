"""Shows the pictures of some settings to networks that took no part in making them.

    python studies/transfer.py --settings "readable=" "lucid=--preset lucid"

draws classes of a network, lets `proxygrad maximize` make a stimulus of each with every setting and seed, and has ONNX
Runtime classify the PNGs with the judges: on how many is the class among the first one and the first five of its 1000,
and how probable is it. Needs a release build and `tests/verify/requirements.txt`. Writes to `--output`: the PNGs,
`stimuli.csv` and `table.md`; stimuli that are there already are not made again.
"""

import argparse
import csv
import json
import math
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 1000
# What the networks of the catalog read: side, and how levels become their input.
SIDES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260, "squeezenet1.1": 227}


@dataclass(frozen=True)
class Row:
    """A stimulus before a judge."""

    setting: str
    model: str
    number: int
    seed: int
    score: float
    # Of the whole command, shared evenly by the stimuli that it made together.
    seconds: float
    judge: str
    # From 0.
    rank: int
    probability: float


class Judge:
    """A network that classifies PNGs."""

    def __init__(self, model: str, folder: Path) -> None:
        file = folder / f"{model}.onnx"
        if not file.exists():
            builder = ROOT / "tests/verify/build_onnx.py"
            subprocess.run([sys.executable, str(builder), model, "--output", str(folder)], check=True)
        self.model = model
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def prepared(self, png: Path) -> np.ndarray:
        side = SIDES[self.model]
        with Image.open(png) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        levels = np.asarray(resized, np.float32).transpose(2, 0, 1)
        if self.model.startswith("squeezenet"):
            return levels[::-1] - np.array([104.006, 116.669, 122.679], np.float32)[:, None, None]
        return (levels - 127) / 128

    def logits(self, png: Path) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        outputs = self.session.run(["logits"], {name: self.prepared(png)[None]})
        return np.asarray(outputs[0], np.float64).reshape(-1)

    def verdict(self, png: Path, number: int) -> tuple[int, float]:
        """Rank and probability of a class."""
        logits = self.logits(png)
        shares = np.exp(logits - logits.max())
        return int((logits > logits[number]).sum()), float(shares[number] / shares.sum())


def made(chosen: argparse.Namespace, setting: str, flags: str, numbers: list[int], seed: int) -> list[dict]:
    """The stimuli of some classes: what the command says of them."""
    folder = chosen.output / setting
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{chosen.model}-{seed}-{numbers[0]}-{len(numbers)}"
    report = folder / f"{stem}.json"
    if not report.exists():
        units = [word for number in numbers for word in ("--unit", f"logits:{number}")]
        command = [str(chosen.program), "maximize", "--model", chosen.model, *units, "--seed", str(seed)]
        command += ["--output", str(folder / f"{stem}.png"), "--json", *shlex.split(flags)]
        command += ["--data-dir", str(chosen.data_dir)] if chosen.data_dir else []
        begin = time.perf_counter()
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        document = json.loads(printed) | {"seconds": (time.perf_counter() - begin) / len(numbers)}
        report.write_text(json.dumps(document))
    document = json.loads(report.read_text())
    return [stimulus | {"seconds": document["seconds"]} for stimulus in document["stimuli"]]


def judged(chosen: argparse.Namespace, judges: list[Judge], numbers: list[int]) -> Iterator[Row]:
    parts = [numbers[i : i + chosen.together] for i in range(0, len(numbers), chosen.together)]
    for seed in chosen.seeds:
        for part in parts:
            for text in chosen.settings:
                setting, _, flags = text.partition("=")
                for number, stimulus in zip(part, made(chosen, setting, flags, part, seed), strict=True):
                    for judge in judges:
                        verdict = judge.verdict(Path(stimulus["file"]), number)
                        found = (setting, chosen.model, number, seed, stimulus["score"], stimulus["seconds"])
                        yield Row(*found, judge.model, *verdict)


def interval(hits: int, count: int) -> str:
    """A share in percent with its 95 % interval (Wilson 1927)."""
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def table(rows: list[Row]) -> Iterator[str]:
    yield "| setting | judge | stimuli | score, median | top 1 | top 5 | probability, mean | seconds, median |"
    yield "|---|---|---|---|---|---|---|---|"
    for setting, judge in dict.fromkeys((row.setting, row.judge) for row in rows):
        of = [row for row in rows if (row.setting, row.judge) == (setting, judge)]
        top = [interval(sum(row.rank < first for row in of), len(of)) for first in (1, 5)]
        score, seconds = (statistics.median(values) for values in zip(*((row.score, row.seconds) for row in of)))
        probability = statistics.mean(row.probability for row in of)
        yield (
            f"| {setting} | {judge} | {len(of)} | {score:.1f} | {top[0]} | {top[1]} | {probability:.2f} "
            f"| {seconds:.1f} |"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--settings", nargs="+", metavar="NAME=FLAGS", help="flags of proxygrad maximize by a name")
    parser.add_argument("--model", default="efficientnet-lite0", choices=SIDES, help="default: %(default)s")
    parser.add_argument("--judges", nargs="+", default=["efficientnet-lite2"], choices=SIDES, metavar="MODEL")
    parser.add_argument("--classes", type=int, default=16, metavar="N", help="classes to draw (default: 16)")
    parser.add_argument("--draw-seed", type=int, default=1, metavar="SEED", help="of the draw (default: 1)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="of the starts (default: 0)")
    parser.add_argument("--together", type=int, default=4, metavar="N", help="stimuli of one command (default: 4)")
    parser.add_argument("--output", type=Path, default=Path("target/transfer"), metavar="DIR")
    parser.add_argument("--onnx", type=Path, default=Path("onnx"), metavar="DIR", help="where the judges are or go")
    parser.add_argument("--program", type=Path, default=Path("target/release/proxygrad"), metavar="FILE")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of the program")
    chosen = parser.parse_args()
    chosen.settings = chosen.settings or ["readable=", "lucid=--preset lucid --steps 256"]
    return chosen


def main() -> None:
    chosen = arguments()
    numbers = random.Random(chosen.draw_seed).sample(range(CLASSES), chosen.classes)
    judges = [Judge(model, chosen.onnx) for model in chosen.judges]
    chosen.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with (chosen.output / "stimuli.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in judged(chosen, judges, numbers):
            writer.writerow(asdict(row))
            file.flush()
            rows.append(row)
    text = "\n".join(table(rows))
    (chosen.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
