"""Checks that verify.py finds every layer of networks that are awkward to find layers in.

    python tests/verify/selftest.py target/debug/proxygrad

makes small networks, lets the program maximize a unit of every layer that it lists, and recomputes the scores: of layers
that share a name, constants per row of a map, dead branches, weights and whole graphs in half precision, one number
per image, and of objectives that compare with an image.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SIDE = 12


class File:
    """An ONNX file with the image input `image` `[1,3,12,12]`."""

    def __init__(self, number: int = TensorProto.FLOAT) -> None:
        self.number = number
        self.random = np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: str, output: str, name: str = "", **attributes: object) -> None:
        self.nodes.append(helper.make_node(op, inputs.split(), [output], name=name, **attributes))

    def weight(self, name: str, *shape: int) -> None:
        values = self.random.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape).astype(np.float32)
        number = helper.tensor_dtype_to_np_dtype(self.number)
        self.weights.append(numpy_helper.from_array(values.astype(number), name))

    def save(self, path: Path, outputs: dict[str, list[int]]) -> None:
        image = helper.make_tensor_value_info("image", self.number, [1, 3, SIDE, SIDE])
        values = [helper.make_tensor_value_info(name, self.number, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "network", [image], values, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, path)


def shared_names(path: Path) -> None:
    """Two pairs of nodes of one name, a node of no name, and a dead branch whose node has the name of a living one."""
    file = File()
    file.weight("w1", 6, 3, 3, 3)
    file.weight("w2", 6, 6, 3, 3)
    file.weight("dead", 6, 3, 3, 3)
    file.node("Conv", "image dead", "unused", "conv", pads=[1, 1, 1, 1])
    file.node("Relu", "unused", "nobody", "relu")
    file.node("Conv", "image w1", "a", "conv", pads=[1, 1, 1, 1])
    file.node("Relu", "a", "b", "relu")
    file.node("Identity", "b", "c", "same")
    file.node("Conv", "c w2", "d", "conv", pads=[1, 1, 1, 1])
    file.node("Relu", "d", "e")
    file.node("GlobalAveragePool", "e", "f", "relu")
    file.node("Flatten", "f", "logits", "flat")
    file.save(path, {"logits": [1, 6]})


def row_constants(path: Path) -> None:
    """Constants `[H,1]` and `[W]` after a convolution are no biases; `[C,1,1]` and numbers are, also as nodes."""
    file = File()
    file.weight("w", 6, 3, 3, 3)
    file.weight("rows", SIDE, 1)
    file.weight("columns", SIDE)
    file.weight("bias", 6, 1, 1)
    file.node("Conv", "image w", "a", "conv", pads=[1, 1, 1, 1])
    file.node("Add", "a rows", "b", "rows")
    file.node("Conv", "b w2", "c", "conv1", pads=[1, 1, 1, 1])
    file.weight("w2", 6, 6, 3, 3)
    file.node("Constant", "", "two", "two", value=numpy_helper.from_array(np.float32(2)))
    file.node("Mul", "c two", "d", "twice")
    file.node("Add", "d bias", "e", "bias")
    file.node("Mul", "e columns", "f", "columns")
    file.node("Tanh", "f", "g", "tanh")
    file.node("GlobalAveragePool", "g", "h", "pool")
    file.node("Flatten", "h", "logits", "flat")
    file.save(path, {"logits": [1, 6]})


def half(path: Path, number: int) -> None:
    """Everything in half precision, with a way through f32."""
    file = File(number)
    file.weight("w1", 6, 3, 3, 3)
    file.weight("b1", 6)
    file.weight("w2", 8, 6, 3, 3)
    file.weight("w3", 4, 8)
    file.node("Conv", "image w1 b1", "a", "conv1", pads=[1, 1, 1, 1])
    file.node("Relu", "a", "b", "relu1")
    file.node("Cast", "b", "c", "cast1", to=TensorProto.FLOAT)
    file.node("Tanh", "c", "d", "tanh")
    file.node("Cast", "d", "e", "cast2", to=number)
    file.node("Conv", "e w2", "f", "conv2", strides=[2, 2])
    file.node("Relu", "f", "g", "relu2")
    file.node("GlobalAveragePool", "g", "h", "pool")
    file.node("Flatten", "h", "i", "flat")
    file.node("Gemm", "i w3", "logits", "fc", transB=1)
    file.save(path, {"logits": [1, 4]})


def one_number(path: Path) -> None:
    """An output `[N]`."""
    file = File()
    file.weight("w1", 6, 3, 3, 3)
    file.weight("w2", 1, 6)
    file.weights.append(numpy_helper.from_array(np.array([1]), "axes"))
    file.node("Conv", "image w1", "a", "conv")
    file.node("Relu", "a", "b", "relu")
    file.node("GlobalAveragePool", "b", "c", "pool")
    file.node("Flatten", "c", "d", "flat")
    file.node("Gemm", "d w2", "e", "fc", transB=1)
    file.node("Squeeze", "e axes", "logit", "squeeze")
    file.save(path, {"logit": [1]})


NETWORKS = {
    "shared-names": shared_names,
    "row-constants": row_constants,
    "half-f16": lambda path: half(path, TensorProto.FLOAT16),
    "half-bf16": lambda path: half(path, TensorProto.BFLOAT16),
    "one-number": one_number,
}


class Program:
    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder

    def run(self, command: str, *arguments: str | Path) -> str:
        words = [self.program, command, "--data-dir", self.folder / "data", *arguments]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout

    @contextmanager
    def served(self) -> Iterator[str]:
        """The address of a server."""
        words = [self.program, "serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir", self.folder / "data"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield next(word for word in server.stdout.readline().split() if word.startswith("http://"))
            finally:
                server.terminate()


def verify(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, HERE / "verify.py", *arguments], check=True)


def check_layers(program: Program, id: str) -> None:
    """A unit of every layer, without a server."""
    network, folder = program.folder / f"{id}.onnx", program.folder / id
    folder.mkdir()
    program.run("models", "add", network, "--id", id, "--mean", "0.4", "--std", "0.3")
    layers = json.loads(program.run("models", "layers", id, "--json"))
    units = [word for layer in layers for word in ("--unit", f"{layer['name']}:{layer['units'] - 1}@max")]
    result, model = folder / "result.json", folder / "model.json"
    output = ("--output", folder / "x.png")
    result.write_text(program.run("maximize", "--model", id, *units, "--steps", "8", *output, "--json"))
    model.write_text(program.run("models", "show", id, "--json"))
    verify("--result", result, "--model", model, "--onnx", network)


def check_likenesses(program: Program, id: str) -> None:
    """Objectives that compare with an image or a direction, on a server, which returns the image."""
    image = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNgOMDw3wEABUQCAA/1fi8AAAAASUVORK5CYII="
    objectives = [
        {"layer": "relu1", "caricature": {"image": image}},
        {"layer": "relu2", "caricature": {"image": image}, "cosine_power": 2.5},
        {"layer": "relu2", "inversion": {"image": image}},
        {"layer": "relu1", "direction": [1, -0.5, 0.25, 2, 0, 1], "cosine_power": 2, "reduce": "max"},
        {"sum": ["logits:1", {"layer": "logits", "caricature": {"image": image}, "weight": -0.5}]},
    ]
    request = {"model": id, "objectives": objectives, "steps": 8}
    headers = {"Content-Type": "application/json"}
    with program.served() as server:
        call = urllib.request.Request(f"{server}/v1/jobs", json.dumps(request).encode(), headers)
        with urllib.request.urlopen(call, timeout=60) as answer:
            job = json.load(answer)["id"]
        verify("--server", server, "--job", job, "--onnx", program.folder / f"{id}.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks verify.py on networks made for it.")
    parser.add_argument("program", type=Path, help="the program, such as target/debug/proxygrad")
    with tempfile.TemporaryDirectory() as folder:
        program = Program(parser.parse_args().program.resolve(), Path(folder))
        for id, make in NETWORKS.items():
            make(program.folder / f"{id}.onnx")
            check_layers(program, id)
        check_likenesses(program, "half-f16")


if __name__ == "__main__":
    main()
