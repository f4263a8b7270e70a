"""DreamLens: its `maximize` (Fourier image, random scales and rotations) and its MACO.

As released its images have 256 and 512 pixels, and MACO's crops shrink from a half to a twentieth; so it is run for the
budget `released`. With the others the image has the size of everybody's, and MACO's crops show whole images.
"""

import time
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import dreamlens
import numpy as np
import torch
from dreamlens import feature_visualizer, optimization

from contest.recorder import Recorder
from contest.task import Answer, Orders, Task, rounded, save
from contest.torch_network import TorchNetwork

FOURIER = dreamlens.RenderConfig()
MACO = dreamlens.MacoConfig()


class Contender:
    def __init__(self, orders: Orders) -> None:
        torch.set_num_threads(orders.threads)
        self.orders = orders
        self.network = TorchNetwork(Path(orders.onnx), orders.preprocessing, orders.size)
        self.version = f"dreamlens {version('dreamlens')}, torch {torch.__version__}"
        self.maco = orders.tool == "dreamlens-maco"

    def run(self, task: Task) -> Answer:
        orders = self.orders
        default, images_per_step = (MACO, MACO.crops) if self.maco else (FOURIER, 1)
        steps = orders.steps(default.steps, 2 * images_per_step)
        height, width = orders.size
        released = orders.budget == "released"
        sizes = {} if released else {"height": height, "width": width}
        if self.maco:
            boxes = {} if released else {"box_size": 1.0}
            config = dreamlens.MacoConfig(steps=steps, input_shape=(3, height, width), **sizes, **boxes)
            module, name = optimization, "maco_image_parametrization"
        else:
            config = dreamlens.RenderConfig(steps=steps, **sizes)
            module, name = feature_visualizer, "call_image_parameter"
        torch.manual_seed(task.seed)
        np.random.seed(task.seed)
        model = self.network.whole()
        target = dreamlens.FeatureTarget.for_channel(
            f"network.{self.network.modules[task.tensor]}", task.channel, self.position(task)
        )
        # The model does its own preprocessing, of values from 0 to 1.
        visualizer = dreamlens.FeatureVisualizer(model, quiet=True, device="cpu", normalize=False)
        recorded = Recorder(getattr(module, name), orders.kept(steps))
        started = time.perf_counter()
        with mock.patch.object(module, name, recorded):
            result = visualizer.visualize(target, method="maco" if self.maco else "maximize", config=config)
        seconds = time.perf_counter() - started
        recorded.images[steps] = result.as_chw()
        images = [
            save(rounded(image.reshape(3, *image.shape[-2:]).permute(1, 2, 0).numpy()), orders.folder, task.stem, step)
            for step, image in sorted(recorded.images.items())
        ]
        return Answer(task.stem, steps, 2 * images_per_step * steps, seconds, None, images)

    def position(self, task: Task) -> tuple[int, int] | None:
        if task.reduce != "center":
            return None
        # Its views have the size of its image.
        released = self.orders.budget == "released" and not self.maco
        size = (FOURIER.height, FOURIER.width) if released else self.orders.size
        with torch.no_grad():
            shape = self.network.until(task.tensor)(torch.zeros(1, 3, *size)).shape
        return (shape[2] // 2, shape[3] // 2) if len(shape) == 4 else None
