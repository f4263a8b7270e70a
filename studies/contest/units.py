"""Units that are compared, and where they stand in an ONNX file."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from network import PER_CHANNEL, Network
from objective import unit_value
from objective import unit as parsed

# Reductions that every tool of the contest has an objective for.
REDUCTIONS = ("mean", "center")
# The layer list's names of operations as ONNX writes them.
OPERATIONS = {
    "conv": {"Conv"},
    "depthwise-conv": {"Conv"},
    "dense": {"Gemm", "MatMul"},
    "relu": {"Relu"},
    "relu6": {"Clip"},
    "max-pool": {"MaxPool"},
    "mean": {"GlobalAveragePool", "ReduceMean"},
    "reshape": {"Flatten", "Reshape", "Squeeze"},
    "concat": {"Concat"},
    "add": {"Add"},
}


@dataclass(frozen=True)
class Unit:
    model: str
    layer: str
    channel: int
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if self.reduce not in REDUCTIONS:
            raise SystemExit(f"{self.model} {self.layer}:{self.channel}: reduce is one of {', '.join(REDUCTIONS)}")

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}" + ("" if self.reduce == "mean" else f"@{self.reduce}")

    def value(self, output: np.ndarray) -> float:
        """The unit on its layer's output `[C,H,W]` or `[K]`."""
        return unit_value(parsed(str(self)), output.astype(np.float64))


def read(path: Path) -> list[Unit]:
    return [Unit(**each) for each in json.loads(path.read_text())]


def write(units: Iterable[Unit], path: Path) -> None:
    path.write_text(json.dumps([vars(unit) for unit in units], indent=1) + "\n")


def draw(model: str, layers: list[dict[str, Any]], names: list[str], count: int, reduce: str, seed: int) -> list[Unit]:
    """`count` different units of each of the layers; vectors have no centre and are read as they are."""
    known = {layer["name"]: layer for layer in layers}
    units = []
    for name in names:
        if name not in known:
            raise SystemExit(f"{model} has no layer {name}; it has {', '.join(known)}")
        layer = known[name]
        # A stream for each layer: what is drawn from one does not depend on the others.
        stream = np.random.default_rng([seed, *f"{model} {name}".encode()])
        chosen = sorted(stream.choice(layer["units"], min(count, layer["units"]), replace=False).tolist())
        how = reduce if len(layer["shape"]) == 3 else "mean"
        units += [Unit(model, name, channel, how) for channel in chosen]
    return units


def tensors(network: Network, layers: list[dict[str, Any]], image: np.ndarray) -> dict[str, str]:
    """For each of the program's layers the tensor of the ONNX file with its output.

    Same names are taken at their word. Otherwise both lists are walked in the order of the graph, and a layer is the
    next node that does the same operation and has an output of the same shape on `image` `[C,H,W]`. A layer without
    such a node is left out.
    """
    if all(layer["name"] in network.tensors for layer in layers):
        return {layer["name"]: network.tensors[layer["name"]] for layer in layers}
    nodes = candidates(network, image)
    found = {}
    for layer in layers:
        if layer["name"] in network.outputs:
            found[layer["name"]] = layer["name"]
            continue
        operations = OPERATIONS.get(layer["op"], set())
        shape = tuple(layer["shape"])
        here = next((i for i, (op, size, _) in enumerate(nodes) if op in operations and size == shape), None)
        if here is not None:
            found[layer["name"]] = nodes[here][2]
            nodes = nodes[here + 1 :]
    return found


def candidates(network: Network, image: np.ndarray) -> list[tuple[str, tuple[int, ...], str]]:
    """Operation, output shape and output of the nodes after the image, without those folded into another node."""
    nodes: dict[str, str] = {}
    for node in network.graph.node:
        if node.output[0] in network.varying:
            tensor = network.folded(node.output[0])
            if tensor == node.output[0] or node.op_type not in PER_CHANNEL:
                nodes.setdefault(tensor, node.op_type)
    outputs = evaluated(network, list(nodes), image)
    return [(op, outputs[tensor].shape, tensor) for tensor, op in nodes.items()]


def evaluated(network: Network, names: list[str], image: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors by their own names, without the batch axis."""
    model = network.with_outputs(names, image.shape)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, {network.input.name: image[None].astype(np.float32)})
    return {name: output[0] for name, output in zip(names, found, strict=True)}
