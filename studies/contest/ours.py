"""The program itself, by its command line."""

import json
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest.task import Answer
from contest.units import Unit

# An arm that sets one of these says itself how long it searches.
LENGTHS = ("--steps", "--passes", "--budget")


@dataclass(frozen=True)
class Program:
    binary: Path
    data: Path
    threads: int

    def call(self, *arguments: str) -> str:
        command = [str(self.binary), *arguments, "--data-dir", str(self.data)]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)}: {answer.stderr.strip()}")
        return answer.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.call(*arguments, "--json"))

    def version(self) -> str:
        return subprocess.run([str(self.binary), "--version"], capture_output=True, text=True).stdout.strip()

    def maximize(self, model: str, objectives: list[str], output: Path, flags: list[str]) -> Any:
        units = [word for objective in objectives for word in ("--unit", objective)]
        threads = ["--threads", str(self.threads)]
        return self.json("maximize", "--model", model, *units, *threads, "--output", str(output), *flags)


@dataclass(frozen=True)
class Arm:
    """A way to call the program: `NAME=FLAGS`, in which `{passes}` is replaced by the common number of passes."""

    name: str
    flags: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Arm":
        name, _, flags = text.partition("=")
        return cls(name, tuple(shlex.split(flags)))

    def run(self, program: Program, unit: Unit, seed: int, size: tuple[int, int], passes: int, stem: Path) -> Answer:
        given = [flag.replace("{passes}", str(passes)) for flag in self.flags]
        length = [] if set(LENGTHS) & set(given) else ["--steps", str(passes // 2)]
        flags = ["--seed", str(seed), "--size", f"{size[0]},{size[1]}", *length, *given]
        output = stem.parent / f"{stem.name}-best.png"
        started = time.perf_counter()
        try:
            document = program.maximize(unit.model, [str(unit)], output, flags)
        except RuntimeError as error:
            return Answer(stem.name, 0, 0, time.perf_counter() - started, None, [], str(error))
        seconds = time.perf_counter() - started
        found = document["stimuli"][0]
        return Answer(
            stem.name,
            document["settings"]["steps"],
            found["passes"],
            seconds,
            found["score"],
            [(found["best_step"], str(output))],
        )
