"""PyTorch without a tool: gradient ascent on pixels, as the program does it with the plain gradient."""

import time
from pathlib import Path

import numpy as np
import torch

from contest.task import Answer, Orders, Task, rounded, save
from contest.torch_network import TorchNetwork, unit_values


class Contender:
    def __init__(self, orders: Orders) -> None:
        torch.set_num_threads(orders.threads)
        self.orders = orders
        self.network = TorchNetwork(Path(orders.onnx), orders.preprocessing, orders.size)
        self.version = f"torch {torch.__version__}"

    def run(self, task: Task) -> Answer:
        orders = self.orders
        steps = orders.steps(orders.passes // 2, 2)
        network = self.network.until(task.tensor)
        stream = torch.Generator().manual_seed(task.seed)
        started = time.perf_counter()
        image = (0.5 + orders.noise * torch.randn(1, 3, *orders.size, generator=stream)).clamp(0, 1).requires_grad_()
        best, best_step, best_image = -float("inf"), 0, image.detach().clone()
        for step in range(steps + 1):
            score = unit_values(network(image), task.channel, task.reduce)[0]
            if score.item() > best:
                best, best_step, best_image = score.item(), step, image.detach().clone()
            if step == steps:
                break
            (slope,) = torch.autograd.grad(score, image)
            with torch.no_grad():
                norm = slope.norm()
                if norm > 0:
                    image.add_(slope, alpha=orders.lr / norm.item()).clamp_(0, 1)
        seconds = time.perf_counter() - started
        kept = {best_step: best_image, steps: image.detach()}
        images = [save(rounded(levels(kept[step])), orders.folder, task.stem, step) for step in sorted(kept)]
        # The forward pass after the last step counts.
        return Answer(task.stem, steps, 2 * steps + 1, seconds, best, images)


def levels(image: torch.Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).numpy()
