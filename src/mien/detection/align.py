"""Faces turned upright by the line of their eyes."""

from __future__ import annotations

import math

import cv2
import numpy as np

from mien.detection.found import Box, Eyes

LEAST_TILT = 10.0
"""Degrees. Training faces are tilted up to about this much themselves, and the eyes are not found
more exactly."""


def tilt(eyes: Eyes | None) -> float:
    """How far the line of the eyes is turned, in degrees, clockwise as seen in the picture.

    0 where it is turned by less than `LEAST_TILT`, or nobody says where the eyes are.
    """
    if eyes is None:
        return 0.0
    (right_x, right_y), (left_x, left_y) = eyes
    angle = math.degrees(math.atan2(left_y - right_y, left_x - right_x))
    return angle if abs(angle) >= LEAST_TILT else 0.0


def crop(picture: np.ndarray, box: Box, angle: float = 0.0) -> np.ndarray:
    """What a picture shows in a box, turned about the box's middle so that the face is upright.

    Parameters
    ----------
    picture : uint8 ``[H, W]`` or ``[H, W, 3]``
    box : x, y, width and height, within the picture
    angle : of the face in the picture, as `tilt` gives it

    Returns
    -------
    uint8 array ``[height, width]`` or ``[height, width, 3]``. What turns in from outside the
    picture is its reflection.
    """
    x, y, width, height = box
    if not angle:
        return picture[y : y + height, x : x + width]
    # Only what a turned box can reach: OpenCV turns no picture of 32,767 pixels a side or more.
    reach = math.ceil(math.hypot(width, height) / 2) + 2
    left, top = max(0, x + width // 2 - reach), max(0, y + height // 2 - reach)
    picture = picture[top : y + height // 2 + reach, left : x + width // 2 + reach]
    x, y = x - left, y - top
    middle = x + (width - 1) / 2, y + (height - 1) / 2
    turn = cv2.getRotationMatrix2D(middle, angle, 1.0)
    turn[:, 2] -= x, y
    return cv2.warpAffine(
        picture, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
