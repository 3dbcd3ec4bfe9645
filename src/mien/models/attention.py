"""Attention that refines a feature map and keeps its shape: CBAM, SE and ECA in one socket."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from mien.errors import RecipeError
from mien.models import gating
from mien.models.layers import convolution

STARTS = {"paper": 0.0, "identity": 4.0}
"""What a gate's sigmoid is given at the start: sigmoid(0) = 0.5, sigmoid(4) = 0.982."""

RATIO = 16
"""Channels per hidden unit of a channel gate's MLP."""


def create_attention(kind: str, channels: int, *, gates: str = "paper") -> nn.Module:
    """An attention module for maps ``[N, channels, H, W]``; the output has the same shape.

    Parameters
    ----------
    kind : ``"none"`` (the identity), ``"cbam"``, ``"se"`` or ``"eca"``
    channels : channels of the map
    gates : how the gates start. ``"paper"``: near 0.5 each, as published, so that CBAM first passes
        on about a quarter of the signal. ``"identity"``: near 0.982 each (CBAM: 0.964)
    """
    start = STARTS[gates]
    if kind == "none":
        return nn.Identity()
    if kind == "eca":
        return ECA(channels, start)
    return {"cbam": CBAM, "se": SE}[kind](channels, max(1, channels // RATIO), start)


def mean(x: torch.Tensor, dim: tuple[int, ...]) -> torch.Tensor:
    """`x.mean(dim, keepdim=True)`, with a backward that divides the sums and not a whole map.

    On a CPU a channel gate's forward and backward take less than half as long so.
    """
    total = x.sum(dim, keepdim=True)
    return total / (x.numel() // total.numel())


class Highest(torch.autograd.Function):
    """The maximum over one dimension, which is kept; its first place has all of the gradient.

    The backward of `amax` looks for what equals the maximum. A compiler keeps more digits of a map
    in bfloat16 than of its stored maximum, so that nothing may equal it, and divides by none.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int) -> torch.Tensor:
        highest, at = x.max(dim, keepdim=True)
        ctx.save_for_backward(at)
        ctx.places = torch.Size((x.shape[dim], *[1] * (x.ndim - dim - 1)))
        return highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (at,) = ctx.saved_tensors
        places = torch.arange(ctx.places.numel(), device=at.device).view(ctx.places)
        return torch.where(places == at, grad, 0), None


def compile_attention(model: nn.Module) -> None:
    """Have every `CBAM` of a model compiled in training on a CPU, and nothing else of it.

    There compiled convolutions are no faster, and CBAM adds about 0.6 of what it adds otherwise to
    a step (``bench/training.py --parts attention --compile``). The first step compiles each kind of
    map, for some 10 to 20 seconds; PyTorch keeps what it compiled.

    Raises
    ------
    RecipeError
        Nothing can be compiled here.
    """
    modules = [module for module in model.modules() if isinstance(module, CBAM)]
    if modules:
        check_compiler(torch.device("cpu"))
    for module in modules:
        module.compiled = True


def check_compiler(device: torch.device) -> None:
    """See that PyTorch can compile something for the device.

    Raises
    ------
    RecipeError
        if it cannot.
    """
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        needed = "a C++ compiler, such as g++," if device.type == "cpu" else "Triton and gcc"
        raise RecipeError(
            f"compile=true needs {needed} on '{device}' ({reason}); install what is missing, or "
            "leave compile out"
        ) from error


def allow_many_maps() -> None:
    """Let PyTorch compile a function anew for more kinds of maps than it would by itself."""
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, 64)


@cache
def compiled_product() -> Callable[[CBAM, torch.Tensor], torch.Tensor]:
    """`CBAM.product`, compiled once for each kind of map, of which a network has some dozens."""
    allow_many_maps()
    return torch.compile(CBAM.product, dynamic=False)


class CBAM(nn.Module):
    """Convolutional block attention module (Woo et al. 2018): what to look at, then where.

    Channel gate (their eq. 2): sigmoid(MLP(mean over space) + MLP(max over space)), one MLP with
    biases and one hidden layer. Spatial gate (eq. 3), from the map so scaled:
    sigmoid(norm(conv7x7([max, mean over channels]))). The normalisation, the order of the two
    planes and the start (all biases 0, the weight of the normalisation 0, so that the spatial gate
    is the same everywhere until training moves it) are those of the authors' release. The momentum
    of the running statistics is 0.1, as in the backbones, for 0.01 needs more steps than a short
    training has.

    Parameters
    ----------
    channels : channels of the map
    hidden : hidden units of the MLP
    start : what both sigmoids are given at the start: 0 is the authors' start, a gate of 0.5
    """

    compiled = False  # in training on a CPU; see `compile_attention`

    def __init__(self, channels: int, hidden: int, start: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.conv = convolution(2, 1, 7, padding=3)
        self.norm = nn.BatchNorm2d(1)
        nn.init.zeros_(self.fc1.bias)
        nn.init.constant_(self.fc2.bias, start / 2)  # the MLP's two outputs are added
        nn.init.zeros_(self.norm.weight)
        nn.init.constant_(self.norm.bias, start)

    def channel_logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """Weights of the channels before the sigmoid, ``[N, C]``, of ``[N, 2, C]``."""
        return self.fc2(F.relu(self.fc1(pooled))).sum(1)

    def spatial_gate(self, planes: torch.Tensor, fourier: bool = False) -> torch.Tensor:
        """Weights of the places, ``[N, 1, H, W]`` in (0, 1), of ``[N, 2, H, W]``.

        With `fourier` the convolution goes by Fourier transforms, which on a CPU are faster.
        """
        # Two planes cost nothing in float32, and CPUs convolve so few in bfloat16 far slower.
        with torch.autocast(planes.device.type, enabled=False):
            weight = self.conv.weight
            planes = planes.to(weight.dtype)
            planes = gating.correlate(planes, weight) if fourier else self.conv(planes)
            return self.norm(planes).sigmoid()

    def plain(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gate of the channels, the map so scaled, and the gate of the places."""
        learns = torch.is_grad_enabled() and x.requires_grad
        # Exporters know `amax`.
        highest = Highest.apply if learns else partial(torch.amax, keepdim=True)
        pooled = torch.cat((highest(x.flatten(2), 2), mean(x, (2, 3)).flatten(2)), 2).mT
        channel = self.channel_logits(pooled).sigmoid().to(x.dtype)[:, :, None, None]
        scaled = x * channel
        planes = torch.cat((highest(scaled, 1), mean(scaled, (1,))), 1)
        return channel, scaled, self.spatial_gate(planes).to(x.dtype)

    def maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both gates of a map ``[N, C, H, W]``: ``[N, C, 1, 1]`` and ``[N, 1, H, W]``."""
        channel, _, place = self.plain(x)
        return channel, place

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The map times both gates in the plain form: compilers fuse it, exporters know it."""
        _, scaled, place = self.plain(x)
        return scaled * place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wanted = torch.is_grad_enabled() and x.requires_grad
        if not wanted or x.device.type != "cpu" or torch.compiler.is_compiling():
            return self.product(x)
        if self.compiled:
            return compiled_product()(self, x)
        x, pooled = gating.pool(x)
        x, planes = gating.scale(x, self.channel_logits(pooled).to(x.dtype))
        return gating.place(x, self.spatial_gate(planes, fourier=True).to(x.dtype))


class SE(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): x * sigmoid(MLP(mean over space))."""

    def __init__(self, channels: int, hidden: int, start: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        nn.init.constant_(self.fc2.bias, start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = mean(x, (2, 3)).flatten(1)
        gate = self.fc2(F.relu(self.fc1(pooled))).sigmoid()
        return x * gate[:, :, None, None]


class ECA(nn.Module):
    """Efficient channel attention (Wang et al. 2020): a convolution across the channel means.

    The kernel covers the odd number of channels next to (log2(C) + 1) / 2 (eq. 12).
    """

    def __init__(self, channels: int, start: float = 0.0) -> None:
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size += 1 - size % 2
        # The paper's convolution has no bias; one that starts at 0 would be another model.
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        self.start = start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = mean(x, (2, 3)).flatten(2).mT  # [N, 1, C]
        gate = (self.conv(pooled) + self.start).sigmoid()
        return x * gate.mT[..., None]
