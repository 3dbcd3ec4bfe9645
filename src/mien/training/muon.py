"""Muon: steps of equal size in every direction for the kernels, Adam for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.95
ADAM_SHARE = 1 / 15
"""Adam's rate as a share of Muon's, whose steps have a spectral norm and not an element of 1."""
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz step: brings singular values between 0 and 1 to about 1, and quickly."""
STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by the nearest orthogonal one.

    A gradient of a convolution has a few large singular values and many small ones, so that SGD and
    Adam move along a few directions only; here every direction gets a step of the same length. A
    kernel ``[out, in, h, w]`` counts as the matrix ``[out, in * h * w]``, and its step has the
    spectral norm ``lr * sqrt(max(1, rows / columns))``. Matrices of linear layers, which in these
    networks only classify, kernels of one input channel, biases and gains are Adam's, at
    `ADAM_SHARE` of the rate. Weight decay is decoupled in both.

    Parameters
    ----------
    groups : parameters with their ``weight_decay``, as for any optimiser of PyTorch
    lr : the rate of the kernels

    Notes
    -----
    Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024); for networks with
    convolutions as in the same author's CIFAR-10 speed run.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            for parameter in moved:
                if combines_channels(parameter):
                    self._orthogonal(parameter, group["lr"], group["weight_decay"])
                else:
                    self._adam(parameter, group["lr"] * ADAM_SHARE, group["weight_decay"])

    def _orthogonal(self, kernel: nn.Parameter, lr: float, decay: float) -> None:
        assert kernel.grad is not None
        state = self.state[kernel]
        momentum = state.setdefault("momentum", torch.zeros_like(kernel))
        momentum.lerp_(kernel.grad, 1 - MOMENTUM)
        direction = kernel.grad.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov's
        rows, columns = direction.shape
        step = orthogonalised(direction).view(kernel.shape)
        kernel.mul_(1 - lr * decay).add_(step, alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _adam(self, parameter: nn.Parameter, lr: float, decay: float) -> None:
        """Kingma and Ba (2015), algorithm 1, with the usual constants."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        mean = state["mean"].lerp_(parameter.grad, 0.1)
        square = state["square"].lerp_(parameter.grad.square(), 0.001)
        scale = (square / (1 - 0.999 ** state["step"])).sqrt_().add_(1e-8)
        parameter.mul_(1 - lr * decay)
        parameter.addcdiv_(mean, scale, value=-lr / (1 - 0.9 ** state["step"]))


def combines_channels(parameter: torch.Tensor) -> bool:
    """Whether it is a kernel ``[out, in, h, w]`` of more than one input channel."""
    return parameter.ndim == 4 and parameter.shape[1] > 1


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix with singular values of 1, ``[M, N]``, of that shape and dtype.

    Five steps of Newton and Schulz bring the singular values to between 0.7 and 1.2, which is near
    enough; those that are almost zero stay smaller.
    """
    a, b, c = POLYNOMIAL
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
