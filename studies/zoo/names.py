"""Checks that the layers of exported networks are found by the names of PyTorch's modules.

    cargo build --release && cargo build --release --example onnx_values
    python studies/zoo/names.py

For every module of `named_modules()` whose output depends on the image and is not just its input, `models layers` must
list a layer with the module's path as its name or among its modules. With `--values`, that layer must also have the
values of the module. Writes `FOLDER/names.json` for the page of [`zoo.py`](zoo.py); what is in it is not repeated. Exits with
status 1 if a module is missing.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import check
import export
import onnx
from networks import Entry
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).resolve().parent.parent.parent
NETWORKS = [
    Entry("torchvision/resnet50", ""),
    Entry("torchvision/densenet121", ""),
    Entry("torchvision/mobilenet_v3_large", ""),
    Entry("torchvision/efficientnet_b0", ""),
    Entry("torchvision/convnext_tiny", ""),
    Entry("timm/vit_small_patch16_224", ""),
    Entry("torchvision/swin_t", ""),
    Entry("torchvision/regnet_y_400mf", ""),
    Entry("torchvision/vgg16", "", '{"init_weights": false}'),
    Entry("torchvision/googlenet", "", '{"init_weights": false}'),
]
# Largest difference from PyTorch, relative to the root mean square.
TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "target/zoo")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/proxygrad")
    parser.add_argument("--values", type=Path, metavar="PROGRAM", help="the example onnx_values: compares values too")
    parser.add_argument("--networks", default="*", help="names with wildcards, separated by commas")
    options = parser.parse_args()
    patterns = options.networks.split(",")
    options.folder.mkdir(parents=True, exist_ok=True)
    report = options.folder / "names.json"
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    for entry in NETWORKS:
        if entry.name in found or not any(fnmatch.fnmatch(entry.name, pattern) for pattern in patterns):
            continue
        found[entry.name] = names_of(entry, options)
        report.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(1 if any(each["problems"] for exporters in found.values() for each in exporters.values()) else 0)


def names_of(entry: Entry, options: argparse.Namespace) -> dict[str, Any]:
    """By exporter: the number of modules, those whose names are not in the file, and those that are not found."""
    model, image = export.prepared(entry)
    outputs = module_outputs(model, image)
    report = {}
    for exporter in export.EXPORTERS:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            folder = Path(temporary)
            export.export(entry, {exporter: folder})
            listed_layers = listed(options.program, folder / "net.onnx")
            names = {name: layer["name"] for layer in listed_layers for name in [layer["name"], *layer.get("modules", [])]}
            folded = folded_by_exporter(model, folder / "net.onnx", names)
            problems = {path: "not found" for path in outputs if path not in names and path not in folded}
            if options.values:
                problems |= different(options.values.resolve(), folder, names, model, outputs)
        report[exporter] = {"modules": len(outputs), "folded": len(folded), "problems": problems}
        print(f"{entry.name} {exporter}: {report[exporter]}", flush=True)
    return report


def folded_by_exporter(model: nn.Module, file: Path, names: dict[str, str]) -> set[str]:
    """The batch normalizations that the older exporter folds into convolutions: their names are not in the file."""
    graph = onnx.load(file, load_external_data=False).graph
    if any(node.metadata_props for node in graph.node):
        return set()
    weights = {weight.name for weight in graph.initializer}
    norms = {path for path, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return {path for path in norms if path not in names and f"{path}.weight" not in weights}


def module_outputs(model: nn.Module, image: Tensor) -> dict[str, list[Tensor]]:
    """Outputs of all calls of every module that computes something from the image, by its path."""
    outputs: dict[str, list[Tensor]] = {}
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def record(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, Tensor) or not first.requires_grad:
                return
            given = [each for each in inputs if isinstance(each, Tensor)]
            is_input = any(each.data_ptr() == first.data_ptr() and each.shape == first.shape for each in given)
            if not is_input:
                outputs.setdefault(path, []).append(first.detach().clone())

        return hook

    for path, module in model.named_modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        if path:
            module.register_forward_hook(record(path))
    model(image.clone().requires_grad_())
    return outputs


def listed(program: Path, file: Path) -> list[dict[str, Any]]:
    """The layers of a file as the command line lists them."""
    with tempfile.TemporaryDirectory() as data:
        models = [program.resolve(), "models", "--data-dir", data]
        subprocess.run([*models, "add", file, "--id", "net"], check=True, capture_output=True)
        found = subprocess.run([*models, "layers", "net", "--json"], check=True, capture_output=True)
    return json.loads(found.stdout)


def different(
    program: Path, folder: Path, names: dict[str, str], model: nn.Module, outputs: dict[str, list[Tensor]]
) -> dict[str, str]:
    """The modules whose layer has other values than they have in any of their calls. A convolution may have those of the
    batch normalization behind it."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "values.safetensors"
        command = [program, folder / "net.onnx", folder / "image.safetensors", path]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        values = load_file(path)
    tensors = {layer["name"]: tensor for tensor, layer in report["layers"].items()}
    modules, paths = dict(model.named_modules()), list(outputs)
    problems = {}
    for path, following in zip(paths, [*paths[1:], None]):
        tensor = tensors.get(names.get(path))
        if tensor is None:
            continue
        expected = list(outputs[path])
        if following is not None and isinstance(modules[following], _BatchNorm):
            expected += outputs[following]
        errors = [check.error(values[tensor], each.numpy()) for each in expected if values[tensor].size == each.numel()]
        if not errors:
            problems[path] = f"layer {names[path]} is {values[tensor].shape}, not {tuple(expected[0].shape)}"
        elif min(errors) > TOLERANCE:
            problems[path] = f"layer {names[path]} differs by {min(errors):.1e}"
    return problems


if __name__ == "__main__":
    main()
