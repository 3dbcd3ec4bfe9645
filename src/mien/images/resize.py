"""Resizing of a batch to the square a model takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mien.errors import RecipeError


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Scale the longer side to `size` and pad the shorter one with 0 on both sides.

    The geometry is that of `mien.pixels.letterbox`. Interpolation is bilinear, with a filter as
    wide as the shrinking when there is any (antialiasing).

    Parameters
    ----------
    images : float ``[N, C, H, W]`` in [0, 1]
    size : side of the result in pixels

    Returns
    -------
    float ``[N, C, size, size]`` in [0, 1]
        The images themselves if they already have that size.

    Raises
    ------
    RecipeError
        If `size` is below 1.
    """
    if size < 1:
        raise RecipeError(f"an image size of {size} pixels is not possible; give 1 or more")
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    scale = size / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    if inner != (height, width):
        images = F.interpolate(
            images, inner, mode="bilinear", align_corners=False, antialias=scale < 1
        )
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    return F.pad(images, (left, size - inner[1] - left, top, size - inner[0] - top))
