"""Results as CSV, as tables and as a grid of images."""

import csv
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

BASE = "pytorch"
# By unit and seed.
Scores = dict[tuple[str, int], float]


@dataclass
class Row:
    """One run. Scores without `own` are ONNX Runtime's, of 8-bit PNGs."""

    tool: str
    budget: str
    version: str
    model: str
    unit: str
    seed: int
    steps: int
    passes: int
    seconds: float
    # What the tool itself says about its result.
    own: float | None
    # Of the best of the iterates that were kept.
    score: float | None
    best_step: int | None
    # Of the last one.
    last: float | None
    # The best one's PNG.
    file: str
    error: str

    @property
    def contender(self) -> str:
        return self.tool if self.budget in ("", "passes") else f"{self.tool}/{self.budget}"


def write(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if value is None else value for key, value in asdict(row).items()})


def contenders(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.contender for row in rows))


def tables(rows: list[Row]) -> str:
    """A table for each model, in Markdown. The first contender is compared with everybody, and so is PyTorch.

    Ratios are those of units that PyTorch lifts above their start and above 0.
    """
    parts = []
    for model in dict.fromkeys(row.model for row in rows):
        mine = [row for row in rows if row.model == model]
        units = len({(row.unit, row.seed) for row in mine})
        parts.append(f"## {model}, {units} units and seeds\n\n{table(mine)}\n\n{versions(mine)}")
    return "\n\n".join(parts) + "\n"


def table(rows: list[Row]) -> str:
    scores = {
        name: {(row.unit, row.seed): row.score for row in rows if row.contender == name and row.score is not None}
        for name in contenders(rows)
    }
    # Shared by all that take part in it; a tool that failed on a unit just does not win it.
    highest = {key: max(found[key] for found in scores.values() if key in found) for key in all_keys(scores)}
    first = next(iter(scores))
    base = scores.get(BASE, {})
    lifted = {(row.unit, row.seed) for row in rows if row.contender == BASE and row.best_step} & positive(base)
    heads = ["contender", "runs", "failed", "at most 0", "median / PyTorch", "worst / PyTorch", "above PyTorch"]
    heads += [f"above {first}", "highest of all", "median last / best", "median passes", "median seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, found in scores.items():
        mine = [row for row in rows if row.contender == name]
        done = [row for row in mine if row.score is not None]
        ratios = [score / base[key] for key, score in found.items() if key in lifted]
        wins = sum(score >= highest[key] for key, score in found.items())
        lasts = [
            row.last / row.score for row in done if row.last is not None and row.score is not None and row.score > 0
        ]
        cells = [
            name,
            len(mine),
            len(mine) - len(done),
            sum(score <= 0 for score in found.values()),
            number(ratios, statistics.median) + (f" ({len(ratios)})" if name == BASE else ""),
            number(ratios, min),
            above(found, base),
            above(found, scores[first]),
            wins,
            number(lasts, statistics.median),
            number([row.passes for row in done], statistics.median, ".0f"),
            number([row.seconds for row in done], statistics.median, ".2f"),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def versions(rows: list[Row]) -> str:
    """What ran; and of what did not, the first message."""
    lines = []
    for name in contenders(rows):
        mine = [row for row in rows if row.contender == name]
        version = next((row.version for row in mine if row.version), "did not start")
        error = next((f"; failed: {row.error}" for row in mine if row.error), "")
        lines.append(f"- {name}: {version}{error}")
    return "\n".join(lines)


def above(found: Scores, other: Scores) -> str:
    compared = [key for key in found if key in other]
    return f"{sum(found[key] > other[key] for key in compared)} of {len(compared)}" if compared else "–"


def positive(scores: Scores) -> set[tuple[str, int]]:
    return {key for key, score in scores.items() if score > 0}


def all_keys(scores: dict[str, Scores]) -> set[tuple[str, int]]:
    return {key for found in scores.values() for key in found}


def number(values: list[float], summary: Callable[[list[float]], float], digits: str = ".3f") -> str:
    return f"{summary(values):{digits}}" if values else "–"


CELL = 160
MARGIN = 6
CAPTION = 18
LEFT = 170


def grid(rows: list[Row], path: Path, most: int) -> None:
    """Units down, contenders across, each image with its score; the highest of a line is marked."""
    columns = contenders(rows)
    lines = spread(list(dict.fromkeys((row.model, row.unit, row.seed) for row in rows)), most)
    found = {(row.model, row.unit, row.seed, row.contender): row for row in rows}
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    height = CELL + CAPTION + MARGIN
    sheet = Image.new("RGB", (LEFT + len(columns) * (CELL + MARGIN), 2 * CAPTION + len(lines) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(columns):
        draw.text((LEFT + i * (CELL + MARGIN), CAPTION // 2), name, "black", font)
    for j, line in enumerate(lines):
        top = 2 * CAPTION + j * height
        model, unit, seed = line
        draw.text((MARGIN, top), f"{model}\n{unit}\nseed {seed}", "black", small)
        mine = {name: found.get((*line, name)) for name in columns}
        highest = max((row.score for row in mine.values() if row and row.score is not None), default=None)
        for i, row in enumerate(mine.values()):
            left = LEFT + i * (CELL + MARGIN)
            if row is None or row.score is None:
                draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline="grey")
                draw.text((left + MARGIN, top + MARGIN), "did not run", "grey", small)
                continue
            with Image.open(row.file) as image:
                sheet.paste(image.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
            mark = " (highest)" if row.score == highest else ""
            draw.text((left, top + CELL), f"{row.score:.4g}{mark}", "black", small)
    sheet.save(path)


def spread(lines: list, most: int) -> list:
    """At most this many, evenly spaced."""
    if len(lines) <= most:
        return lines
    return [lines[i * len(lines) // most] for i in range(most)]
