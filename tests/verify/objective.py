"""Objectives as the API writes them, and their value on the outputs of layers."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

TEXT = re.compile(
    r"(?P<layer>.+)(?:@(?P<energy>energy)|:(?P<channel>\d+)"
    r"(?:@(?:(?P<reduce>mean|center|max)|top(?P<fraction>[^,]+)|(?P<row>\d+),(?P<column>\d+)))?)"
)


@dataclass(frozen=True)
class Unit:
    """A unit with its weight in the sum. Without channel and direction it is the whole layer."""

    layer: str
    channel: int | None = None
    direction: tuple[float, ...] | None = None
    position: tuple[int, int] | None = None
    reduce: str = "mean"
    fraction: Decimal = Decimal(1)
    weight: float = 1.0

    def __str__(self) -> str:
        if self.reduce == "energy":
            return f"{self.layer}@energy"
        what = self.channel if self.direction is None else f"<{len(self.direction)} weights>"
        if self.position is not None:
            how = "@{},{}".format(*self.position)
        elif self.reduce == "top-fraction":
            how = f"@top{self.fraction}"
        else:
            how = "" if self.reduce == "mean" else f"@{self.reduce}"
        return f"{self.layer}:{what}{how}"


def parse(document: str | dict[str, Any]) -> list[Unit]:
    """The terms of an objective: of a unit as text, of a unit as an object, or of `{"sum": [...]}`."""
    if isinstance(document, dict) and "sum" in document:
        return [unit(term) for term in document["sum"]]
    return [unit(document)]


def unit(document: str | dict[str, Any]) -> Unit:
    if isinstance(document, str):
        return unit_of_text(document)
    position, direction = document.get("position"), document.get("direction")
    return Unit(
        layer=document["layer"],
        channel=document.get("channel"),
        direction=tuple(direction) if direction is not None else None,
        position=(position[0], position[1]) if position is not None else None,
        reduce=document.get("reduce") or "mean",
        fraction=Decimal(str(document.get("fraction") or 1)),
        weight=document.get("weight", 1.0),
    )


def unit_of_text(text: str) -> Unit:
    match = TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is no unit")
    layer = match["layer"]
    if match["energy"]:
        return Unit(layer, reduce="energy")
    channel = int(match["channel"])
    if match["row"]:
        return Unit(layer, channel, position=(int(match["row"]), int(match["column"])))
    if match["fraction"]:
        return Unit(layer, channel, reduce="top-fraction", fraction=Decimal(match["fraction"]))
    return Unit(layer, channel, reduce=match["reduce"] or "mean")


def text(units: list[Unit]) -> str:
    """`logits:281 - logits:285`"""
    words = []
    for i, each in enumerate(units):
        sign = "-" if each.weight < 0 else "+"
        words += [sign] if i > 0 else [sign] * (sign == "-")
        words += [] if abs(each.weight) == 1 else [f"{abs(each.weight):g} *"]
        words.append(str(each))
    return " ".join(words)


def value(units: list[Unit], outputs: Mapping[str, np.ndarray]) -> float:
    """The objective on the layers' outputs `[C,H,W]` or `[K]`."""
    return sum(each.weight * unit_value(each, outputs[each.layer].astype(np.float64)) for each in units)


def unit_value(each: Unit, output: np.ndarray) -> float:
    if each.reduce == "energy":
        return float(np.mean(output**2))
    maps = output if output.ndim == 3 else output.reshape(len(output), 1, -1)
    if each.direction is not None:
        chosen = np.tensordot(np.array(each.direction), maps, axes=1)
    else:
        chosen = maps[each.channel]
    if each.position is not None:
        return float(chosen[each.position])
    return reduced(chosen, each.reduce, each.fraction)


def reduced(chosen: np.ndarray, how: str, fraction: Decimal) -> float:
    height, width = chosen.shape
    if how == "center":
        return float(chosen[height // 2, width // 2])
    if how == "max":
        return float(chosen.max())
    if how == "top-fraction":
        count = math.ceil(fraction * chosen.size)
        return float(np.sort(chosen, axis=None)[-count:].mean())
    if how == "mean":
        return float(chosen.mean())
    raise ValueError(f"{how} is no reduction")
