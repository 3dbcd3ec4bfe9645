"""Muon: steps of equal size in every direction for the kernels, Adam for the rest."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

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
    if before == "highest":  # to set it again would have all that is compiled compiled once more
        yield
        return
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
    half : whether an accelerator may make the steps of kernels in bfloat16: in float32 those of
        VGG19 at full width are four times the multiply-adds of its passes over a batch of 256

    Notes
    -----
    Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024); for networks with
    convolutions as in the same author's CIFAR-10 speed run.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, *, half: bool = False) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self.half = half

    @torch.no_grad()
    @exact_products()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient.

        All of a group at once: one by one an accelerator would wait for hundreds of small kernels.
        """
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            kernels = [p for p in moved if combines_channels(p)]
            others = [p for p in moved if not combines_channels(p)]
            if kernels:
                self._orthogonal(kernels, group["lr"], group["weight_decay"])
            if others:
                self._adam(others, group["lr"] * ADAM_SHARE, group["weight_decay"])

    def _orthogonal(self, kernels: list[torch.Tensor], lr: float, decay: float) -> None:
        for kernel in kernels:
            if not self.state[kernel]:
                self.state[kernel]["momentum"] = torch.zeros_like(kernel)
        gradients = gradients_of(kernels)
        momenta = [self.state[kernel]["momentum"] for kernel in kernels]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
        half = self.half and kernels[0].device.type != "cpu"
        orthogonal = orthogonalised_in_half if half else orthogonalised
        steps = orthogonal([direction.flatten(1) for direction in ahead])
        torch._foreach_mul_(steps, [-lr * max(1.0, len(s) / s.shape[1]) ** 0.5 for s in steps])
        torch._foreach_mul_(kernels, 1 - lr * decay)
        torch._foreach_add_(kernels, [s.view_as(k) for s, k in zip(steps, kernels, strict=True)])

    def _adam(self, parameters: list[torch.Tensor], lr: float, decay: float) -> None:
        """Kingma and Ba (2015), algorithm 1, with the usual constants."""
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(parameter)}
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
        gradients = gradients_of(parameters)
        means, squares = ([state[key] for state in states] for key in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 0.1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 0.001)
        scales = torch._foreach_div(squares, [1 - 0.999 ** state["step"] for state in states])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, 1e-8)
        torch._foreach_mul_(parameters, 1 - lr * decay)
        rates = [-lr / (1 - 0.9 ** state["step"]) for state in states]
        torch._foreach_addcdiv_(parameters, means, scales, rates)


def gradients_of(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients of parameters that have one."""
    return [p.grad for p in parameters if p.grad is not None]


def combines_channels(parameter: torch.Tensor) -> bool:
    """Whether it is a kernel ``[out, in, h, w]`` of more than one input channel."""
    return parameter.ndim == 4 and parameter.shape[1] > 1


def orthogonalised(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """About the nearest matrix to each that has singular values of 1, ``[M, N]``, of its dtype.

    Five steps of Newton and Schulz bring the singular values to between 0.7 and 1.2, which is near
    enough; those that are almost zero stay smaller. Every step multiplies the matrix by a
    polynomial of its Gram matrix ``[M, M]``: these are gathered in one factor, by which the long
    matrix is multiplied once, in two fifths of the work where N is 9 M. Gram matrices of one height
    are multiplied together. It needs all the digits of float32: rounding to fewer makes some
    squares negative, and the steps raise them.
    """
    a, b, c = POLYNOMIAL
    wide = wide_units(matrices)
    for places in alike(len(x) for x in wide):
        gram = torch.stack([wide[place] @ wide[place].T for place in places])
        factor = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device).expand_as(gram)
        for _ in range(STEPS):
            square = factor @ gram @ factor
            inner = torch.baddbmm(square, square, square, beta=b, alpha=c)
            factor = torch.baddbmm(factor, inner, factor, beta=a)
        for place, one in zip(places, factor, strict=True):
            wide[place] = one @ wide[place]
    return as_tall_as(matrices, wide)


def orthogonalised_in_half(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same within what bfloat16 leaves open, for where its products are that much faster.

    Every step multiplies the long matrix itself, as published: what is rounded away in one the
    next makes good, so no more digits are needed. Matrices of one shape are multiplied together.
    """
    a, b, c = POLYNOMIAL
    wide = wide_units(matrices)
    for places in alike(x.shape for x in wide):
        x = torch.stack([wide[place].bfloat16() for place in places])
        for _ in range(STEPS):
            square = x @ x.mT
            inner = torch.baddbmm(square, square, square, beta=b, alpha=c)
            x = torch.baddbmm(x, inner, x, beta=a)
        for place, one in zip(places, x, strict=True):
            wide[place] = one.to(wide[place].dtype)
    return as_tall_as(matrices, wide)


def wide_units(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """The matrices at a Frobenius norm of 1, those that are taller than wide turned."""
    lengths = torch._foreach_norm(matrices)
    torch._foreach_add_(lengths, 1e-7)
    return [x.T if len(x) > x.shape[1] else x for x in torch._foreach_div(matrices, lengths)]


def as_tall_as(matrices: list[torch.Tensor], wide: list[torch.Tensor]) -> list[torch.Tensor]:
    """Turned back to the shapes of `matrices`."""
    return [x.T if len(m) > m.shape[1] else x for x, m in zip(wide, matrices, strict=True)]


def alike(keys: Iterable[Hashable]) -> Iterable[list[int]]:
    """The places of equal keys."""
    found: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return found.values()
