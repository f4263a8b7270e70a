"""Compares the layers of an exported network, as the program computes them, with ONNX Runtime.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

# Layers that ONNX Runtime computes in one run: all values of a large network at once need much memory.
AT_ONCE = 64


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


def check(folder: Path, program: Path, engine: str) -> dict[str, Any]:
    """Runs `program`, the example `onnx_values`, on the exported file in `folder`. Returns the unsupported nodes and the
    largest errors."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "values.safetensors"
        command = [program, folder / "net.onnx", folder / "image.safetensors", path, engine]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            return {"error": " ".join(lines)[:600]}
        report = json.loads(done.stdout)
        values = load_file(path) if path.exists() else {}
    layers, outputs = report.pop("layers"), report["outputs"]
    gradient = values.pop("gradient", None)
    declared = [each.name for each in onnx.load(folder / "net.onnx", load_external_data=False).graph.output]
    report["missing_outputs"] = [name for name in declared if name not in outputs]
    report["layers"] = len(layers)
    errors, compared = {}, 0
    image = load_file(folder / "image.safetensors")["image"]
    for name, expected in tensors_of(folder / "net.onnx", image, sorted(layers.keys() | set(declared))):
        if name not in values:
            continue
        compared += 1
        found = values[name]
        if found.size != expected.size:
            errors[name] = float("inf")
            layers[name]["instead_of"] = list(expected.shape)
        else:
            errors[name] = error(found, expected)
    report["compared"] = compared
    inner = {name: each for name, each in errors.items() if name not in declared}
    report["output_error"] = max((errors[name] for name in declared if name in errors), default=None)
    report["inner_error"] = max(inner.values(), default=None)
    worst = sorted(errors, key=lambda name: -errors[name])[:5]
    report["worst"] = [{"tensor": name, "error": errors[name], **layers.get(name, {})} for name in worst]
    # The first layer in the file's order that is wrong: where an error comes from.
    order = [output for node in onnx.load(folder / "net.onnx", load_external_data=False).graph.node for output in node.output]
    first = next((name for name in order if errors.get(name, 0) > 1e-3), None)
    report["first_wrong"] = first and {"tensor": first, "error": errors[first], **layers.get(first, {})}
    reference = load_file(folder / "torch.safetensors")
    if gradient is not None and not report["missing_outputs"]:
        report["gradient_error"] = error(gradient, reference["gradient"])
        difference = np.linalg.norm(gradient.astype(np.float64) - reference["gradient"])
        report["gradient_distance"] = float(difference / max(np.linalg.norm(reference["gradient"]), 1e-30))
    return report

