"""Test-time views: what a network says of an image, averaged over slight changes of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

VIEWS = (1, 2, 10)
"""An image as it is; with its mirror image; and moved towards each corner too, with theirs."""

MOVED = 1 / 24
"""How far it is moved, as a share of its side."""


def views_of(pixels: torch.Tensor, views: int) -> list[torch.Tensor]:
    """So many views (one of `VIEWS`) of pixels ``[N, C, H, W]``, first as they are.

    What is moved in from outside is the reflection of the border.
    """
    seen = [pixels]
    if views > 2:
        height, width = pixels.shape[2:]
        by = max(1, round(MOVED * min(height, width)))
        padded = F.pad(pixels, (by, by, by, by), mode="reflect")
        seen += [
            padded[:, :, top : top + height, left : left + width]
            for top in (0, 2 * by)
            for left in (0, 2 * by)
        ]
    return seen if views == 1 else [*seen, *(view.flip(-1) for view in seen)]


def mean_logits(network: nn.Module, seen: list[torch.Tensor], first: torch.Tensor) -> torch.Tensor:
    """Logits ``[N, C]`` whose softmax is the mean of the probabilities of some views.

    Parameters
    ----------
    seen : the views, as `views_of` gives them
    first : logits of the first of them, which may be at hand
    """
    if len(seen) == 1:
        return first
    others = network(torch.cat(seen[1:])).unflatten(0, (len(seen) - 1, -1))
    return averaged_logits(torch.cat((first[None], others)))


def averaged_logits(every: torch.Tensor) -> torch.Tensor:
    """Logits ``[N, C]`` whose softmax is the mean of the probabilities of several, ``[K, N, C]``.

    Those of one are as they were.
    """
    if len(every) == 1:
        return every[0]
    return every.float().log_softmax(2).logsumexp(0) - math.log(len(every))
