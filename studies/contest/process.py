"""A contender at work in a process of its own, seen from outside."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from contest import ROOT
from contest.task import Answer, Orders, Task


class Ended(Exception):
    """The process answers no more; says why."""


class Process:
    """Answers one task after the other; its own output goes to `log.txt` next to its images.

    It has read its network once it is there.
    """

    def __init__(self, orders: Orders) -> None:
        threads = {name: str(orders.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        environment = os.environ | threads | {"PYTHONPATH": str(ROOT / "studies"), "CUDA_VISIBLE_DEVICES": ""}
        with (Path(orders.folder) / "log.txt").open("w") as log:
            command = [sys.executable, "-m", "contest.contender"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        try:
            first = self.asked(asdict(orders))
            if "failed" in first:
                raise Ended(first["failed"])
        except Ended:
            self.process.kill()
            self.process.communicate()
            raise
        self.version: str = first["version"]

    def asked(self, document: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(document) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Ended("the process ended early") from None
        line = self.process.stdout.readline()
        if not line:
            raise Ended("the process ended early")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, task: Task) -> Answer:
        return Answer(**self.asked(asdict(task)))

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It ends with its input.
        self.process.communicate()
