"""Files of half precision, read as the program reads them: all numbers in f32."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
# Attributes that name a type of numbers: of Cast, and of operations that make tensors.
TYPES = {"to", "dtype", "output_dtype", "stash_type"}


def in_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with f32 in place of f16 and bf16 everywhere: weights, constants, casts, inputs and outputs.

    The values of the weights stay as they are stored, and nothing is rounded on the way.
    """
    single = onnx.ModelProto()
    single.CopyFrom(model)
    convert_graph(single.graph)
    for function in single.functions:
        for node in function.node:
            convert_node(node)
    return single


def convert_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        convert_tensor(tensor)
    for sparse in graph.sparse_initializer:
        convert_tensor(sparse.values)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type in HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        convert_node(node)


def convert_node(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in TYPES and attribute.type == onnx.AttributeProto.INT and attribute.i in HALF:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            convert_tensor(attribute.t)
        for tensor in attribute.tensors:
            convert_tensor(tensor)
        if attribute.HasField("g"):
            convert_graph(attribute.g)
        for graph in attribute.graphs:
            convert_graph(graph)


def convert_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
