"""Xplique: MACO, and Fourier images with its standard transforms, in TensorFlow.

As released it makes images of 512 pixels, and MACO's crops shrink from a half to a twentieth; so it is run for the
budget `released`. With the others the image has the size of everybody's, and MACO's crops show whole images.
"""

import importlib
import os
import random
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from xplique import features_visualizations as xplique

from contest.keras_network import KerasNetwork
from contest.task import Answer, Orders, Task, rounded, save

# Defaults of `maco` and `optimize`.
STEPS = 256
CROPS = 32
SIDE = 512
MACO_RANGE = (-1.0, 1.0)
FOURIER_RANGE = (0.0, 1.0)


class RecordedSteps:
    """Forwards the steps of MACO and keeps the images that some of them begin with: number k is that after k steps."""

    def __init__(self, module: Any, kept: list[int]) -> None:
        self.module = module
        self.step = module.maco_optimisation_step
        self.kept = set(kept)
        self.calls = 0
        self.images: dict[int, np.ndarray] = {}

    def __call__(self, model: Any, objective: Any, magnitude: Any, phase: Any, *others: Any) -> Any:
        if self.calls in self.kept:
            # The last of the others is the range of values.
            self.images[self.calls] = self.module.maco_image_parametrization(magnitude, phase, others[-1]).numpy()
        self.calls += 1
        return self.step(model, objective, magnitude, phase, *others)


class Contender:
    def __init__(self, orders: Orders) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(orders.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.orders = orders
        self.maco = orders.tool == "xplique-maco"
        self.range = MACO_RANGE if self.maco else FOURIER_RANGE
        self.network = KerasNetwork(Path(orders.onnx), orders.preprocessing, orders.size, *self.range)
        self.version = f"xplique {version('xplique')}, tensorflow {tf.__version__}"

    def run(self, task: Task) -> Answer:
        for seed in (random.seed, np.random.seed, tf.random.set_seed):
            seed(task.seed)
        objective = self.objective(task)
        released = self.orders.budget == "released"
        size = (SIDE, SIDE) if released else self.orders.size
        started = time.perf_counter()
        crops = CROPS if self.maco else 1
        steps = self.orders.steps(STEPS, 2 * crops)
        if self.maco:
            options: dict[str, Any] = {} if released else {"box_size": 1.0}
            # `xplique.maco` is the function; the module has the same name.
            module = importlib.import_module("xplique.features_visualizations.maco")
            recorded = RecordedSteps(module, self.orders.kept(steps))
            with mock.patch.object(module, "maco_optimisation_step", recorded):
                image, _ = xplique.maco(objective, nb_steps=steps, custom_shape=size, **options)
            images = recorded.images | {steps: image}
        else:
            # Xplique keeps an image at regular intervals, and the last.
            every = max(1, steps // self.orders.checkpoints)
            found, _ = xplique.optimize(objective, nb_steps=steps, custom_shape=size, save_every=every)
            saved = sorted({*range(every, steps + 1, every), steps})
            images = {step: image[0].numpy() for step, image in zip(saved, found, strict=True)}
        seconds = time.perf_counter() - started
        low, high = self.range
        files = [
            save(rounded((image - low) / (high - low)), self.orders.folder, task.stem, step)
            for step, image in images.items()
        ]
        return Answer(task.stem, steps, 2 * crops * steps, seconds, None, files)

    def objective(self, task: Task) -> xplique.Objective:
        model, layer = self.network.model, self.network.names[task.tensor]
        shape = model.get_layer(layer).output.shape
        if task.reduce == "center" and len(shape) == 4:
            _, height, width, channels = shape
            neuron = (height // 2 * width + width // 2) * channels + task.channel
            return xplique.Objective.neuron(model, layer, neuron)
        return xplique.Objective.channel(model, layer, task.channel)
