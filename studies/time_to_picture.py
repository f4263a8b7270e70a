"""How long people wait for a picture: this program beside other tools on the same classes, in one run.

    python studies/time_to_picture.py

All make pictures of classes drawn with a seed, class by class in turns. A tool runs once per class, in a process that
has its network loaded; its pictures after fewer steps are iterates of this run, and their time is the run's time
times the share of the steps. The program runs once per class, preset and number of steps; the clock includes its start
and reading the network. Every picture is scored by ONNX Runtime and shown to judges, as in `transfer.py`. Needs a
release build and `studies/requirements.txt`. Writes `pictures.csv` and `table.md` to `--output`; what is in
`pictures.csv` is not made again.
"""

import argparse
import csv
import math
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from contest.process import Process
from contest.task import Orders, Task
from transfer import CLASSES, SIDES, Judge, interval

# Tools with the numbers of steps of their runs: Lucent's own, and for the others what takes 10 to 20 s on two cores.
# A step of MACO makes many views.
TOOLS = {
    "lucent": 512,
    "xplique-fourier": 128,
    "xplique-maco": 8,
    "horama-fourier": 16,
    "horama-maco": 16,
    "dreamlens-fourier": 128,
    "dreamlens-maco": 8,
}
# Iterates of a run that are judged, at most.
CHECKPOINTS = 64
# Presets of the program with their numbers of steps, and the same in bf16 where `--bf16` asks for it.
OURS = {"readable": [48, 96, 192, 384], "maximum": [8, 16, 32, 64, 128]}
BF16 = " (bf16)"
# Whom the others are compared with at equal time.
DEFAULT = ("readable", 192)
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


def started(chosen: argparse.Namespace, tool: str) -> Process:
    family = next(name for name in PREPROCESSING if chosen.model.startswith(name))
    # Even, since several tools need it.
    side = SIDES[chosen.model] // 2 * 2
    folder = chosen.output / tool
    folder.mkdir(parents=True, exist_ok=True)
    orders = Orders(
        tool=tool,
        budget="steps",
        passes=2 * chosen.tools[tool],
        onnx=str((chosen.onnx / f"{chosen.model}.onnx").resolve()),
        preprocessing=PREPROCESSING[family],
        size=(side, side),
        lr=0.0,
        noise=0.0,
        checkpoints=CHECKPOINTS,
        threads=chosen.threads,
        folder=str(folder),
    )
    return Process(orders)


def theirs(process: Process, tool: str, number: int) -> list[Picture]:
    answer = process.run(Task("logits", "logits", number, "mean", 0, str(number)))
    if answer.error:
        raise SystemExit(f"{tool} on class {number}: {answer.error}")
    return [Picture(tool, step, number, answer.seconds * step / answer.steps, Path(f)) for step, f in answer.images]


def is_ours(maker: str) -> bool:
    return maker.removesuffix(BF16) in OURS


def ours(chosen: argparse.Namespace, maker: str, steps: int, number: int) -> Picture:
    folder = chosen.output / maker.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    png = folder / f"{number}-{steps}.png"
    command = [str(chosen.program), "maximize", "--model", chosen.model, "--unit", f"logits:{number}"]
    command += ["--device", "cpu+bf16" if maker.endswith(BF16) else "cpu"]
    command += ["--preset", maker.removesuffix(BF16), "--steps", str(steps)]
    command += ["--threads", str(chosen.threads), "--output", str(png)]
    command += ["--data-dir", str(chosen.data_dir)] if chosen.data_dir else []
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Picture(maker, steps, number, time.perf_counter() - begin, png)


def made(chosen: argparse.Namespace, numbers: list[int], done: set[tuple[str, int]]) -> Iterator[list[Picture]]:
    """Class by class, so that a slow moment of the machine meets all."""
    makers = OURS | ({f"{preset}{BF16}": lengths for preset, lengths in OURS.items()} if chosen.bf16 else {})
    wanted = {(maker, number) for maker in [*chosen.tools, *makers] for number in numbers} - done
    with ExitStack() as open_ones:
        tools = {
            tool: open_ones.enter_context(started(chosen, tool))
            for tool in chosen.tools
            if any((tool, number) in wanted for number in numbers)
        }
        for number in numbers:
            for tool, process in tools.items():
                if (tool, number) in wanted:
                    yield theirs(process, tool, number)
            for maker, lengths in makers.items():
                if (maker, number) in wanted:
                    yield [ours(chosen, maker, steps, number) for steps in lengths]


