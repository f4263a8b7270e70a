"""Whether a converted network is the one in the ONNX file."""

from pathlib import Path

import numpy as np
import onnxruntime
from network import Network

# Relative difference of the outputs up to which it is.
SAME = 1e-3


def expected_output(path: Path, image: np.ndarray) -> np.ndarray:
    """ONNX Runtime's output for an image `[C,H,W]` that is already preprocessed."""
    network = Network(path)
    (name,) = network.outputs
    model = network.with_outputs([name], image.shape).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run([name], {network.input.name: image[None]})[0][0]
    return output


def must_be_same(whose: str, found: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    if not difference <= SAME:
        raise ValueError(f"{whose}'s outputs differ from ONNX Runtime's by {difference:.1e}")
