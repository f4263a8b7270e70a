"""Compares the program with other tools for feature visualization, scored by ONNX Runtime.

    python studies/rivals.py --output target/rivals

All tools maximize the same units of the same networks from the same ONNX files. Each runs in its own process; its images are
saved as 8-bit PNGs, which ONNX Runtime scores. Writes `runs.csv`, `table.md`, `grid.png`, `units.json` and the PNGs to the
output folder. Runs that are already in the folder are not repeated.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from contest import ROOT, VERIFY, report, units
from contest.contender import MODULES
from contest.ours import Arm, Program
from contest.process import Ended, Process
from contest.report import Row
from contest.rescore import Referee
from contest.task import Answer, Orders, Task
from contest.units import Unit

# What the networks' units are drawn from: early to late, before and after ReLUs.
LAYERS = {
    "squeezenet1.1": ["fire3", "fire5.expand3x3", "fire6", "fire9", "logits"],
    "efficientnet-lite0": ["blocks.3.expand.relu6", "blocks.6.project", "blocks.9.expand.relu6", "head", "logits"],
}
ARMS = ["proxygrad="]
# MACO takes as many steps as the program: with its many crops equal passes would be over after a few.
RIVALS = [
    "pytorch",
    "lucent",
    "lucent/released",
    "horama-fourier",
    "horama-maco/steps",
    "xplique-fourier",
    "xplique-maco/steps",
    "dreamlens-fourier",
]
BUDGETS = ("passes", "steps", "released")
# Relative difference up to which the program's own score is ONNX Runtime's.
SAME = 1e-3
# Units that the program gets at once when they are checked.
BATCH = 8


@dataclass
class Contest:
    """One network, everything ready."""

    model: str
    onnx: Path
    preprocessing: dict[str, Any]
    referee: Referee
    # Layer to tensor.
    tensors: dict[str, str]
    units: list[Unit]
    # Length of a step and noise of the start, of the program's plain gradient ascent.
    lr: float
    noise: float


def main() -> None:
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    remember(options)
    program = Program(options.binary.resolve(), options.data_dir.resolve(), options.threads)
    contests = prepared(program, options)
    units.write([unit for contest in contests for unit in contest.units], options.output / "units.json")
    runs = Runs(options.output / "runs.csv", options.again)
    for contest in contests:
        for arm in options.arms:
            run_arm(contest, arm, program, options, runs)
        for rival in options.rivals:
            run_rival(contest, rival, options, runs)
    rows = runs.of([arm.name for arm in options.arms], options.rivals, contests, options.seeds)
    text = report.tables(rows)
    (options.output / "table.md").write_text(text)
    report.grid(rows, options.output / "grid.png", options.grid)
    print(text)


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/proxygrad")
    parser.add_argument("--data-dir", type=Path, default=Path("proxygrad-data"), help="the program's folder of models")
    parser.add_argument("--output", type=Path, default=ROOT / "target/rivals")
    parser.add_argument("--onnx", action="append", default=[], metavar="MODEL=FILE", help="instead of building it")
    parser.add_argument("--models", type=names, default=list(LAYERS), help="separated by commas")
    parser.add_argument("--units", type=Path, metavar="FILE", help="JSON: [{model, layer, channel, reduce}]")
    parser.add_argument("--layers", action="append", default=[], metavar="MODEL=A,B", help="layers to draw units from")
    parser.add_argument("--draw", type=int, default=5, help="units of each layer")
    parser.add_argument("--draw-seed", type=int, default=2024)
    parser.add_argument("--reduce", choices=units.REDUCTIONS, default="center", help="of units that are drawn")
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in names(text)], default=[0])
    parser.add_argument("--passes", type=int, default=256, help="forward or backward, for everybody")
    parser.add_argument(
        "--arms", type=Arm.parse, action="append", metavar="NAME=FLAGS", help="ways to call the program"
    )
    parser.add_argument("--rivals", type=names, default=RIVALS, help="TOOL or TOOL/BUDGET: passes, steps or released")
    parser.add_argument("--checkpoints", type=int, default=16, help="iterates of a rival that may be its best")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--again", type=names, default=[], help="contenders whose runs in the folder do not count")
    parser.add_argument("--grid", type=int, default=12, help="lines of the grid of images")
    options = parser.parse_args()
    for rival in options.rivals:
        split(rival)
    options.arms = options.arms or [Arm.parse(text) for text in ARMS]
    for each in ("onnx", "layers"):
        setattr(options, each, dict(text.split("=", 1) for text in getattr(options, each)))
    options.output = options.output.resolve()
    return options


def remember(options: argparse.Namespace) -> None:
    """Runs that are kept in a folder must have been made alike."""
    path = options.output / "settings.json"
    settings = {"passes": options.passes, "checkpoints": options.checkpoints, "threads": options.threads}
    arms = {arm.name: list(arm.flags) for arm in options.arms}
    if path.exists():
        before = json.loads(path.read_text())
        earlier = before.pop("arms")
        changed = [name for name in arms if name in earlier and earlier[name] != arms[name]]
        if before != settings or set(changed) - set(options.again):
            raise SystemExit(f"{path} says {before} and {earlier}: choose another folder, or name arms in --again")
        arms = earlier | arms
    path.write_text(json.dumps(settings | {"arms": arms}, indent=1) + "\n")


def prepared(program: Program, options: argparse.Namespace) -> list[Contest]:
    given = units.read(options.units) if options.units else None
    models = list(dict.fromkeys(unit.model for unit in given)) if given else options.models
    return [prepare(program, model, given, options) for model in models]


def prepare(program: Program, model: str, given: list[Unit] | None, options: argparse.Namespace) -> Contest:
    about = program.json("models", "show", model)
    layers = program.json("models", "layers", model)
    # One pixel less than an odd side: images that are made of Fourier coefficients have an even one in most tools.
    size = (about["input"][1] // 2 * 2, about["input"][2] // 2 * 2)
    file = Path(options.onnx[model]) if model in options.onnx else built(model, options.output / "onnx")
    referee = Referee(file, about["preprocessing"], size, options.threads)
    if given is None:
        wanted = names(options.layers[model]) if model in options.layers else LAYERS[model]
        chosen = units.draw(model, layers, wanted, options.draw, options.reduce, options.draw_seed)
    else:
        chosen = [unit for unit in given if unit.model == model]
    print(f"{model}: {', '.join(map(str, chosen))}", file=sys.stderr)
    tensors = units.tensors(referee.network, layers, np.zeros(about["input"], np.float32))
    lost = {unit.layer for unit in chosen} - tensors.keys()
    if lost:
        raise SystemExit(f"{file} has no tensor for {model}'s {', '.join(sorted(lost))}")
    probe = options.output / "probe.png"
    # The step length depends on the size.
    flags = ["--gate", "plain", "--steps", "1", "--size", f"{size[0]},{size[1]}"]
    settings = program.maximize(model, [str(chosen[0])], probe, flags)["settings"]
    contest = Contest(
        model,
        file.resolve(),
        about["preprocessing"],
        referee,
        tensors,
        chosen,
        settings["optimizer"]["lr"],
        settings["start"]["noise"],
    )
    check(program, contest, options.output)
    return contest


def built(model: str, folder: Path) -> Path:
    """The catalog's network from its original weights."""
    file = folder / f"{model}.onnx"
    if not file.exists():
        command = [sys.executable, str(VERIFY / "build_onnx.py"), model, "--output", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return file


def check(program: Program, contest: Contest, folder: Path) -> None:
    """Each layer's energy and each unit's value must be the same here and there on the program's own PNGs."""
    layers = list(dict.fromkeys(unit.layer for unit in contest.units))
    size = contest.referee.size
    asked = [f"{layer}@energy" for layer in layers] + [str(unit) for unit in contest.units]
    flags = ["--steps", "2", "--size", f"{size[0]},{size[1]}"]
    stimuli: list[dict[str, Any]] = []
    for start in range(0, len(asked), BATCH):
        document = program.maximize(contest.model, asked[start : start + BATCH], folder / f"probe{start}.png", flags)
        stimuli += document["stimuli"]
    for objective, found in zip(asked, stimuli, strict=True):
        layer = objective.removesuffix("@energy").rsplit(":", 1)[0]
        png = Path(found["file"])
        output = contest.referee.output(contest.tensors[layer], contest.referee.image(png.read_bytes()))
        png.unlink()
        if objective.endswith("@energy"):
            recomputed = float(np.mean(output.astype(np.float64) ** 2))
        else:
            recomputed = next(unit for unit in contest.units if str(unit) == objective).value(output)
        if not same(found["score"], recomputed):
            raise SystemExit(
                f"{contest.model} {objective}: the program says {found['score']}, ONNX Runtime {recomputed} at the "
                f"tensor {contest.tensors[layer]}"
            )
    (folder / "probe.png").unlink(missing_ok=True)
    print(f"{contest.model}: {len(layers)} layers and {len(asked) - len(layers)} units are found", file=sys.stderr)


def same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(abs(a), abs(b), 1e-3)


class Runs:
    """The rows of the CSV file; written again with every row, so that nothing gets lost."""

    def __init__(self, path: Path, again: list[str]) -> None:
        self.path = path
        self.rows: dict[tuple[str, ...], Row] = {}
        if path.exists():
            with path.open(newline="") as file:
                for record in csv.DictReader(file):
                    row = row_of(record)
                    if row.contender not in again:
                        self.keep(row)

    def keep(self, row: Row) -> None:
        self.rows[key(row.tool, row.budget, row.model, row.unit, row.seed)] = row

    def add(self, row: Row) -> None:
        self.keep(row)
        report.write(list(self.rows.values()), self.path)

    def missing(self, tool: str, budget: str, contest: Contest, seeds: list[int]) -> list[tuple[Unit, int]]:
        every = [(unit, seed) for unit in contest.units for seed in seeds]
        keys = [key(tool, budget, contest.model, str(unit), seed) for unit, seed in every]
        return [each for each, name in zip(every, keys, strict=True) if name not in self.rows or self.rows[name].error]

    def of(self, arms: list[str], rivals: list[str], contests: list[Contest], seeds: list[int]) -> list[Row]:
        """Those of this call, in its order."""
        contenders = [(arm, "") for arm in arms] + [split(rival) for rival in rivals]
        wanted = [
            key(tool, budget, contest.model, str(unit), seed)
            for contest in contests
            for tool, budget in contenders
            for unit in contest.units
            for seed in seeds
        ]
        return [self.rows[each] for each in wanted if each in self.rows]


def key(tool: str, budget: str, model: str, unit: str, seed: int) -> tuple[str, ...]:
    return tool, budget, model, unit, str(seed)


def row_of(record: dict[str, str]) -> Row:
    read: dict[Any, Any] = {str: str, int: int, float: float, int | None: int, float | None: float}
    kinds = {field.name: field.type for field in fields(Row)}
    values = {name: (read[kinds[name]], text) for name, text in record.items()}
    found: dict[str, Any] = {name: kind(text) if text or kind is str else None for name, (kind, text) in values.items()}
    return Row(**found)


def split(rival: str) -> tuple[str, str]:
    """`lucent/steps`; everybody's passes when nothing is said."""
    tool, _, budget = rival.partition("/")
    if tool not in MODULES or budget not in ("", *BUDGETS):
        raise SystemExit(
            f"{rival}: expected one of {', '.join(MODULES)}, optionally followed by / and {', '.join(BUDGETS)}"
        )
    return tool, budget or "passes"


def run_arm(contest: Contest, arm: Arm, program: Program, options: argparse.Namespace, runs: Runs) -> None:
    version = program.version()
    for unit, seed in runs.missing(arm.name, "", contest, options.seeds):
        stem = folder_of(options.output, contest, arm.name) / stem_of(unit, seed)
        answer = arm.run(program, unit, seed, contest.referee.size, options.passes, stem)
        row = judged(contest, unit, seed, answer, arm.name, "", version)
        # The program promises this of every PNG.
        if row.score is not None and not same(row.own or 0.0, row.score):
            raise SystemExit(f"{arm.name} says {row.own} of {row.file}, ONNX Runtime says {row.score}")
        # Only the best iterate is delivered.
        row.last = None
        runs.add(row)
        print_row(row)


def run_rival(contest: Contest, rival: str, options: argparse.Namespace, runs: Runs) -> None:
    tool, budget = split(rival)
    missing = runs.missing(tool, budget, contest, options.seeds)
    if not missing:
        return
    of_stem = {stem_of(unit, seed): (unit, seed) for unit, seed in missing}
    tasks = [
        Task(unit.layer, contest.tensors[unit.layer], unit.channel, unit.reduce, seed, stem)
        for stem, (unit, seed) in of_stem.items()
    ]
    orders = Orders(
        tool,
        budget,
        options.passes,
        str(contest.onnx),
        contest.preprocessing,
        contest.referee.size,
        contest.lr,
        contest.noise,
        options.checkpoints,
        options.threads,
        str(folder_of(options.output, contest, rival.replace("/", "-"))),
    )
    version, error = "", ""
    try:
        with Process(orders) as process:
            version = process.version
            for task in tasks:
                answer = process.run(task)
                unit, seed = of_stem.pop(task.stem)
                row = judged(contest, unit, seed, answer, tool, budget, version)
                runs.add(row)
                print_row(row)
    except Ended as ended:
        error = str(ended)
    for unit, seed in of_stem.values():
        row = judged(contest, unit, seed, Answer("", 0, 0, 0.0, None, [], error), tool, budget, version)
        runs.add(row)
    if of_stem:
        print(f"{contest.model} {rival}: {error}", file=sys.stderr)


def judged(contest: Contest, unit: Unit, seed: int, answer: Answer, tool: str, budget: str, version: str) -> Row:
    """The row of an answer; of its images only the best is kept."""
    scores = []
    for step, file in answer.images:
        scores.append((contest.referee.score(unit, contest.tensors[unit.layer], Path(file)), step, file))
    # The first of equals.
    best = max(scores, key=lambda each: each[0], default=(None, None, ""))
    for _, _, file in scores:
        if file != best[2]:
            Path(file).unlink()
    last = scores[-1][0] if scores else None
    return Row(
        tool,
        budget,
        version,
        contest.model,
        str(unit),
        seed,
        answer.steps,
        answer.passes,
        round(answer.seconds, 4),
        answer.own,
        best[0],
        best[1],
        last,
        best[2],
        " ".join((answer.error or "").split()),
    )


def print_row(row: Row) -> None:
    found = row.error or f"{row.score:.5g} in {row.seconds:.1f} s"
    print(f"{row.model} {row.unit} seed {row.seed} {row.contender}: {found}", file=sys.stderr)


def folder_of(output: Path, contest: Contest, contender: str) -> Path:
    folder = output / "images" / contest.model / contender
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stem_of(unit: Unit, seed: int) -> str:
    return f"{unit}-s{seed}".replace("/", "_").replace(":", "_").replace("@", "_")


if __name__ == "__main__":
    main()