def judged(picture: Picture, scorer: Judge, judges: list[Judge]) -> Iterator[Row]:
    score = float(scorer.logits(picture.png)[picture.number])
    for judge in judges:
        verdict = judge.verdict(picture.png, picture.number)
        yield Row(picture.maker, picture.steps, picture.number, picture.seconds, score, judge.model, *verdict)


def shown(rows: list[Row]) -> Iterator[tuple[str, int]]:
    """All lengths of the program; of a tool's run the last, its half and its quarter."""
    last = {row.maker: row.steps for row in sorted(rows, key=lambda row: row.steps)}
    for maker, steps in dict.fromkeys((row.maker, row.steps) for row in rows):
        if is_ours(maker) or last[maker] in (steps, 2 * steps, 4 * steps):
            yield maker, steps


def table(rows: list[Row], judges: list[str]) -> Iterator[str]:
    heads = "".join(f" {judge}: top 1 | top 5 |" for judge in judges)
    yield f"| made by | steps | seconds, median | score, median |{heads}"
    yield "|---|---|---|---|" + "---|---|" * len(judges)
    for maker, steps in shown(rows):
        of = [row for row in rows if (row.maker, row.steps) == (maker, steps)]
        seconds, score = (statistics.median(values) for values in zip(*((row.seconds, row.score) for row in of)))
        cells = ""
        for judge in judges:
            ranks = [row.rank for row in of if row.judge == judge]
            cells += "".join(f" {interval(sum(rank < top for rank in ranks), len(ranks))} |" for top in (1, 5))
        yield f"| {maker} | {steps} | {seconds:.2f} | {score:.1f} |{cells}"


def at_equal_time(rows: list[Row], judges: list[str]) -> Iterator[str]:
    """What each maker has for a class by the time of the program's default picture of this class.

    That is its longest run, or iterate, that takes no longer; a maker whose first takes longer has it in its place.
    The last line of a tool is its last picture, whatever its time.
    """
    mine = {(row.number, row.judge): row for row in rows if (row.maker, row.steps) == DEFAULT}
    heads = "".join(f" {judge}: top 5 | more probable for it / for `{DEFAULT[0]}`, p |" for judge in judges)
    yield f"| made by | when | seconds, median | score, median |{heads}"
    yield "|---|---|---|---|" + "---|---|" * len(judges)
    for maker in dict.fromkeys(row.maker for row in rows):
        for when in ["equal time"] if is_ours(maker) else ["equal time", "at its end"]:
            picked = {}
            for key, other in mine.items():
                of = sorted((r for r in rows if (r.maker, r.number, r.judge) == (maker, *key)), key=lambda r: r.steps)
                in_time = [row for row in of if row.seconds <= other.seconds]
                # The default itself, and not a run of it that happened to be faster.
                in_time = [other] if maker == DEFAULT[0] else in_time
                if of:
                    picked[key] = of[-1] if when == "at its end" else (in_time or of[:1])[-1]
            if not picked:
                continue
            seconds, score = (statistics.median(v) for v in zip(*((r.seconds, r.score) for r in picked.values())))
            cells = ""
            for judge in judges:
                pairs = [(row, mine[key]) for key, row in picked.items() if key[1] == judge]
                wins = sum(row.probability > other.probability for row, other in pairs)
                losses = sum(row.probability < other.probability for row, other in pairs)
                cells += f" {interval(sum(row.rank < 5 for row, _ in pairs), len(pairs))} |"
                cells += f" {wins} / {losses}, {sign_test(wins, losses):.2g} |" if maker != DEFAULT[0] else " |"
            yield f"| {maker} | {when} | {seconds:.2f} | {score:.1f} |{cells}"


def sign_test(wins: int, losses: int) -> float:
    """Probability of a split at least as uneven when both are equally likely; exact, two-sided."""
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1)) / 2**count
    return min(1.0, 2 * tail)


