"""The few layers and rules that all backbones share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def scaled(channels: int, width: float) -> int:
    """Channels at a width: ``channels * width`` to the nearest multiple of 8, at least 8.

    A width of 1 leaves the number as it is.
    """
    return channels if width == 1 else max(8, int(channels * width / 8 + 0.5) * 8)


def convolution(inputs: int, outputs: int, kernel: int, **settings: Any) -> nn.Conv2d:
    """A convolution without bias, for batch norm follows it; it starts as He et al. (2015) propose.

    The weights are normal with the variance 2 / fan-out.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, bias=False, **settings)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def drop_path(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Stochastic depth (Huang et al. 2016): leave out a residual branch for some of the images.

    Parameters
    ----------
    branch : float ``[N, C, H, W]``
    rate : the share of images whose branch is left out; the others are scaled by 1/(1 - rate),
        so that the expectation stays
    training : outside training nothing is left out
    """
    if not training or rate == 0:
        return branch
    kept = torch.empty(len(branch), 1, 1, 1, dtype=branch.dtype, device=branch.device)
    return branch * kept.bernoulli_(1 - rate).div_(1 - rate)


@contextmanager
def hooked(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks for as long as the context lasts."""
    handles = list(hooks)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
