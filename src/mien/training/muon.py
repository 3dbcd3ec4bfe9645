"""Muon: steps of equal size in every direction for the kernels, Adam for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.95
ADAM_SHARE = 1 / 15
"""Adam's rate as a share of Muon's, whose steps have a spectral norm and not an element of 1."""
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz step: brings singular values between 0 and 1 to about 1, and quickly."""
STEPS = 5


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products in all digits of float32, also where fewer were allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
    @exact_products()
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
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum = state["momentum"]
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
    enough; those that are almost zero stay smaller. Every step multiplies the matrix by a
    polynomial of its Gram matrix ``[M, M]``: these are gathered in one factor, by which the long
    matrix is multiplied once, in two fifths of the work where N is 9 M. It needs all the digits of
    float32: rounding to fewer makes some squares negative, and the steps raise them.
    """
    a, b, c = POLYNOMIAL
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    factor = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(STEPS):
        square = factor @ gram @ factor
        factor = a * factor + (b * square + c * square @ square) @ factor
    x = factor @ x
    return x.T if tall else x