def waits(rows: list[Row], judges: list[str]) -> Iterator[str]:
    """How much sooner the program has what Lucent's last picture of the same class has: its score, and the probability
    that a judge gives to the class.

    The time of both is that of their first picture that has as much.
    """
    end = max((row.steps for row in rows if row.maker == "lucent"), default=0)
    if not end:
        return
    seconds = statistics.median(row.seconds for row in rows if (row.maker, row.steps) == ("lucent", end))
    yield f"Lucent takes {seconds:.1f} s for {end} steps (median)."
    for judge, what in [(judges[0], "score"), *((judge, "probability") for judge in judges)]:
        of = [row for row in rows if row.judge == judge]
        last = {row.number: getattr(row, what) for row in of if (row.maker, row.steps) == ("lucent", end)}
        enough = [row for row in of if row.number in last and getattr(row, what) >= last[row.number]]
        first: dict[tuple[str, int], float] = {}
        for row in enough:
            key = (row.maker, row.number)
            first[key] = min(row.seconds, first.get(key, math.inf))
        for maker in dict.fromkeys(row.maker for row in rows if is_ours(row.maker)):
            ratios = [first["lucent", number] / first.get((maker, number), math.inf) for number in last]
            reached = sum(ratio > 0 for ratio in ratios)
            middle = statistics.median(ratios)
            shorter = f"; in the median over classes in 1/{middle:.1f} of Lucent's time" if middle else ""
            name = "score" if what == "score" else f"probability ({judge})"
            count = f"{reached} of {len(ratios)} classes"
            yield f"`{maker}` reaches the {name} of Lucent's last picture on {count}{shorter}."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="efficientnet-lite0", choices=SIDES, help="default: %(default)s")
    parser.add_argument("--judges", nargs="+", default=["efficientnet-lite2", "squeezenet1.1"], choices=SIDES)
    parser.add_argument("--classes", type=int, default=16, metavar="N", help="classes to draw (default: 16)")
    parser.add_argument("--draw-seed", type=int, default=1, metavar="SEED", help="of the draw (default: 1)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of all (default: 2)")
    parser.add_argument(
        "--tools", nargs="*", default=[], metavar="TOOL=STEPS", help="with other lengths than " + str(TOOLS)
    )
    parser.add_argument("--bf16", action="store_true", help="the program also in bf16 (needs AVX512-BF16)")
    parser.add_argument("--output", type=Path, default=Path("target/time-to-picture"), metavar="DIR")
    parser.add_argument("--onnx", type=Path, default=Path("onnx"), metavar="DIR", help="where the networks are or go")
    parser.add_argument("--program", type=Path, default=Path("target/release/proxygrad"), metavar="FILE")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of the program")
    chosen = parser.parse_args()
    chosen.output = chosen.output.resolve()
    chosen.tools = {name: int(steps) for name, _, steps in (text.partition("=") for text in chosen.tools)} or TOOLS
    return chosen


def row_of(record: dict[str, str]) -> Row:
    kinds = {"steps": int, "number": int, "rank": int, "seconds": float, "score": float, "probability": float}
    return Row(**{name: kinds.get(name, str)(text) for name, text in record.items()})


def main() -> None:
    chosen = arguments()
    chosen.output.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(chosen.draw_seed).sample(range(CLASSES), chosen.classes)
    scorer, judges = Judge(chosen.model, chosen.onnx), [Judge(model, chosen.onnx) for model in chosen.judges]
    path = chosen.output / "pictures.csv"
    rows: list[Row] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [row_of(record) for record in csv.DictReader(file)]
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if not rows:
            writer.writeheader()
        for pictures in made(chosen, numbers, {(row.maker, row.number) for row in rows}):
            new = [row for picture in pictures for row in judged(picture, scorer, judges)]
            writer.writerows(asdict(row) for row in new)
            file.flush()
            rows += new
    parts = [table(rows, chosen.judges), at_equal_time(rows, chosen.judges), waits(rows, chosen.judges)]
    text = "\n\n".join("\n".join(part) for part in parts)
    (chosen.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
