"""Maps of the places that matter to a network: its own attention, gradients, and occlusion.

A network is one of `mien.models`, in evaluation mode, and pixels are float ``[N, C, H, W]`` as it
reads them (`mien.training.batches.prepared`). Every map is float ``[N, H, W]`` from 0 to 1 at the
size of the pixels, 1 at the place that matters most to each image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from mien.models.attention import CBAM
from mien.models.layers import hooked

Score = Callable[[torch.Tensor], torch.Tensor]
"""What is asked of pixels ``[N, C, H, W]``: a number for each image, ``[N]``."""


class Gates(NamedTuple):
    """What CBAM multiplies by, in (0, 1): `channel` ``[N, C]``, `spatial` ``[N, h, w]``."""

    channel: torch.Tensor
    spatial: torch.Tensor


def probability_of(model: nn.Module, classes: torch.Tensor) -> Score:
    """The probability that `model` gives to the class ``classes[i]`` of the i-th image."""

    @torch.no_grad()
    def score(pixels: torch.Tensor) -> torch.Tensor:
        return model(pixels).float().softmax(1).gather(1, classes[:, None])[:, 0]

    return score


@torch.no_grad()
def cbam_gates(model: nn.Module, pixels: torch.Tensor) -> dict[str, Gates]:
    """Both gates of every CBAM of a network (Woo et al. 2018, eqs. 2-3), in the order of the pass.

    They go by the names of the modules; a network without CBAM gives nothing.
    """
    found: dict[str, Gates] = {}

    def catch(name: str, module: CBAM, inputs: tuple[torch.Tensor, ...]) -> None:
        channel, spatial = module.maps(inputs[0])
        found[name] = Gates(channel.flatten(1).float(), spatial[:, 0].float())

    hooks = [
        module.register_forward_pre_hook(partial(catch, name))
        for name, module in model.named_modules()
        if isinstance(module, CBAM)
    ]
    with hooked(hooks):
        model(pixels)
    return found


def cbam(gates: dict[str, Gates], size: tuple[int, int]) -> torch.Tensor:
    """The mean of all spatial gates, each brought to the image's `size`.

    A gate is nowhere 0, so the map goes from its smallest value to its largest.
    """
    spatial = torch.stack([_enlarged(gate.spatial, size) for gate in gates.values()]).mean(0)
    return _to_one(spatial - spatial.amin((1, 2), keepdim=True))


def grad_cam(model: nn.Module, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of the last stage with a map (Selvaraju et al. 2017, eqs. 1-2).

    ReLU(sum over channels of mean gradient times map), where the gradient is that of the logit of
    ``classes[i]``, int ``[N]``.
    """
    maps, gradients = _last_maps(model, pixels, classes)
    return _weighted(maps, gradients.mean((2, 3)), pixels)


def grad_cam_plus_plus(
    model: nn.Module, pixels: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    """Grad-CAM++ of the last stage with a map (Chattopadhay et al. 2018, eqs. 9-10 and 19).

    For the exponential of the logit, as published, the pixel weights are
    ``g^2 / (2 g^2 + sum(A) g^3)``, and only positive gradients count; there they are
    ``1 / (2 + sum(A) g)``. A channel's sum is taken as 0 where it is negative, for the published
    weights presume what a ReLU leaves.
    """
    maps, gradients = _last_maps(model, pixels, classes)
    positive, total = gradients.relu(), maps.sum((2, 3), keepdim=True).relu()
    return _weighted(maps, (positive / (2 + total * positive)).sum((2, 3)), pixels)


def occlusion(
    score: Score, pixels: torch.Tensor, patch: int | None = None, step: int | None = None
) -> torch.Tensor:
    """How far the score falls when a grey square hides a place (Zeiler and Fergus 2014).

    A place has the mean fall over the squares that cover it; where hiding it helps, it has 0.

    Parameters
    ----------
    score : such as `probability_of`
    patch : side of the square in pixels, by default a quarter of the image. It has the mean colour
        of its image
    step : pixels from one square to the next, by default half a square
    """
    n, _, height, width = pixels.shape
    patch = patch or max(1, min(height, width) // 4)
    step = step or max(1, patch // 2)
    whole, grey = score(pixels), pixels.mean((2, 3), keepdim=True)
    fall = pixels.new_zeros(n, height, width)
    times = pixels.new_zeros(height, width)
    for top in _starts(height, patch, step):
        for left in _starts(width, patch, step):
            hidden = pixels.clone()
            hidden[..., top : top + patch, left : left + patch] = grey
            place = (..., slice(top, top + patch), slice(left, left + patch))
            fall[place] += (whole - score(hidden))[:, None, None]
            times[place] += 1
    return _to_one((fall / times).relu())


def _starts(side: int, patch: int, step: int) -> list[int]:
    """Where squares begin along a side; the last one ends at its end."""
    last = side - patch
    return sorted({*range(0, last, step), last})


def _last_maps(
    model: nn.Module, pixels: torch.Tensor, classes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the last stage gives, ``[N, C, h, w]``, and the gradients of the logits by it.

    A map of a single place has nothing to show, so that of the stage before it is taken.
    """
    caught: list[torch.Tensor] = []
    names: Any = model.stage_names
    channels_last = getattr(model, "channels_last", False)  # as some of timm's networks are

    def catch(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if not caught or output.numel() > output.shape[0] * output.shape[3 if channels_last else 1]:
            caught.append(output)

    hooks = [model.get_submodule(name).register_forward_hook(catch) for name in names]
    with torch.enable_grad(), hooked(hooks):
        # Weights may be frozen: with the pixels, a graph there is in any case.
        logits = model(pixels.detach().requires_grad_())
        chosen = logits.gather(1, classes[:, None]).sum()
        (gradients,) = torch.autograd.grad(chosen, caught[-1])
    maps = caught[-1].detach()
    if channels_last:
        maps, gradients = maps.permute(0, 3, 1, 2), gradients.permute(0, 3, 1, 2)
    return maps.float(), gradients.float()


def _weighted(maps: torch.Tensor, weights: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    found = torch.einsum("nchw,nc->nhw", maps, weights).relu()
    return _to_one(_enlarged(found, (pixels.shape[2], pixels.shape[3])))


def _enlarged(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _to_one(maps: torch.Tensor) -> torch.Tensor:
    """Maps from 0 on, each divided by its largest value; one that is 0 everywhere stays so."""
    largest = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)
