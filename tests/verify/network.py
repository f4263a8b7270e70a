"""A network in an ONNX file: any of its layers on an image, by ONNX Runtime."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

# Operations whose output takes in a factor and a summand per channel that follow; and those that are such.
WEIGHTED = {"Conv", "Gemm", "MatMul"}
PER_CHANNEL = {"BatchNormalization", "Add", "Sub", "Mul", "Div"}


class Network:
    """An ONNX file."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.model = onnx.load_from_string(data)
        self.graph = self.model.graph
        properties = {each.key: each.value for each in self.model.metadata_props}
        # A model's digest is that of its weight file: this file, or the one that build_onnx.py made it from.
        self.digests = {hashlib.sha256(data).hexdigest(), properties.get("weights_sha256", "")}
        self.initializers = {each.name: each for each in self.graph.initializer}
        self.input = next(each for each in self.graph.input if each.name not in self.initializers)
        self.outputs = {each.name for each in self.graph.output}
        self.producers = {output: node for node in self.graph.node for output in node.output}
        self.reads = Counter(name for node in self.graph.node for name in node.input)
        self.varying = self.behind_the_image()
        self.tensors = self.layers()

    def behind_the_image(self) -> set[str]:
        """The tensors that depend on the image; ONNX lists nodes behind what they read."""
        varying = {self.input.name}
        for node in self.graph.node:
            if varying.intersection(node.input):
                varying.update(node.output)
        return varying

    def layers(self) -> dict[str, str]:
        """For each layer the tensor that holds its output.

        A layer has the name of its node, or of the node's first output when the node has none; the network's outputs
        keep their own names.
        """
        tensors = {layer_name(output): output for output in self.outputs}
        for node in self.graph.node:
            if node.output[0] in self.varying:
                tensors.setdefault(layer_name(node.name or node.output[0]), self.folded(node.output[0]))
        return tensors

    def folded(self, tensor: str) -> str:
        """The tensor behind the factors and summands per channel that become a part of the layer which makes `tensor`.

        A batch normalization behind a convolution, or the `Add` of a bias behind a `MatMul`, is no layer of its own.
        """
        while self.takes_in(self.producers[tensor]) and tensor not in self.outputs and self.reads[tensor] == 1:
            reader = next(node for node in self.graph.node if tensor in node.input)
            if not self.is_per_channel(reader):
                break
            tensor = reader.output[0]
        return tensor

    def takes_in(self, node: onnx.NodeProto) -> bool:
        return node.op_type in WEIGHTED or self.is_per_channel(node)

    def is_per_channel(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in PER_CHANNEL:
            return False
        constants = [name for name in node.input if name not in self.varying]
        if node.op_type == "BatchNormalization":
            return True
        shapes = [self.initializers[name].dims for name in constants if name in self.initializers]
        return bool(constants) and all(sum(length != 1 for length in shape) <= 1 for shape in shapes)

    def run(self, layers: set[str], image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of layers, without the batch axis, on an image `[C,H,W]` that is already preprocessed."""
        unknown = sorted(layers - self.tensors.keys())
        if unknown:
            raise SystemExit(f"the ONNX file has no layer {', '.join(unknown)}")
        wanted = sorted({self.tensors[layer] for layer in layers})
        model = self.with_outputs(wanted, image.shape)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        kind = self.input.type.tensor_type
        batch = np.repeat(image[None], kind.shape.dim[0].dim_value or 1, axis=0)
        number = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        found = dict(zip(wanted, session.run(wanted, {self.input.name: batch.astype(number)}), strict=True))
        return {layer: found[self.tensors[layer]][0] for layer in layers}

    def with_outputs(self, tensors: list[str], shape: tuple[int, ...]) -> onnx.ModelProto:
        """The model with these tensors as outputs, for images of this shape `[C,H,W]`."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.value_info[:]
        image = next(each for each in graph.input if each.name == self.input.name)
        for axis, length in zip(image.type.tensor_type.shape.dim[1:], shape, strict=True):
            axis.dim_value = length
        del graph.output[:]
        graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
        return model


def layer_name(name: str) -> str:
    """A name of the file as units write it."""
    return name.lstrip("/").replace(":", "_").replace("@", "_")
