"""Compares the layers of an exported network, as the program computes them, with ONNX Runtime."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

ENGINES = ("reference", "cpu")
# Layers that ONNX Runtime computes in one run: all values of a large network at once need much memory.
AT_ONCE = 64
# Largest errors of an output and of an inner layer, relative to the root mean square of the tensor.
OUTPUT, INNER = 1e-4, 1e-3


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the root mean square; infinite if a value is not a number in one of them only."""
    found, expected = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    if (np.isfinite(found) != np.isfinite(expected)).any():
        return float("inf")
    finite = np.isfinite(expected)
    if not finite.any():
        return 0.0
    scale = np.sqrt(np.mean(expected[finite] ** 2))
    return float(np.abs(found[finite] - expected[finite]).max() / max(scale, 1e-12))


def tensors_of(path: Path, image: np.ndarray, names: list[str]) -> Any:
    """The values of some tensors of a file, in parts, as the file's graph computes them."""
    model = onnx.load(path)
    produced = {output for node in model.graph.node for output in node.output}
    outputs = {each.name for each in model.graph.output}
    names = [name for name in names if name in produced]
    del model.graph.output[:]
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in [*names, *sorted(outputs - set(names))])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        copy = Path(folder) / "net.onnx"
        onnx.save(model, copy, save_as_external_data=True, location="net.data")
        del model
        session = onnxruntime.InferenceSession(copy, settings, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: image}
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            yield from zip(part, session.run(part, feed))


@dataclass(frozen=True)
class Programs:
    """The command line, and the example `onnx_values` that writes the values of layers."""

    command_line: Path
    values: Path


def check(folder: Path, programs: Programs, engines: Sequence[str]) -> dict[str, Any]:
    """Imports the exported file in `folder` by the command line, and computes its layers by every engine. Returns what the
    command line says, the unsupported nodes, and the largest errors of each engine."""
    file = folder / "net.onnx"
    graph = onnx.load(file, load_external_data=False).graph
    declared = [each.name for each in graph.output]
    report: dict[str, Any] = {"layers": layers(programs.command_line, file), "engines": {}}
    values: dict[str, dict[str, np.ndarray]] = {}
    for engine in engines:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary) / "values.safetensors"
            done = subprocess.run([programs.values, file, folder / "image.safetensors", path, engine], capture_output=True, text=True)
            if done.returncode != 0:
                return report | {"error": f"{engine}: {said(done)}"}
            described = json.loads(done.stdout)
            values[engine] = load_file(path) if path.exists() else {}
    tensors = described.pop("layers")
    report |= described
    report["missing_outputs"] = [name for name in declared if name not in described["outputs"]]
    gradients = {engine: found.pop("gradient", None) for engine, found in values.items()}
    errors: dict[str, dict[str, float]] = {engine: {} for engine in engines}
    image = load_file(folder / "image.safetensors")["image"]
    for name, expected in tensors_of(file, image, sorted(tensors.keys() | set(declared))):
        for engine, found in values.items():
            if name in found:
                same_size = found[name].size == expected.size
                errors[engine][name] = error(found[name], expected) if same_size else float("inf")
    order = [output for node in graph.node for output in node.output]
    reference = load_file(folder / "torch.safetensors")["gradient"].astype(np.float64)
    for engine, each in errors.items():
        # The first layer in the file's order that is wrong: where an error comes from.
        first = next((name for name in order if each.get(name, 0) > INNER), None)
        report["engines"][engine] = {
            "compared": len(each),
            "output_error": max((each[name] for name in declared if name in each), default=None),
            "inner_error": max((value for name, value in each.items() if name not in declared), default=None),
            "first_wrong": first and {"tensor": first, "error": each[first], **tensors.get(first, {})},
        }
        if gradients[engine] is not None and not report["missing_outputs"]:
            distance = np.linalg.norm(gradients[engine] - reference) / max(np.linalg.norm(reference), 1e-30)
            report["engines"][engine]["gradient_distance"] = float(distance)
    return report


def layers(program: Path, file: Path) -> int | str:
    """The number of layers that the command line lists after adding a file without any options, or what it says."""
    with tempfile.TemporaryDirectory(dir=file.parent) as data:
        models = [program, "models", "--data-dir", data]
        for command in ([*models, "add", file, "--id", "net"], [*models, "layers", "net", "--json"]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                return said(done)
    return len(json.loads(done.stdout))


def said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.split("Stack backtrace:")[0].splitlines() if line.strip()]
    return " ".join(lines or [f"exit {done.returncode}"])[:600]
