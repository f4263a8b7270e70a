"""A network in an ONNX file: the output of any of its layers on an image, computed by ONNX Runtime."""

import ast
import hashlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from precision import in_single_precision

# Operations that a following factor or summand per channel is folded into, and operations that are such factors or summands.
WEIGHTED = {"Conv", "Gemm", "MatMul"}
PER_CHANNEL = {"BatchNormalization", "Add", "Sub", "Mul", "Div"}
# Operations that return their input; they are not layers.
NOTHING = {"Identity", "Dropout", "Cast"}
# Where PyTorch's exporter keeps the paths of the modules around a node, and the node's own name: a list in Python's writing.
NAME_SCOPES = "pkg.torch.onnx.name_scopes"
# Number of axes of an operation's output, including the batch, if the file does not say.
AXES = {"Conv": 4, "Gemm": 2}


def digest_of_files(path: Path) -> str:
    """Of the file alone or, with external data, of the digests of all its files as `sha256sum` prints them."""
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    graph = onnx.load(path, load_external_data=False).graph
    tensors = [*graph.initializer, *(each.t for node in graph.node for each in node.attribute if each.HasField("t"))]
    places = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    if not places:
        return own
    lines = [f"{own}  -"]
    lines += [f"{hashlib.sha256((path.parent / place).read_bytes()).hexdigest()}  {place}" for place in sorted(places)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


class Network:
    """An ONNX file, computed in single precision like the program does, regardless of the precision of the file."""

    def __init__(self, path: Path) -> None:
        # With external data.
        self.model = in_single_precision(onnx.load(path))
        self.graph = self.model.graph
        properties = {each.key: each.value for each in self.model.metadata_props}
        # A model's digest is that of its files: these, or the weights that build_onnx.py converted.
        self.digests = {digest_of_files(path), properties.get("weights_sha256", "")}
        self.initializers = {each.name: each for each in self.graph.initializer}
        self.input = next(each for each in self.graph.input if each.name not in self.initializers)
        self.outputs = {each.name for each in self.graph.output}
        self.producers = {output: node for node in self.graph.node for output in node.output}
        self.varying = self.depending_on_the_image()
        self.live = self.needed()
        self.shapes = self.inferred_shapes()
        self.readers = self.readers_by_source()
        self.listed = self.layers()
        self.modules = self.outputs_of_modules()

    def depending_on_the_image(self) -> set[str]:
        """The tensors that depend on the image; ONNX lists nodes after what they read."""
        varying = {self.input.name}
        for node in self.graph.node:
            if varying.intersection(node.input):
                varying.update(node.output)
        return varying

    def needed(self) -> list[onnx.NodeProto]:
        """The nodes that some output of the network depends on, in the file's order; the others are no layers."""
        wanted = set(self.outputs)
        live = []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                live.append(node)
        return live[::-1]

    def inferred_shapes(self) -> dict[str, list[int]]:
        """Lengths of the axes of tensors as far as they can be inferred, 0 for an unknown length."""
        shapes = {name: list(each.dims) for name, each in self.initializers.items()}
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        for each in [*inferred.value_info, *inferred.input, *inferred.output]:
            if each.type.tensor_type.HasField("shape"):
                shapes[each.name] = [axis.dim_value for axis in each.type.tensor_type.shape.dim]
        return shapes

    def source(self, tensor: str) -> str:
        """The tensor that this one repeats."""
        while (node := self.producers.get(tensor)) is not None and node.op_type in NOTHING and tensor == node.output[0]:
            tensor = node.input[0]
        return tensor

    def readers_by_source(self) -> dict[str, list[onnx.NodeProto | None]]:
        """For every tensor the nodes that read it, or a repetition of it; being an output counts, as `None`."""
        readers: dict[str, list[onnx.NodeProto | None]] = defaultdict(list)
        for node in self.live:
            if node.op_type not in NOTHING:
                for name in node.input:
                    readers[self.source(name)].append(node)
        for name in self.outputs:
            readers[self.source(name)].append(None)
        return readers

    def layers(self) -> dict[str, list[str]]:
        """For each name the tensors of the layers that want it.

        A layer has the name of its node, or of the node's first output when the node has none; the network's outputs
        keep their own names.
        """
        tensors: dict[str, list[str]] = defaultdict(list)
        for output in self.outputs:
            tensors[layer_name(output)].append(output)
        for node in self.live:
            if node.op_type not in NOTHING and node.output[0] in self.varying:
                name = layer_name(node.name or node.output[0])
                tensors[name] += [self.folded(output) for output in node.output if output in self.readers]
        return tensors

    def outputs_of_modules(self) -> dict[str, str]:
        """What the last node of each module makes, by the module's path, where PyTorch's exporter recorded it; of a module
        with a weight, the node that reads it."""
        outputs = {}
        weighted = {}
        for node in self.live:
            recorded = {each.key: each.value for each in node.metadata_props}.get(NAME_SCOPES)
            if recorded is not None and node.op_type not in NOTHING and node.output[0] in self.varying:
                outputs |= dict.fromkeys(filter(None, ast.literal_eval(recorded)[:-1]), node.output[0])
                paths = [name.removesuffix(".weight") for name in node.input if name.endswith(".weight")]
                weighted |= dict.fromkeys(paths, node.output[0])
        return outputs | weighted

    def tensor(self, layer: str) -> str | None:
        """The tensor that holds a layer's output.

        If several layers would have the same name, all but the first have a number after it: `conv`, `conv_2`. A number
        that no layer has counts the steps in which the program computes one node; the last is the node's output.
        """
        if layer in self.listed:
            return self.listed[layer][0]
        if layer in self.modules:
            return self.folded(self.modules[layer])
        match = re.fullmatch(r"(.+)_(\d+)", layer)
        if match is None or match[1] not in self.listed:
            return None
        wanting = self.listed[match[1]]
        return wanting[min(int(match[2]), len(wanting)) - 1]

    def folded(self, tensor: str) -> str:
        """The tensor after the factors and summands per channel that are folded into the layer that computes `tensor`.

        A batch normalization after a convolution, or the `Add` of a bias after a `MatMul`, is not a layer.
        """
        while self.takes_in(tensor):
            readers = self.readers[tensor]
            if len(readers) != 1 or readers[0] is None or not self.is_per_channel(readers[0]):
                break
            tensor = readers[0].output[0]
        return tensor

    def takes_in(self, tensor: str) -> bool:
        node = self.producers.get(tensor)
        return node is not None and (node.op_type in WEIGHTED or self.is_per_channel(node))

    def is_per_channel(self, node: onnx.NodeProto) -> bool:
        """Whether a node has one factor or summand per channel, or the same one for all of them."""
        if node.op_type == "BatchNormalization":
            return True
        constants = [name for name in node.input if name not in self.varying]
        if node.op_type not in PER_CHANNEL or len(constants) != 1 or len(node.input) != 2:
            return False
        # A constant dividend is not a factor.
        if node.op_type == "Div" and node.input[0] in constants:
            return False
        shape = self.shapes.get(constants[0])
        axes = self.axes(node)
        if shape is None or axes is None:
            return False
        if len(shape) == axes and shape[0] == 1:
            shape = shape[1:]
        inner = shape[1:] if len(shape) == axes - 1 else shape
        return len(shape) < axes and all(length == 1 for length in inner)

    def axes(self, node: onnx.NodeProto) -> int | None:
        """Number of axes of a node's output, including the batch."""
        if node.output[0] in self.shapes:
            return len(self.shapes[node.output[0]])
        before = next((name for name in node.input if name in self.varying), None)
        producer = self.producers.get(self.source(before)) if before is not None else None
        if node.op_type in AXES or producer is None:
            return AXES.get(node.op_type)
        return self.axes(producer) if node.op_type in PER_CHANNEL | WEIGHTED else None

    def run(self, layers: set[str], image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of layers, without the batch axis, on an image `[C,H,W]` that is already preprocessed."""
        tensors = {layer: self.tensor(layer) for layer in layers}
        unknown = sorted(layer for layer, tensor in tensors.items() if tensor is None)
        if unknown:
            raise SystemExit(f"the ONNX file has no layer {', '.join(unknown)}")
        wanted = sorted({tensor for tensor in tensors.values() if tensor is not None})
        kind = self.input.type.tensor_type
        lengths = [axis.dim_value for axis in kind.shape.dim]
        if lengths[-1] == len(image) != lengths[1]:
            image = image.transpose(1, 2, 0)
        model = self.with_outputs(wanted, image.shape)
        options = onnxruntime.SessionOptions()
        # As the file says it, node by node.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        batch = np.repeat(image[None], lengths[0] or 1, axis=0)
        number = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        found = dict(zip(wanted, session.run(wanted, {self.input.name: batch.astype(number)}), strict=True))
        return {layer: found[tensor][0] for layer, tensor in tensors.items() if tensor is not None}

    def with_outputs(self, tensors: list[str], shape: tuple[int, ...]) -> onnx.ModelProto:
        """The model with these tensors as outputs, for images of this shape."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.value_info[:]
        # ONNX Runtime refuses nodes that share a name.
        for node in graph.node:
            node.name = ""
        image = next(each for each in graph.input if each.name == self.input.name)
        for axis, length in zip(image.type.tensor_type.shape.dim[1:], shape, strict=True):
            axis.dim_value = length
        del graph.output[:]
        graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
        return model


def layer_name(name: str) -> str:
    """A name of the file as units write it."""
    return name.lstrip("/").replace(":", "_").replace("@", "_")
