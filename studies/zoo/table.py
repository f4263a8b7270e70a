"""The table of the zoo, and whether a network passes."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from networks import Entry

# Largest errors relative to the root mean square of a tensor.
OUTPUT, INNER = 1e-4, 1e-3
# Kinds of unsupported nodes that a cell of the table lists.
KINDS = 4

INTRODUCTION = """# Networks

Exports of PyTorch with default settings and random weights, by the exporter of today (`dynamo`) and the older one (`torchscript`,
`dynamo=False`), imported as they are and compared with ONNX Runtime. Made by [`zoo.py`](../studies/README.md#the-zoo).

- **output**, **inner**: the largest difference of an output, and of any inner layer that has a tensor in the file, relative to the
  root mean square of the tensor (f32, reference engine). Allowed are 1e-4 and 1e-3.
- **gradient**: the distance of the gradient of the first logit with respect to the image from PyTorch's, relative to its norm. Where
  a ReLU's input is within rounding of 0, either derivative is right; therefore networks with ReLUs differ more.

"""


def imports(found: dict[str, Any]) -> bool:
    """Whether every node is supported and every output is computed."""
    return not (found.get("error") or found.get("unsupported") or found.get("missing_outputs"))


def right(found: dict[str, Any]) -> bool:
    """Whether all values that were compared are within the bounds."""
    return (found.get("output_error") or 0) <= OUTPUT and (found.get("inner_error") or 0) <= INNER


def passed(found: dict[str, Any]) -> bool:
    return imports(found) and right(found) and found.get("output_error") is not None


def reason(found: dict[str, Any]) -> str:
    """Why a network does not pass."""
    if found.get("error"):
        return re.sub(r"\s+", " ", found["error"])
    kinds = Counter(f"{node['op']}: {node['reason']}" for node in found.get("unsupported", []))
    parts = [f"{count} {kind}" for kind, count in kinds.most_common(KINDS)]
    if len(kinds) > KINDS:
        parts.append(f"{len(kinds) - KINDS} more kinds")
    if not parts and found.get("missing_outputs"):
        parts.append(f"outputs {', '.join(found['missing_outputs'])} are not computed")
    if not right(found):
        first = found.get("first_wrong")
        parts.append(f"wrong values, first in {first['tensor']}" if first else "wrong values")
    return "; ".join(parts)


def markdown(folder: Path, entries: Sequence[Entry], exporters: Sequence[str]) -> str:
    """The page of all networks that were exported."""
    rows, not_exported = [], []
    counts: dict[str, Counter[str]] = {exporter: Counter() for exporter in exporters}
    for entry in entries:
        for exporter in exporters:
            place = folder / f"{entry.folder}-{exporter}"
            exported, report = place / "export.json", place / "check.json"
            failed = json.loads(exported.read_text())["failed"] if exported.exists() else None
            if failed is not None:
                not_exported.append(f"| {entry.name} | {exporter} | {cell(failed)} |")
            if failed is not None or not report.exists():
                continue
            found = json.loads(report.read_text())
            counts[exporter].update(files=1, imported=imports(found), passed=passed(found))
            cells = [entry.name, entry.family, exporter, "yes" if imports(found) else "no"]
            cells += [number(found.get(key)) for key in ("output_error", "inner_error", "gradient_distance")]
            rows.append(f"| {' | '.join(cells)} | {'' if passed(found) else cell(reason(found))} |")
    summary = "| exporter | files | import | all values right |\n|---|---|---|---|\n"
    for exporter, count in counts.items():
        summary += f"| `{exporter}` | {count['files']} | {count['imported']} | {count['passed']} |\n"
    head = "\n| network | family | exporter | imports | output | inner | gradient | why not |\n|---|---|---|---|---|---|---|---|\n"
    text = INTRODUCTION + summary + head + "".join(f"{row}\n" for row in rows)
    if not_exported:
        text += "\n## Not exported\n\nPyTorch's exporter failed, or the file is too large.\n\n"
        text += "| network | exporter | why |\n|---|---|---|\n" + "".join(f"{row}\n" for row in not_exported)
    return text


def cell(text: str) -> str:
    """Text without signs that end a cell of a table, and without colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.sub(r"([<>\[\]_*`|])", r"\\\1", text[:240])


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"
