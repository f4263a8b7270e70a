"""What a contender is asked, and what it answers: lines of JSON on the standard input and output of its process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Task:
    """One unit and seed."""

    layer: str
    # The layer's output in the ONNX file.
    tensor: str
    channel: int
    reduce: str
    seed: int
    # Files are named `{stem}-{step}.png`.
    stem: str


@dataclass(frozen=True)
class Orders:
    """What a contender runs."""

    tool: str
    # `passes`: as many passes as everybody; `steps`: as many steps; `released`: the tool's own defaults.
    budget: str
    passes: int
    onnx: str
    # What `proxygrad models show --json` says.
    preprocessing: dict[str, Any]
    # Height and width.
    size: tuple[int, int]
    # Start, step length: those of the program's plain gradient ascent.
    lr: float
    noise: float
    # How many iterates are kept for the choice of the best, besides the last.
    checkpoints: int
    threads: int
    folder: str

    def steps(self, released: int, passes_per_step: int) -> int:
        """`released` is the tool's default."""
        if self.budget == "released":
            return released
        return max(1, self.passes // (passes_per_step if self.budget == "passes" else 2))

    def kept(self, steps: int) -> list[int]:
        """Steps after which the iterate is kept: evenly spaced, and the last."""
        return sorted({round(steps * (i + 1) / self.checkpoints) for i in range(self.checkpoints)} - {0} | {steps})


@dataclass
class Answer:
    """What became of a task."""

    stem: str
    steps: int
    # Forward or backward passes of one image; a batch counts as many times as it has images.
    passes: int
    seconds: float
    # The score that the tool reports, if any.
    own: float | None
    # Step and file of the iterates, the last one last.
    images: list[tuple[int, str]]
    error: str | None = None


def save(levels: np.ndarray, folder: str, stem: str, step: int) -> tuple[int, str]:
    """Writes an image `[H,W,3]` of 8-bit levels."""
    path = Path(folder) / f"{stem}-{step}.png"
    Image.fromarray(levels).save(path)
    return step, str(path)


def rounded(image: np.ndarray) -> np.ndarray:
    """8-bit levels of values from 0 to 1."""
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
