"""The page of the zoo, and whether a network passes."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from check import ENGINES, INNER, OUTPUT
from networks import Entry

# Kinds of unsupported nodes that a remark lists.
KINDS = 3

INTRODUCTION = """# Networks

Networks of torchvision and timm with random weights, and some written for this page, exported by both exporters of PyTorch with
default settings: today's (`dynamo`, with its weights in `NAME.onnx.data`) and the older one (`torchscript`, `dynamo=False`). Every
file is added by `proxygrad models add net.onnx`, without any options, and run on one random image by both engines, in f32. Made by
[`zoo.py`](../studies/README.md#the-zoo).

"""

COLUMNS = f"""
- **dynamo**, **torchscript**: whether the file is imported, with all its outputs; `no file` where PyTorch's exporter fails, `not run`
  where it was not tried.
- **layers**: as `proxygrad models layers` lists them; for the file of `dynamo`, unless only the other one is imported.
- **output**, **inner**: the largest difference from ONNX Runtime of an output, and of any inner layer that has a tensor in the
  file, relative to the root mean square of the tensor; the larger one of both exporters. Allowed are {OUTPUT:.0e} and {INNER:.0e}.
- **gradient**: the distance of the gradient of the first logit with respect to the image from PyTorch's, relative to its norm;
  the largest of all. It is not judged: where the input of a ReLU or two values of a maximum are within rounding of each other, either
  derivative is right, and deep networks with random weights amplify every rounding.
  PyTorch's gradients of LeViT, XCiT and EfficientViT-M0 contradict finite differences of its own outputs in f64: along the gradient of
  LeViT these are -0.3 instead of 84.9. Along the gradient of this program they are 85.5 instead of 84.7, with steps of 0.01.

Large inputs of a softmax amplify rounding. With these weights they reach 925 in DaViT and 110 in LeViT, whose softmaxes differ by 6e-4
between f32 and f64 in PyTorch itself. ReXNet normalizes averages over the image by their spread, which is small: PyTorch's own f32
differs from its f64 by 4e-4 in the output and by 3e-3 inside.
"""

HEAD = f"""| network | dynamo | torchscript | layers | output: {" | ".join(ENGINES)} | inner: {" | ".join(ENGINES)} | gradient | remarks |
|---|---|---|--:|{"--:|" * (2 * len(ENGINES) + 1)}---|
"""


NAMES = """
## Names of modules

The modules of `named_modules()` that compute something from the image, and those that `proxygrad models layers` lists by their
path. The older exporter folds batch normalizations into convolutions: those are not in its files. Made by
[`names.py`](../studies/README.md#the-zoo), which also compares the values of these layers with those of the modules.

| network | modules | dynamo | torchscript | not found |
|---|--:|--:|--:|---|
"""


@dataclass(frozen=True)
class File:
    """A network as one exporter writes it: why it could not be exported, or what was found in the file."""

    failed: str | None
    found: dict[str, Any]

    @staticmethod
    def read(folder: Path) -> "File | None":
        """None if the file has not been exported or not checked yet."""
        if not (folder / "export.json").exists():
            return None
        failed = json.loads((folder / "export.json").read_text())["failed"]
        if failed is not None:
            return File(failed, {})
        report = folder / "check.json"
        return File(None, json.loads(report.read_text())) if report.exists() else None

    def largest(self, key: str, engines: Sequence[str] = ENGINES) -> float | None:
        """The largest of an error of some engines."""
        errors = [self.found.get("engines", {}).get(engine, {}).get(key) for engine in engines]
        return largest(errors)

    def imports(self) -> bool:
        """Whether it is added as it is, every node is supported, and every output is computed."""
        refused = any(self.found.get(key) for key in ("error", "unsupported", "missing_outputs"))
        return self.failed is None and isinstance(self.found.get("layers"), int) and not refused

    def right(self) -> bool:
        """Whether all values that were compared are within the bounds."""
        return (self.largest("output_error") or 0) <= OUTPUT and (self.largest("inner_error") or 0) <= INNER

    def passed(self) -> bool:
        return self.imports() and self.right() and self.largest("output_error") is not None

    def remark(self) -> str:
        """Why it does not pass; empty if it does."""
        if self.failed is not None:
            return f"not exported: {self.failed}"
        if self.found.get("error"):
            return re.sub(r"\s+", " ", self.found["error"])
        kinds = Counter(f"{node['op']}: {node['reason']}" for node in self.found.get("unsupported", []))
        parts = [f"{count} {kind}" for kind, count in kinds.most_common(KINDS)]
        if len(kinds) > KINDS:
            parts.append(f"{len(kinds) - KINDS} more kinds")
        if not parts and isinstance(self.found.get("layers"), str):
            parts.append(self.found["layers"])
        if not parts and self.found.get("missing_outputs"):
            parts.append(f"outputs {', '.join(self.found['missing_outputs'])} are not computed")
        if not self.right():
            first = next((each for engine in self.found["engines"].values() if (each := engine.get("first_wrong"))), None)
            parts.append(f"above the bounds, first in {first['tensor']}" if first else "above the bounds")
        return "; ".join(parts)


def markdown(folder: Path, entries: Sequence[Entry], exporters: Sequence[str]) -> str:
    """The page of all networks that were exported."""
    rows: dict[str, list[str]] = {}
    counts: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        files = {exporter: File.read(folder / f"{entry.folder}-{exporter}") for exporter in exporters}
        if not any(files.values()):
            continue
        rows.setdefault(entry.family, []).append(row(entry, files))
        for exporter, file in files.items():
            count = counts.setdefault((entry.family, exporter), Counter())
            if file is not None:
                count.update(tried=1, files=file.failed is None, imported=file.imports(), passed=file.passed())
    missing = len(entries) - sum(map(len, rows.values()))
    text = INTRODUCTION + summary(counts, rows)
    text += f"\nThe list has {len(entries)} networks; {missing} of them have not been run.\n" if missing else ""
    text += COLUMNS
    for family, lines in rows.items():
        text += f"\n## {family.capitalize()}\n\n{HEAD}{''.join(lines)}"
    if (folder / "names.json").exists():
        text += names(json.loads((folder / "names.json").read_text()))
    return text


def names(found: dict[str, Any]) -> str:
    """The section about the names of modules."""
    text = NAMES
    for network, exporters in found.items():
        cells, problems = [], []
        for exporter, each in exporters.items():
            named = each["modules"] - each["folded"]
            lost = len(each["problems"])
            cells.append(f"{named - lost} of {named}" + (f", {each['folded']} folded" if each["folded"] else ""))
            problems += [f"{exporter}: {escaped(path)} {escaped(why)}" for path, why in each["problems"].items()]
        modules = max(each["modules"] for each in exporters.values())
        text += f"| {network} | {modules} | {' | '.join(cells)} | {'; '.join(problems)} |\n"
    return text


def summary(counts: dict[tuple[str, str], Counter[str]], rows: dict[str, list[str]]) -> str:
    text = "| family | networks | exporter | files | imported | all values right |\n|---|--:|---|--:|--:|--:|\n"
    total: dict[str, Counter[str]] = {}
    for (family, exporter), count in counts.items():
        total.setdefault(exporter, Counter()).update(count)
    named = [(family.capitalize(), len(rows[family]), exporter, count) for (family, exporter), count in counts.items()]
    named += [("All", sum(map(len, rows.values())), exporter, count) for exporter, count in total.items()]
    for family, networks, exporter, count in named:
        share = f"{count['imported']} ({100 * count['imported'] / max(count['files'], 1):.1f} %)"
        text += f"| {family} | {networks} | `{exporter}` | {count['files']} | {share} | {count['passed']} |\n"
    return text


def row(entry: Entry, files: dict[str, File | None]) -> str:
    """One line of the table."""
    known = {exporter: file for exporter, file in files.items() if file is not None}
    imported = [file for file in known.values() if file.imports()]
    cells = [f"{entry.name}{shown(entry.arguments)}", *map(state, files.values())]
    cells.append(str(imported[0].found["layers"]) if imported else "")
    for key in ("output_error", "inner_error"):
        cells += [number(largest([file.largest(key, [engine]) for file in imported])) for engine in ENGINES]
    cells.append(number(largest([file.largest("gradient_distance") for file in imported])))
    remarks: dict[str, list[str]] = {}
    for exporter, file in known.items():
        if not file.passed():
            remarks.setdefault(escaped(file.remark()), []).append(exporter)
    cells.append("; ".join(f"{' and '.join(exporters)}: {remark}" for remark, exporters in remarks.items()))
    return f"| {' | '.join(cells)} |\n"


def largest(errors: Sequence[float | None]) -> float | None:
    return max((each for each in errors if each is not None), default=None)


def shown(arguments: str) -> str:
    """Arguments of a constructor other than those that only avoid a warning."""
    kept = {name: value for name, value in json.loads(arguments).items() if name != "init_weights"}
    return f" ({', '.join(f'{escaped(name)} {escaped(str(value))}' for name, value in kept.items())})" if kept else ""


def state(file: File | None) -> str:
    if file is None:
        return "not run"
    if file.failed is not None:
        return "no file"
    return "yes" if file.imports() else "refused"


def escaped(text: str) -> str:
    """Text without signs that end a cell of a table, and without colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.sub(r"([<>\[\]_*`|])", r"\\\1", text[:240])


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"
