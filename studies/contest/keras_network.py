"""An ONNX file as a Keras model, which Xplique needs; for the operations of the catalog's networks."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import helper, numpy_helper

from contest.same import expected_output, must_be_same


class KerasNetwork:
    """From RGB images `[N,H,W,3]` with values from `low` to `high`.

    A node's layer is `n0`, `n1`, … in the order of the file.
    """

    def __init__(
        self, path: Path, preprocessing: dict[str, Any], size: tuple[int, int], low: float, high: float
    ) -> None:
        self.graph = onnx.load(path).graph
        self.constants = {each.name: numpy_helper.to_array(each) for each in self.graph.initializer}
        self.numbers = preprocessing
        source = next(each.name for each in self.graph.input if each.name not in self.constants)
        image = keras.Input((*size, 3))
        # ((x - low) / (high - low) * range - mean) / std, with the numbers of RGB.
        mean, std = (self.rgb(np.array(preprocessing[name], np.float64)) for name in ("mean", "std"))
        factor = preprocessing["range"] / (high - low) / std
        entry = layers.Rescaling(factor.tolist(), (-low * factor - mean / std).tolist())(image)
        self.values = {source: entry}
        self.names = {}
        for number, node in enumerate(self.graph.node):
            self.names[node.output[0]] = f"n{number}"
            first = node.input[0] == source
            self.values[node.output[0]] = self.layer(node, f"n{number}", first)
        output = self.graph.output[0].name
        self.model = keras.Model(image, self.values[output])
        self.check(path, size, low, high)

    def rgb(self, values: np.ndarray) -> np.ndarray:
        return values[::-1] if self.numbers["channels"] == "bgr" else values

    def layer(self, node: onnx.NodeProto, name: str, first: bool) -> Any:
        """The node's output; spatial outputs are channels-last."""
        inputs = [self.values[each] for each in node.input if each in self.values]
        constants = [self.constants[each] for each in node.input if each in self.constants]
        options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        match node.op_type:
            case "Conv":
                return self.conv(inputs[0], constants, options, name, first)
            case "BatchNormalization":
                norm = layers.BatchNormalization(epsilon=options.get("epsilon", 1e-5), name=name)
                output = norm(inputs[0])
                norm.set_weights(constants)
                return output
            case "Relu":
                return layers.ReLU(name=name)(inputs[0])
            case "Clip" if [float(each) for each in constants] == [0.0, 6.0]:
                return layers.ReLU(6.0, name=name)(inputs[0])
            case "MaxPool" if not any(options.get("pads", [])) and not options.get("ceil_mode"):
                return layers.MaxPooling2D(options["kernel_shape"], options["strides"], name=name)(inputs[0])
            case "Concat" if options["axis"] == 1:
                return layers.Concatenate(-1, name=name)(inputs)
            case "Add":
                return layers.Add(name=name)(inputs)
            case "GlobalAveragePool" | "ReduceMean":
                return layers.GlobalAveragePooling2D(name=name)(inputs[0])
            case "Flatten":
                # Behind a global pool there is nothing left to flatten.
                if len(inputs[0].shape) == 2:
                    return layers.Activation("linear", name=name)(inputs[0])
            case "Gemm" if options.get("transB") and options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0:
                dense = layers.Dense(len(constants[0]), name=name)
                output = dense(inputs[0])
                dense.set_weights([constants[0].T, constants[1]])
                return output
        raise NotImplementedError(f"{node.op_type} {options} is not converted")

    def conv(self, x: Any, constants: list[np.ndarray], options: dict[str, Any], name: str, first: bool) -> Any:
        """`[O,I/groups,H,W]` becomes `[H,W,I,O]`, or `[H,W,I,1]` when depthwise."""
        weight, bias = constants[0], constants[1:]
        if first:
            # The image stays RGB; the weights change places.
            weight = weight[:, ::-1] if self.numbers["channels"] == "bgr" else weight
        top, left, bottom, right = options.get("pads", [0] * 4)
        if top or left or bottom or right:
            x = layers.ZeroPadding2D(((top, bottom), (left, right)))(x)
        kernel, strides, groups = weight.shape[2:], options.get("strides", [1, 1]), options.get("group", 1)
        shared = {"strides": strides, "use_bias": bool(bias), "name": name}
        if groups == 1:
            layer = layers.Conv2D(len(weight), kernel, **shared)
            weight = weight.transpose(2, 3, 1, 0)
        elif groups == len(weight) and weight.shape[1] == 1:
            layer = layers.DepthwiseConv2D(kernel, **shared)
            weight = weight.transpose(2, 3, 0, 1)
        else:
            raise NotImplementedError(f"a convolution with {groups} groups is not converted")
        output = layer(x)
        layer.set_weights([weight, *bias])
        return output

    def check(self, path: Path, size: tuple[int, int], low: float, high: float) -> None:
        """Fails unless the outputs on a random image agree with ONNX Runtime's."""
        levels = np.random.default_rng(0).uniform(size=(*size, 3))
        maps = levels.transpose(2, 0, 1)
        maps = maps[::-1] if self.numbers["channels"] == "bgr" else maps
        mean, std = (np.array(self.numbers[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
        expected = expected_output(path, ((maps * self.numbers["range"] - mean) / std).astype(np.float32))
        found = self.model((levels * (high - low) + low).astype(np.float32)[None]).numpy()[0]
        must_be_same("Keras", found, expected)
