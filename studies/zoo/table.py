"""The table of the zoo, and whether a network passes."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from networks import Entry

# Largest errors relative to the root mean square of a tensor.
OUTPUT, INNER = 1e-4, 1e-3


def imports(found: dict[str, Any]) -> bool:
    return not (found.get("error") or found.get("unsupported") or found.get("missing_outputs"))


def passed(found: dict[str, Any]) -> bool:
    right = (found.get("output_error") or 0) <= OUTPUT and (found.get("inner_error") or 0) <= INNER
    return imports(found) and right and found.get("output_error") is not None


def reason(found: dict[str, Any]) -> str:
    if found.get("error"):
        return found["error"]
    parts = []
    kinds = Counter(f"{node['op']}: {node['reason']}" for node in found.get("unsupported", []))
    parts += [f"{count} {kind}" for kind, count in kinds.most_common(6)]
    if not parts and found.get("missing_outputs"):
        parts.append(f"outputs missing: {', '.join(found['missing_outputs'])}")
    if (found.get("output_error") or 0) > OUTPUT or (found.get("inner_error") or 0) > INNER:
        parts.append(f"WRONG VALUES output {found.get('output_error')} inner {found.get('inner_error')} first {found.get('first_wrong')}")
    return " | ".join(parts)


def markdown(folder: Path, entries: Sequence[Entry], exporters: Sequence[str]) -> str:
    lines = []
    for entry in entries:
        for exporter in exporters:
            report = folder / f"{entry.folder}-{exporter}" / "check.json"
            if not report.exists():
                continue
            found = json.loads(report.read_text())
            cells = [entry.name, entry.family, exporter, "yes" if imports(found) else "no"]
            cells += [number(found.get(key)) for key in ("output_error", "inner_error", "gradient_distance")]
            lines.append(f"| {' | '.join(cells)} | {'' if imports(found) else reason(found)} |")
    head = "| network | family | exporter | imports | output error | inner error | gradient | refused |\n|---|---|---|---|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"
