"""Times the import of large ONNX files: 10,000 small nodes in several forms, and 100 MB of weights.

    pip install onnx numpy
    python benches/import_speed.py target/release/proxygrad [--nodes 10000] [--runs 5] [--only chain vit]

Prints medians of the wall time and of the processor time of `models add FILE` and of `models layers ID`, which imports
the copy again.
"""

import argparse
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


class File:
    """A graph under construction; its tensors are referred to by name."""

    def __init__(self):
        self.random = np.random.default_rng(0)
        self.nodes, self.constants = [], []

    def op(self, kind, *inputs, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weights(self, *shape, scale=0.1):
        return self.constant(self.random.standard_normal(shape, np.float32) * np.float32(scale))

    def layer_norm(self, x, width):
        """A layer normalization, step by step."""
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centred, self.constant(np.float32(2))), axes=[-1])
        deviation = self.op("Sqrt", self.op("Add", variance, self.constant(np.float32(1e-5))))
        scaled = self.op("Mul", self.op("Div", centred, deviation), self.weights(width))
        return self.op("Add", scaled, self.weights(width))

    def dense(self, x, inputs, outputs):
        return self.op("Add", self.op("MatMul", x, self.weights(inputs, outputs)), self.weights(outputs))

    def block(self, x, tokens, width, heads):
        """A block of a vision transformer, as exporters write it out."""
        split = self.constant(np.array([1, tokens, heads, width // heads], np.int64))
        joined = self.constant(np.array([1, tokens, width], np.int64))
        y = self.layer_norm(x, width)
        query, key, value = (
            self.op("Transpose", self.op("Reshape", self.dense(y, width, width), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.op("Mul", self.op("MatMul", query, key), self.constant(np.float32(0.25)))
        attended = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        y = self.op("Reshape", self.op("Transpose", attended, perm=[0, 2, 1, 3]), joined)
        x = self.op("Add", x, self.dense(y, width, width))
        y = self.dense(self.layer_norm(x, width), width, 4 * width)
        erf = self.op("Erf", self.op("Div", y, self.constant(np.float32(2**0.5))))
        y = self.op("Mul", y, self.op("Add", erf, self.constant(np.float32(1))))
        y = self.op("Mul", y, self.constant(np.float32(0.5)))
        return self.op("Add", x, self.dense(y, 4 * width, width))

    def patches(self, width):
        """Four tokens."""
        x = self.op("Conv", "image", self.weights(width, 3, 8, 8), strides=[8, 8])
        x = self.op("Reshape", x, self.constant(np.array([1, width, 4], np.int64)))
        return self.op("Transpose", x, perm=[0, 2, 1])

    def save(self, path, output, external):
        image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 16, 16])
        result = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "graph", [image], [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = {"save_as_external_data": True, "location": f"{path.name}.data"} if external else {}
        onnx.save(model, path, **options)


def chain(f, nodes):
    """Convolutions and rectifiers, one after the other."""
    x, channels = "image", 3
    while len(f.nodes) < nodes:
        x = f.op("Relu", f.op("Conv", x, f.weights(8, channels, 3, 3), pads=[1, 1, 1, 1]))
        channels = 8
    return x


def residual(f, nodes):
    """Convolutions with written-out SiLUs and shortcuts."""
    x = f.op("Conv", "image", f.weights(8, 3, 3, 3), pads=[1, 1, 1, 1])
    while len(f.nodes) < nodes:
        y = f.op("Conv", x, f.weights(8, 8, 3, 3), pads=[1, 1, 1, 1])
        x = f.op("Add", x, f.op("Mul", y, f.op("Sigmoid", y)))
    return x


def fan(f, nodes):
    """One concatenation of all branches."""
    branches = [f.op("Relu", f.op("Conv", "image", f.weights(2, 3, 1, 1))) for _ in range(nodes // 2)]
    return f.op("Concat", *branches, axis=1)


def growing(f, nodes):
    """Dense blocks of 100 convolutions, each of which reads all before it."""
    x, channels = f.op("Conv", "image", f.weights(4, 3, 1, 1)), 4
    while len(f.nodes) < nodes:
        if channels > 400:
            x, channels = f.op("Conv", x, f.weights(4, channels, 1, 1)), 4
        x = f.op("Concat", x, f.op("Conv", f.op("Relu", x), f.weights(4, channels, 1, 1)), axis=1)
        channels += 4
    return x


def constants(f, nodes):
    """Nodes whose inputs are constant."""
    x = "image"
    while len(f.nodes) < nodes:
        factor = f.op("Constant", value=numpy_helper.from_array(np.float32(1.01)))
        x = f.op("Relu", f.op("Add", x, f.op("Mul", factor, f.weights(3, 1, 1))))
    return x


def transposes(f, nodes):
    """Pairs of transpositions that cancel."""
    x = "image"
    while len(f.nodes) < nodes:
        x = f.op("Transpose", f.op("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
        x = f.op("Sigmoid", x)
    return x


def shapes(f, nodes):
    """Reshapes to shapes that the file computes."""
    x, zero, axis = "image", f.constant(np.int64(0)), f.constant(np.array([0], np.int64))
    rest = f.constant(np.array([3, 16, 16], np.int64))
    while len(f.nodes) < nodes:
        batch = f.op("Unsqueeze", f.op("Gather", f.op("Shape", x), zero), axis)
        x = f.op("Tanh", f.op("Reshape", x, f.op("Concat", batch, rest, axis=0)))
    return x


def tokens(f, nodes):
    """Blocks of a small transformer."""
    x = f.patches(16)
    while len(f.nodes) < nodes:
        x = f.block(x, 4, 16, 2)
    return x


def wide(f, _):
    """100 MB in five convolutions with batch normalizations."""
    x, channels = "image", 3
    for width in [256, 512, 1024, 1024, 1024]:
        x = f.op("Conv", x, f.weights(width, channels, 3, 3, scale=0.02), pads=[1, 1, 1, 1])
        variance = f.constant(f.random.uniform(0.5, 2, width).astype(np.float32))
        x = f.op("Relu", f.op("BatchNormalization", x, f.weights(width), f.weights(width), f.weights(width), variance))
        channels = width
    return x


def vit(f, _):
    """100 MB in eight blocks of a transformer."""
    x = f.patches(512)
    for _ in range(8):
        x = f.block(x, 4, 512, 8)
    return x


KINDS = [chain, residual, fan, growing, constants, transposes, shapes, tokens, wide, vit]


def seconds(command):
    """Wall time and processor time."""
    def processor():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    start, before = time.perf_counter(), processor()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, processor() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[kind.__name__ for kind in KINDS])
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    print(f"{'file':<16} {'nodes':>6} {'MB':>6} {'add, s':>8} {'processor':>10} {'layers, s':>10} {'processor':>10}")
    for kind in KINDS:
        if arguments.only and kind.__name__ not in arguments.only:
            continue
        for external in [False, True] if kind in (wide, vit) else [False]:
            with tempfile.TemporaryDirectory() as folder:
                path, times = Path(folder) / f"{kind.__name__}.onnx", []
                file = File()
                file.save(path, kind(file, arguments.nodes), external)
                size = sum(part.stat().st_size for part in path.parent.iterdir()) / 1e6
                for run in range(arguments.runs):
                    data = ["--data-dir", f"{folder}/data-{run}"]
                    added = seconds([program, "models", *data, "add", path, "--id", "net"])
                    times.append(added + seconds([program, "models", *data, "layers", "net"]))
                medians = [statistics.median(column) for column in zip(*times)]
            name = kind.__name__ + (", external" if external else "")
            figures = " ".join(f"{value:>{width}.2f}" for value, width in zip(medians, [8, 10, 10, 10]))
            print(f"{name:<16} {len(file.nodes):>6} {size:>6.1f} {figures}", flush=True)


if __name__ == "__main__":
    main()
