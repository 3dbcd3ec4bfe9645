"""An exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """A model's parameters and batch-norm statistics averaged over the steps of a training.

    After step t the decay is ``min(decay, (1 + t) / (10 + t))``, so that the average does not
    remember the random start. The statistics are averaged too, since those of the last weights do
    not fit the averaged weights.

    Parameters
    ----------
    model : the network being trained; its parameters are read at every `update`
    decay : share of the old average that is kept per step, 0 to 1
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        statistics = (b for b in model.buffers() if b.is_floating_point())
        self._live = [t.detach() for t in (*model.parameters(), *statistics)]
        self.tensors = [t.clone() for t in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present state into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.tensors, self._live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's state with the averaged one; calling it again undoes it."""
        for live, averaged in zip(self._live, self.tensors, strict=True):
            kept = live.clone()
            live.copy_(averaged)
            averaged.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"steps": self.steps, "tensors": self.tensors}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.steps = state["steps"]
        for mine, saved in zip(self.tensors, state["tensors"], strict=True):
            mine.copy_(saved)


@contextlib.contextmanager
def averaged(average: WeightAverage | None) -> Iterator[None]:
    """Give the model its averaged state for a while, where there is any."""
    if average is None:
        yield
        return
    average.swap()
    try:
        yield
    finally:
        average.swap()
