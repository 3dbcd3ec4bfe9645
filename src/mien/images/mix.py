"""Mixing the images and labels of a batch with one another: mixup and cutmix."""

from __future__ import annotations

import numpy as np
import torch

from mien.images.augment import rectangles
from mien.images.tensors import brought


def mixup(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend each image and its target with those of another image of the batch.

    The share that stays is drawn from Beta(alpha, alpha), for every image anew (Zhang et al., 2018,
    "mixup", draw one for a batch).

    Parameters
    ----------
    images : float ``[N, C, H, W]``
    targets : float ``[N, classes]``, probabilities
    alpha : above 0; the smaller, the nearer most shares are to 0 or 1
    generator : a CPU generator

    Returns
    -------
    images : float ``[N, C, H, W]``
    targets : float ``[N, classes]``, in the same shares
    """
    share, other = _draw(images, alpha, generator)
    return (
        torch.lerp(images[other], images, share.view(-1, 1, 1, 1)),
        torch.lerp(targets[other], targets, share.view(-1, 1)),
    )


def cutmix(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a box of another image of the batch into each image.

    The share outside the box is drawn from Beta(alpha, alpha) and the centre of the box anywhere in
    the image (Yun et al., 2019), for every image anew. The targets take the share of pixels really
    kept, after the box was cut at the border.

    Parameters
    ----------
    images : float ``[N, C, H, W]``
    targets : float ``[N, classes]``, probabilities
    alpha : above 0; 1 makes every share equally likely
    generator : a CPU generator

    Returns
    -------
    images : float ``[N, C, H, W]``, each pixel from one image or the other
    targets : float ``[N, classes]``
    """
    share, other = _draw(images, alpha, generator)
    height, width = images.shape[-2:]
    centre = brought(torch.rand(2, len(images), generator=generator), images.device)
    half = (1 - share).sqrt() / 2
    top, bottom = _span(centre[0], half, height)
    left, right = _span(centre[1], half, width)

    inside = rectangles(images, top, bottom, left, right)
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return (
        torch.lerp(images, images[other], inside),
        torch.lerp(targets[other], targets, kept.view(-1, 1)),
    )


def _draw(
    images: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each image the share that stays and the position of its partner, both ``[N]``."""
    # torch's own Beta takes no generator, so NumPy's is seeded from it.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    share = np.random.default_rng(seed).beta(alpha, alpha, len(images)).astype(np.float32)
    other = torch.randperm(len(images), generator=generator)
    return brought(torch.from_numpy(share), images.device), brought(other, images.device)


def _span(centre: torch.Tensor, half: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First pixel inside and first one behind, whole numbers within the image, both ``[N]``."""
    start = ((centre - half) * side).round().clamp(0, side)
    return start, ((centre + half) * side).round().clamp(0, side)
