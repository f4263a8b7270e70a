"""Lucent as released: its objectives, its Fourier image with decorrelated colours, its standard transforms."""

import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lucent.optvis import objectives, param, render

from contest.task import Answer, Orders, Task, save
from contest.torch_network import TorchNetwork

# The default of `render_vis`.
STEPS = 512


class Contender:
    def __init__(self, orders: Orders) -> None:
        torch.set_num_threads(orders.threads)
        self.orders = orders
        self.network = TorchNetwork(Path(orders.onnx), orders.preprocessing, orders.size)
        self.version = f"torch-lucent {version('torch-lucent')}, torch {torch.__version__}"

    def run(self, task: Task) -> Answer:
        orders = self.orders
        steps = orders.steps(STEPS, 2)
        kept = orders.kept(steps)
        torch.manual_seed(task.seed)
        np.random.seed(task.seed)
        # A copy for each run: Lucent does not remove its hooks.
        model = self.network.whole()
        layer = self.network.hooked(task.tensor)
        make = objectives.neuron if task.reduce == "center" else objectives.channel
        started = time.perf_counter()
        images = render.render_vis(
            model,
            make(layer, task.channel),
            lambda: param.image(orders.size[1], orders.size[0]),
            thresholds=kept,
            # The model does its own preprocessing, of values from 0 to 1.
            preprocess=False,
            progress=False,
            show_image=False,
        )
        seconds = time.perf_counter() - started
        # Lucent's `export` truncates levels to integers.
        images = [
            save((image[0] * 255).astype(np.uint8), orders.folder, task.stem, step)
            for step, image in zip(kept, images, strict=True)
        ]
        return Answer(task.stem, steps, 2 * steps, seconds, None, images)
