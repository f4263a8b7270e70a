"""Looks at a tool's images while it works."""

from typing import Any

import torch


class Recorder:
    """Wraps a function that makes the image of every step: forwards calls and keeps some of their results.

    Call number 0 makes the image of the start, call k the image after k steps.
    """

    def __init__(self, function: Any, kept: list[int]) -> None:
        self.function = function
        self.kept = set(kept)
        self.calls = 0
        self.images: dict[int, torch.Tensor] = {}

    def __call__(self, *arguments: Any, **options: Any) -> torch.Tensor:
        image: torch.Tensor = self.function(*arguments, **options)
        if self.calls in self.kept:
            self.images[self.calls] = image.detach().clone()
        self.calls += 1
        return image
