"""What faces are drawn with: smooth outlines, strokes, and the camera that paints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np


class Stroke(NamedTuple):
    """One or several equal shapes in face coordinates, ``[k, n, 2]`` or ``[n, 2]``, in one grey.

    They are filled where `width` is None, and open lines of that width otherwise.
    """

    shapes: np.ndarray
    grey: float
    width: float | None = None


@dataclass(frozen=True)
class Camera:
    """How a face is seen: turns in radians, scale and shift as shares of the picture."""

    roll: float
    yaw: float
    scale: float
    shift: tuple[float, float]

    def paint(self, canvas: np.ndarray, strokes: Sequence[Stroke]) -> None:
        """Draw on a square uint8 canvas, the first stroke undermost."""
        unit = len(canvas) * self.scale
        c, s = np.cos(self.roll), np.sin(self.roll)
        turn = unit * np.array([[c, s], [-s, c]])
        # The middle of a face lies nearer to the camera than its sides, so it moves further:
        # by 1 - x^2. All of it is linear in (x, y, x^2, 1).
        forward = 0.5 * np.sin(self.yaw) * turn[0]
        place = len(canvas) * np.array(self.shift)
        view = np.stack([np.cos(self.yaw) * turn[0], turn[1], -forward, forward + place])
        points = np.concatenate([stroke.shapes.reshape(-1, 2) for stroke in strokes])
        terms = np.column_stack([points, points[:, 0] ** 2, np.ones(len(points))])
        # OpenCV takes fixed point numbers: sixteenths of a pixel, with shift 4.
        pixels = np.rint(16 * (terms @ view)).astype(np.int32)
        start = 0
        for shapes, grey, width in strokes:
            stop = start + shapes.size // 2
            polygons = list(pixels[start:stop].reshape(-1, shapes.shape[-2], 2))
            start = stop
            grey = min(max(grey, 0), 255)
            if width is None:
                cv2.fillPoly(canvas, polygons, grey, cv2.LINE_AA, 4)
            else:
                thickness = max(1, round(width * unit))
                cv2.polylines(canvas, polygons, False, grey, thickness, cv2.LINE_AA, 4)


@lru_cache(maxsize=64)
def _spline(points: int, closed: bool, steps: int = 5) -> np.ndarray:
    """Matrix from control points to a smooth curve through them (Catmull-Rom)."""
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    spans = points if closed else points - 1
    matrix = np.zeros((spans * steps, points))
    for span in range(spans):
        for weights, neighbour in zip(basis, range(span - 1, span + 3), strict=True):
            column = neighbour % points if closed else min(max(neighbour, 0), points - 1)
            matrix[span * steps : (span + 1) * steps, column] += weights
    return matrix if closed else np.vstack([matrix, np.eye(points)[-1]])


def smooth(points: Sequence[tuple[float, float]], closed: bool = False) -> np.ndarray:
    """A smooth curve through points, ``[m, 2]``."""
    return _spline(len(points), closed) @ np.array(points, np.float64)


def symmetric(right: list[tuple[float, float]]) -> np.ndarray:
    """A smooth outline from its right half, top to bottom; points with x = 0 are not doubled."""
    return smooth(right + [(-x, y) for x, y in reversed(right) if x], closed=True)


def pair(shape: np.ndarray) -> np.ndarray:
    """A shape and its mirror image, ``[2, n, 2]``."""
    return shape * _SIDES


_SIDES = np.array([[[1.0, 1.0]], [[-1.0, 1.0]]])
_ANGLES = 2 * np.pi * np.arange(24) / 24
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    """The outline of an ellipse around (x, y) with half axes a and b, ``[24, 2]``."""
    return _CIRCLE * (a, b) + (x, y)
