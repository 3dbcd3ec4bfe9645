"""Where a network looks, as part of its graph: from what its one pass has at hand anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mien.errors import RunError
from mien.models.attention import CBAM
from mien.models.layers import hooked

CBAM_MAP = "mean of CBAM's spatial gates, least 0, most 1"
CLASS_MAP = "class activation map of the predicted class, most 1"

Look = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From pixels as the network reads them to logits ``[N, C]`` and maps ``[N, 1, h, w]``, or
``[N, C, h, w]`` where each class has its own."""


def attention_of(network: nn.Module, image_size: int, channels: int) -> tuple[Look, str]:
    """How a network's maps are computed beside its logits, and what the map is (see `map_of`).

    With CBAM, the mean of its spatial gates at the size of the image. Without, where the logits
    are one linear layer of the pooled last map, the class activation map (Zhou et al. 2016) of the
    predicted class, at the size of that map.

    Raises
    ------
    RunError
        for a network that has neither.
    """
    if any(isinstance(module, CBAM) for module in network.modules()):
        return _cbam(network), CBAM_MAP
    net: Any = network
    example = torch.rand(2, channels, image_size, image_size)
    layer: Any = getattr(net, "fc", None)
    with torch.no_grad():
        last = net.forward_features(example)
        pooled = isinstance(layer, nn.Linear) and layer.in_features == last.shape[1]
        if not pooled or not torch.allclose(net(example), layer(last.mean((2, 3))), atol=1e-4):
            raise RunError(
                "this network has no CBAM, and its logits are more than one linear layer of the "
                "pooled last map, so it has no attention map to export; leave out --attention, or "
                "train it with attention = 'cbam'"
            )
    if last.shape[2] * last.shape[3] == 1:
        raise RunError(
            f"the network's last map is a single place at {image_size} pixels, so its class "
            "activation map shows nothing; leave out --attention, or train with a smaller stride"
        )
    return _class_activation(net), CLASS_MAP


def map_of(maps: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The map of what is answered in the end: ``[N, h, w]``, each divided by its largest value.

    Parameters
    ----------
    maps : of a `Look`
    logits : ``[N, C]``, averaged over the views and networks that answer together, for what one of
        them calls a face is not always what all of them do
    """
    if maps.shape[1] > 1:
        called = logits.argmax(1)[:, None, None, None]
        maps = maps.gather(1, called.expand(-1, 1, *maps.shape[2:]))
    found = maps[:, 0].relu()
    return found / found.amax((1, 2), keepdim=True).clamp(min=1e-12)


def _cbam(network: nn.Module) -> Look:
    def look(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gates: list[torch.Tensor] = []

        def catch(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            size = pixels.shape[2:]
            gates.append(F.interpolate(module.maps(inputs[0])[1], size, mode="bilinear"))

        hooks = [
            module.register_forward_pre_hook(catch)
            for module in network.modules()
            if isinstance(module, CBAM)
        ]
        with hooked(hooks):
            logits = network(pixels)
        mean = torch.stack(gates).mean(0)
        return logits, mean - mean.amin((2, 3), keepdim=True)

    return look


def _class_activation(network: Any) -> Look:
    def look(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last = network.forward_features(pixels)
        maps = torch.einsum("nkhw,ck->nchw", last, network.fc.weight)
        return network.fc(last.mean((2, 3))), maps

    return look
