"""Augmentation of a whole batch at once, with fresh parameters for every image of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from mien.images.tensors import brought
from mien.runs.settings import Settings

ERASED = 0.2
"""Largest area of the rectangle that is painted over, as a share of the image."""


@dataclass(frozen=True)
class Augment:
    """How far images are changed in training; everything is off by default.

    Attributes
    ----------
    flip : probability of a left-right mirror image
    shift : largest shift in each direction, as a share of the side
    rotate : largest rotation either way, in degrees
    zoom : the scale is between ``1 / (1 + zoom)`` and ``1 + zoom``, uniform in its logarithm
    brightness : the pixels are multiplied by ``1 - brightness`` to ``1 + brightness``
    contrast : the distance to the image's own mean is multiplied by ``1 - contrast`` to
        ``1 + contrast``
    erase : probability that one rectangle is painted over with a random grey
    """

    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0

    @classmethod
    def of(cls, recipe: Settings) -> Augment:
        """What a recipe asks for; a generator's does not rotate."""
        return cls(**{f.name: getattr(recipe, f.name, 0.0) for f in fields(cls)})

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The same as ``augment(images, self, generator)``."""
        return augment(images, self, generator)


def augment(images: torch.Tensor, settings: Augment, generator: torch.Generator) -> torch.Tensor:
    """Change each image of a batch by its own random amounts.

    Parameters
    ----------
    images : float ``[N, C, H, W]`` in [0, 1], on any device; not changed in place
    settings : what may happen, and how far
    generator : a CPU generator, for `draw`

    Returns
    -------
    float ``[N, C, H, W]`` in [0, 1]
        The images themselves where everything is off.
    """
    numbers = brought(draw(len(images), generator), images.device)
    return change(images, settings, numbers)


def draw(count: int, generator: torch.Generator) -> torch.Tensor:
    """The random numbers that decide what happens to `count` images, uniform, ``[13, count]``.

    They are drawn on the CPU, so that every device sees the same augmentation, and there are as
    many whatever the settings, so that switching one of them leaves the others as they were.
    """
    return torch.rand(13, count, generator=generator)


def change(images: torch.Tensor, settings: Augment, numbers: torch.Tensor) -> torch.Tensor:
    """Change each image by the amounts that its column of `numbers` decides (see `augment`).

    All of it on one device, so that it can be compiled as one graph.
    """
    flip, dx, dy, angle, zoom, brightness, contrast, *erasing = numbers
    flipped = flip < settings.flip

    if settings.shift or settings.rotate or settings.zoom:
        images = _move(
            images,
            flipped,
            dx=_between(dx, settings.shift),
            dy=_between(dy, settings.shift),
            angle=_between(angle, math.radians(settings.rotate)),
            scale=_between(zoom, math.log1p(settings.zoom)).exp(),
        )
    elif settings.flip:
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
    if settings.brightness or settings.contrast:
        images = _light(
            images,
            brightness=1 + _between(brightness, settings.brightness),
            contrast=1 + _between(contrast, settings.contrast),
        )
    if settings.erase:
        images = _erase(images, settings, *erasing)
    return images


def _between(uniform: torch.Tensor, limit: float) -> torch.Tensor:
    """Bring numbers from [0, 1) to [-limit, limit)."""
    return (2 * uniform - 1) * limit


def _move(
    images: torch.Tensor,
    flipped: torch.Tensor,
    dx: torch.Tensor,
    dy: torch.Tensor,
    angle: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Mirror, turn clockwise and scale about the centre, then shift: one resampling for all four.

    The grid holds, for each pixel of the result, where in the image it comes from, in units of half
    a side from the centre. What comes from outside the image is reflected at its edge: faces fill
    the frame, so black borders would be the strongest edges of the picture and tell how far it
    was moved, and repeated border pixels would be streaks; a reflection keeps the texture.
    """
    height, width = images.shape[-2:]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    mirror = 1 - 2 * flipped.to(images.dtype)
    # A step in x of the result, and one in y, moves this far in x and y of the image: [N, 2].
    step_x = torch.stack((mirror * cos, -sin * (width / height)), 1)
    step_y = torch.stack((mirror * sin * (height / width), cos), 1)
    x = _centres(width, images) - 2 * dx.view(-1, 1)
    y = _centres(height, images) - 2 * dy.view(-1, 1)
    # The map is a part of x plus a part of y, so the full grid takes one addition; in planes
    # [N, 2, H, W], because an innermost axis of 2 keeps the processor's vectors idle.
    along_x = step_x[:, :, None, None] * x[:, None, None, :]
    along_y = step_y[:, :, None, None] * y[:, None, :, None]
    grid = (along_x + along_y).permute(0, 2, 3, 1)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _centres(side: int, like: torch.Tensor) -> torch.Tensor:
    """Pixel centres along one side, from -1 to 1 at the outer edges of the outer pixels."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1


def _light(images: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Scale the light, then the distance to the mean: one multiplication and one addition."""
    factor = (brightness * contrast).view(-1, 1, 1, 1)
    # mean * b + (image * b - mean * b) * c, ordered by image
    kept = (brightness * (1 - contrast)).view(-1, 1, 1, 1)
    offset = images.mean((1, 2, 3), keepdim=True) * kept
    return (images * factor).add_(offset).clamp_(0, 1)


def _erase(
    images: torch.Tensor,
    settings: Augment,
    chance: torch.Tensor,
    area: torch.Tensor,
    aspect: torch.Tensor,
    top: torch.Tensor,
    left: torch.Tensor,
    grey: torch.Tensor,
) -> torch.Tensor:
    """Paint one rectangle of an image over with one grey (Zhong et al., 2020, random erasing).

    Its area is uniform up to `ERASED`, its sides are at most 2 to 1 apart in shares of the image,
    and it lies inside the image.
    """
    height, width = images.shape[-2:]
    side = (area * ERASED).sqrt()
    stretch = _between(aspect, math.log(2) / 2).exp()
    # Rounded down, and cut where a side is longer than the image: never above the largest area.
    tall = ((side * stretch).clamp(max=1) * height).floor()
    wide = ((side / stretch).clamp(max=1) * width).floor() * (chance < settings.erase)
    first_row = (top * (height - tall + 1)).floor()
    first_column = (left * (width - wide + 1)).floor()
    inside = rectangles(images, first_row, first_row + tall, first_column, first_column + wide)
    return torch.lerp(images, grey.view(-1, 1, 1, 1), inside)


def rectangles(
    images: torch.Tensor,
    top: torch.Tensor,
    bottom: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
) -> torch.Tensor:
    """One rectangle per image as a mask of ones in zeros, ``[N, 1, H, W]`` in the images' dtype.

    `torch.lerp` with such a mask is exact, and on a CPU several times as fast as a boolean one.

    Parameters
    ----------
    images : ``[N, C, H, W]``, for size, dtype and device
    top, bottom, left, right : ``[N]``; first row and column inside, and first ones behind
    """
    height, width = images.shape[-2:]
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    in_rows = (row >= top[:, None]) & (row < bottom[:, None])
    in_columns = (column >= left[:, None]) & (column < right[:, None])
    return in_rows.to(images.dtype)[:, None, :, None] * in_columns.to(images.dtype)[:, None, None]
