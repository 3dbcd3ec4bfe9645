"""Faces turned upright by the line of their eyes."""

from __future__ import annotations

import math

import cv2
import numpy as np

from mien.detection.found import Box, Eyes

LEAST_TILT = 10.0
"""Degrees. Training faces are tilted up to about this much themselves, and the eyes are not found
more exactly."""


def tilt(eyes: Eyes) -> float:
    """How far the line of the eyes is turned, in degrees, clockwise as seen in the picture."""
    (right_x, right_y), (left_x, left_y) = eyes
    return math.degrees(math.atan2(left_y - right_y, left_x - right_x))


def crop(picture: np.ndarray, box: Box, eyes: Eyes | None = None) -> np.ndarray:
    """What a picture shows in a box, turned about the box's middle so that the eyes are level.

    Parameters
    ----------
    picture : uint8 ``[H, W]`` or ``[H, W, 3]``
    box : x, y, width and height, within the picture
    eyes : None leaves the picture as it is; so do eyes tilted by less than `LEAST_TILT`

    Returns
    -------
    uint8 array ``[height, width]`` or ``[height, width, 3]``. What turns in from outside the
    picture is its reflection.
    """
    x, y, width, height = box
    angle = tilt(eyes) if eyes is not None else 0.0
    if abs(angle) < LEAST_TILT:
        return picture[y : y + height, x : x + width]
    middle = x + (width - 1) / 2, y + (height - 1) / 2
    turn = cv2.getRotationMatrix2D(middle, angle, 1.0)
    turn[:, 2] -= x, y
    return cv2.warpAffine(
        picture, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
