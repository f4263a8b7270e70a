"""Scores of PNGs by ONNX Runtime, the same way for every tool."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from network import Network
from PIL import Image
from verify import network_input

from contest.units import Unit


class Referee:
    """One network; keeps a session for each layer and image size."""

    def __init__(self, path: Path, preprocessing: dict[str, Any], size: tuple[int, int], threads: int) -> None:
        self.network = Network(path)
        self.preprocessing = preprocessing
        self.size = size
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.sessions: dict[tuple[str, tuple[int, ...]], onnxruntime.InferenceSession] = {}

    def output(self, tensor: str, image: np.ndarray) -> np.ndarray:
        """A tensor without the batch axis, for an image `[C,H,W]` that is already preprocessed."""
        key = (tensor, image.shape)
        if key not in self.sessions:
            model = self.network.with_outputs([tensor], image.shape).SerializeToString()
            providers = ["CPUExecutionProvider"]
            self.sessions[key] = onnxruntime.InferenceSession(model, self.options, providers=providers)
        found: list[np.ndarray] = self.sessions[key].run([tensor], {self.network.input.name: image[None]})
        return found[0][0]

    def image(self, png: bytes) -> np.ndarray:
        """The PNG as the network reads it; one of another size is resized to the contest's, and rounded to 8 bits."""
        with Image.open(io.BytesIO(png)) as image:
            if (image.height, image.width) != self.size:
                resized = io.BytesIO()
                image.resize(self.size[::-1], Image.Resampling.BICUBIC).save(resized, "PNG")
                png = resized.getvalue()
        return network_input(png, self.preprocessing)

    def score(self, unit: Unit, tensor: str, png: Path) -> float:
        return unit.value(self.output(tensor, self.image(png.read_bytes())))
