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
    """A unit with its weight in the sum. Without channel, direction and image it is the whole layer."""

    layer: str
    channel: int | None = None
    direction: tuple[float, ...] | None = None
    # `caricature` or `inversion`, and the SHA-256 of the PNG that the layer's values are compared with.
    likeness: str | None = None
    image: str | None = None
    cosine_power: float = 0.0
    position: tuple[int, int] | None = None
    reduce: str = "mean"
    fraction: Decimal = Decimal(1)
    weight: float = 1.0

    def __str__(self) -> str:
        if self.reduce == "energy":
            return f"{self.layer}@energy"
        if self.likeness is not None:
            power = f" cos^{self.cosine_power:g}" if self.likeness == "caricature" else ""
            return f"{self.layer}@{self.likeness} of {(self.image or '')[:8]}{power}"
        what = self.channel if self.direction is None else f"<{len(self.direction)} weights>"
        if self.position is not None:
            how = "@{},{}".format(*self.position)
        elif self.reduce == "top-fraction":
            how = f"@top{self.fraction}"
        else:
            how = "" if self.reduce == "mean" else f"@{self.reduce}"
        power = f" cos^{self.cosine_power:g}" if self.cosine_power else ""
        return f"{self.layer}:{what}{how}{power}"


def parse(document: str | dict[str, Any]) -> list[Unit]:
    """The terms of an objective: of a unit as text, of a unit as an object, or of `{"sum": [...]}`."""
    if isinstance(document, dict) and "sum" in document:
        return [unit(term) for term in document["sum"]]
    return [unit(document)]


def images(document: str | dict[str, Any]) -> set[str]:
    """SHA-256 of every image that an objective compares with."""
    return {each.image for each in parse(document) if each.image is not None}


def unit(document: str | dict[str, Any]) -> Unit:
    if isinstance(document, str):
        return unit_of_text(document)
    position, direction = document.get("position"), document.get("direction")
    likeness = next((kind for kind in ("caricature", "inversion") if kind in document), None)
    power = document.get("cosine_power")
    return Unit(
        likeness=likeness,
        image=document[likeness]["image"]["sha256"] if likeness is not None else None,
        cosine_power=power if power is not None else float(likeness == "caricature"),
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


# Outputs of layers by their names, on one image.
Outputs = Mapping[str, np.ndarray]


def value(units: list[Unit], outputs: Outputs, images: Mapping[str, Outputs]) -> float:
    """The objective on the layers' outputs; `images` are the outputs on the images that units compare with."""

    def of(each: Unit) -> float:
        reference = images[each.image][each.layer] if each.image is not None else None
        return unit_value(each, outputs[each.layer].astype(np.float64), reference)

    return sum(each.weight * of(each) for each in units)


def by_channel(output: np.ndarray) -> np.ndarray:
    """Values `[C,H,W]`: of other numbers of axes the first is the channels, and the rest are positions in a row."""
    return output if output.ndim == 3 else output.reshape(output.shape[0] if output.ndim else 1, 1, -1)


def alike(maps: np.ndarray, reference: np.ndarray, power: float) -> np.ndarray:
    """`dot * max(cos, 0.1)^power` of two vectors over channels at every position; a zero vector has the cosine 0."""
    dot = (maps * reference).sum(axis=0)
    lengths = np.sqrt((maps**2).sum(axis=0) * (reference**2).sum(axis=0))
    cosine = np.divide(dot, lengths, out=np.zeros_like(dot), where=lengths > 0)
    return dot * np.maximum(cosine, 0.1) ** power


def unit_value(each: Unit, output: np.ndarray, reference: np.ndarray | None) -> float:
    if each.reduce == "energy":
        return float(np.mean(output**2))
    maps = by_channel(output)
    if reference is not None:
        there = by_channel(reference.astype(np.float64))
        if each.likeness == "inversion":
            return float(-((maps - there) ** 2).sum() / ((there**2).sum() or 1.0))
        return float(alike(maps, there, each.cosine_power).mean())
    if each.direction is not None:
        direction = np.array(each.direction)[:, None, None]
        chosen = alike(maps, np.broadcast_to(direction, maps.shape), each.cosine_power)
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
