"""What a detector finds, and what a detector is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from mien.pixels import to_channels

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels."""

Eyes = tuple[tuple[float, float], tuple[float, float]]
"""The person's right eye, then the left, each x and y in pixels."""

LONGEST = 960
"""Pixels a side that larger pictures are shrunk to for detection. A face too small to be found then
had hardly enough pixels for an expression before."""


@dataclass(frozen=True)
class Found:
    """A face that a detector found.

    Attributes
    ----------
    box : x, y, width and height in pixels of the picture, cut at its border
    score : 0 to 1; the cascade has none and says 1
    eyes : the person's right eye, then the left, each x and y in pixels; None where the detector
        does not say
    """

    box: Box
    score: float
    eyes: Eyes | None


class Detector(Protocol):
    """Finds the faces of a picture, uint8 ``[H, W]`` or RGB ``[H, W, 3]``, the largest first."""

    name: str

    def __call__(self, picture: np.ndarray) -> list[Found]: ...


def shrunk(picture: np.ndarray, channels: int) -> tuple[np.ndarray, float]:
    """The picture in 1 or 3 channels with at most `LONGEST` pixels a side, and its scale."""
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return to_channels(picture, channels), scale


def cut(box: Iterable[float], shape: tuple[int, ...]) -> Box | None:
    """A box in whole pixels, cut at the border of a picture ``[H, W, ...]``; None if all is cut."""
    x, y, width, height = box
    left, right = (round(min(max(edge, 0), shape[1])) for edge in (x, x + width))
    top, bottom = (round(min(max(edge, 0), shape[0])) for edge in (y, y + height))
    if right <= left or bottom <= top:
        return None
    return left, top, right - left, bottom - top


def largest_first(
    rows: Iterable[tuple[Iterable[float], float, Eyes | None]], shape: tuple[int, ...]
) -> list[Found]:
    """Boxes, scores and eyes as faces of a picture ``[H, W, ...]``, the largest first."""
    faces = [
        Found(box, float(score), eyes)
        for raw, score, eyes in rows
        if (box := cut(raw, shape)) is not None
    ]
    return sorted(faces, key=lambda face: (-face.box[2] * face.box[3], face.box))
