"""Horama: MACO and Fourier images.

As released it makes an image of 1280 pixels out of crops of a fifth to a quarter; so it is run for the budget
`released`. With the others the image has the size of everybody's, and the crops show whole images: that is what the
score is of.
"""

import os
import shutil
import tempfile
import time
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import horama
from horama import fourier_fv, maco_fv

from contest.recorder import Recorder
from contest.task import Answer, Orders, Task, rounded, save
from contest.torch_network import TorchNetwork, unit_values

# Defaults of `maco` and `fourier`.
STEPS = 1000
CROPS = 6
LOW, HIGH = -2.5, 2.5


def spectrum() -> Path:
    """The mean magnitudes of ImageNet, in the package of Xplique by the same authors."""
    name = f"xplique/features_visualizations/{maco_fv.MACO_SPECTRUM_FILENAME}"
    return Path(str(distribution("xplique").locate_file(name)))


class Contender:
    def __init__(self, orders: Orders) -> None:
        torch.set_num_threads(orders.threads)
        self.orders = orders
        self.network = TorchNetwork(Path(orders.onnx), orders.preprocessing, orders.size)
        self.version = f"horama {version('horama')}, torch {torch.__version__}"
        self.maco = orders.tool == "horama-maco"
        if self.maco:
            # Horama reads its spectrum from the current folder, and would otherwise download the same file.
            self.home = tempfile.TemporaryDirectory()
            shutil.copy(spectrum(), self.home.name)
            os.chdir(self.home.name)

    def run(self, task: Task) -> Answer:
        orders = self.orders
        steps = orders.steps(STEPS, 2 * CROPS)
        torch.manual_seed(task.seed)
        network = self.network.until(task.tensor)

        def objective(images: torch.Tensor) -> torch.Tensor:
            return unit_values(network((images - LOW) / (HIGH - LOW)), task.channel, task.reduce).mean()

        sizes: dict[str, Any] = {"model_input_size": orders.size[0]}
        if orders.budget != "released":
            sizes |= {"image_size": orders.size[0], "box_size": (1.0, 1.0)}
        module, name = (maco_fv, "maco_preconditioner") if self.maco else (fourier_fv, "fourier_preconditionner")
        recorded = Recorder(getattr(module, name), orders.kept(steps))
        started = time.perf_counter()
        with mock.patch.object(module, name, recorded):
            (horama.maco if self.maco else horama.fourier)(objective, total_steps=steps, device="cpu", **sizes)
        seconds = time.perf_counter() - started
        images = [
            save(rounded(((image - LOW) / (HIGH - LOW)).permute(1, 2, 0).numpy()), orders.folder, task.stem, step)
            for step, image in recorded.images.items()
        ]
        return Answer(task.stem, steps, 2 * CROPS * steps, seconds, None, images)
