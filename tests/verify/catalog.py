"""An independent opinion on the pulled models of the catalog.

    proxygrad --data-dir DATA models pull efficientnet-lite0 squeezenet1.1
    python3 tests/verify/catalog.py DATA OUT            # needs numpy, onnx, onnxruntime
    PROXYGRAD_VERIFY_DATA=DATA PROXYGRAD_VERIFY_LOGITS=OUT cargo test --package proxygrad --test suite -- --ignored pulled_models

Builds each network once more from its weight file, with ONNX's own SAME padding and unfolded batch normalization, runs
it with ONNX Runtime on a random input, and writes input and logits to OUT as raw little-endian f32. With
`--onnx ID=FILE` it runs that file instead.
"""

import argparse
import collections
import pickle
import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260, "squeezenet1.1": 227}
DEPTHS = {"efficientnet-lite0": [1, 2, 2, 3, 3, 4, 1]} | dict.fromkeys(
    ["efficientnet-lite1", "efficientnet-lite2"], [1, 3, 3, 4, 4, 5, 1]
)


class Restricted(pickle.Unpickler):
    """Builds arrays, calls nothing else."""

    def find_class(self, module, name):
        plain = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *view: view[:4],
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        return plain[module, name] if (module, name) in plain else name

    def persistent_load(self, storage):
        return storage


def read_torch(path):
    with open(path, "rb") as file:
        state, keys = [Restricted(file).load() for _ in range(5)][3:]
        kinds = {view[0][2]: view[0][1] for view in state.values()}
        storages = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            dtype = {"FloatStorage": "<f4", "LongStorage": "<i8"}[kinds[key]]
            storages[key] = np.frombuffer(file.read(count * np.dtype(dtype).itemsize), dtype)
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[storage[2]][offset:], shape, [s * storages[storage[2]].itemsize for s in strides]
        )
        for name, (storage, offset, shape, strides) in state.items()
    }


class Graph:
    def __init__(self):
        self.nodes, self.weights = [], []

    def add(self, op, inputs, **attributes):
        output = "logits" if op in ("Gemm", "Flatten!") else f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op.rstrip("!"), inputs, [output], **attributes))
        return output

    def weight(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def model(self, side):
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self.nodes, "network", [value("input", [1, 3, side, side])], [value("logits", [1, None])], self.weights
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def efficientnet_lite(state, id):
    graph = Graph()
    low, high = graph.weight(np.float32(0)), graph.weight(np.float32(6))

    def conv(x, name, norm, stride=1, groups=1, act=True):
        weight = state[f"{name}.weight"]
        x = graph.add("Conv", [x, graph.weight(weight)], strides=[stride] * 2, group=groups, auto_pad="SAME_UPPER")
        parts = ["weight", "bias", "running_mean", "running_var"]
        x = graph.add("BatchNormalization", [x, *(graph.weight(state[f"{norm}.{p}"]) for p in parts)], epsilon=1e-3)
        return graph.add("Clip", [x, low, high]) if act else x

    x = conv("input", "_conv_stem", "_bn0", 2)
    number = 0
    for blocks, stride in zip(DEPTHS[id], [1, 2, 2, 2, 1, 2, 1]):
        for repeat in range(blocks):
            block, start = f"_blocks.{number}", x
            if f"{block}._expand_conv.weight" in state:
                x = conv(x, f"{block}._expand_conv", f"{block}._bn0")
            groups = state[f"{block}._depthwise_conv.weight"].shape[0]
            step = stride if repeat == 0 else 1
            x = conv(x, f"{block}._depthwise_conv", f"{block}._bn1", step, groups)
            x = conv(x, f"{block}._project_conv", f"{block}._bn2", act=False)
            if repeat > 0:
                x = graph.add("Add", [x, start])
            number += 1
    x = conv(x, "_conv_head", "_bn1")
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    graph.add("Gemm", [x, graph.weight(state["_fc.weight"]), graph.weight(state["_fc.bias"])], transB=1)
    return graph


def squeezenet(state):
    graph = Graph()

    def conv(x, name, stride=1, act=True):
        weight, bias = state[name]
        pad = [1] * 4 if "3x3" in name else [0] * 4
        weight = graph.weight(weight.transpose(3, 2, 0, 1))
        x = graph.add("Conv", [x, weight, graph.weight(bias)], strides=[stride] * 2, pads=pad)
        return graph.add("Relu", [x]) if act else x

    x = conv("input", "conv1", 2)
    for number in range(2, 10):
        if number in (2, 4, 6):
            x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2])
        x = conv(x, f"fire{number}/squeeze1x1")
        x = graph.add("Concat", [conv(x, f"fire{number}/expand{k}") for k in ("1x1", "3x3")], axis=1)
    graph.add("Flatten!", [graph.add("GlobalAveragePool", [conv(x, "conv10", act=False)])])
    return graph


parser = argparse.ArgumentParser()
parser.add_argument("data", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--onnx", action="append", default=[], metavar="ID=FILE")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
given = dict(pair.split("=", 1) for pair in options.onnx)
for folder in sorted((options.data / "models").iterdir()):
    id = folder.name
    if id not in SIDES:
        continue
    if id in given:
        model = onnx.load(given[id])
    elif id == "squeezenet1.1":
        with open(folder / "weights.pkl", "rb") as file:
            model = squeezenet(Restricted(file).load()).model(SIDES[id])
    else:
        model = efficientnet_lite(read_torch(folder / "weights.pth"), id).model(SIDES[id])
    scale = 60 if id == "squeezenet1.1" else 1
    image = np.random.default_rng(7).normal(0, scale, (1, 3, SIDES[id], SIDES[id])).astype("<f4")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": image})
    image.tofile(options.out / f"{id}.input")
    logits.astype("<f4").tofile(options.out / f"{id}.logits")
    print(f"{id}: {logits.size} logits from {logits.min():.3f} to {logits.max():.3f}")
