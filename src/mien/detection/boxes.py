"""From a detector's box to the crop that the training images show; boxes that users give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.detection.found import Box, cut
from mien.errors import DataError


@dataclass(frozen=True)
class Mapping:
    """How a square crop of FER-2013 lies to a detector's box.

    Attributes
    ----------
    side : of the crop
    right, down : from the middle of the box to that of the crop

    All in units of the box's height, which varies less with the pose of the head than its width.
    """

    side: float
    right: float
    down: float


# Measured by bench/detectors.py on 600 training faces of FER-2013, at twice their size. YuNet's is
# not measured: it learnt boxes from the same pictures as CenterFace (WIDER FACE), and shares its.
MAPPINGS = {
    "cascade": Mapping(1.032, -0.005, 0.0),
    "centerface": Mapping(1.067, 0.006, 0.0),
    "yunet": Mapping(1.067, 0.006, 0.0),
}


def training_box(box: Box, mapping: Mapping, shape: tuple[int, ...]) -> Box:
    """The crop that the training images would show of a face, cut at the picture's border.

    Parameters
    ----------
    box : the detector's, x, y, width and height
    mapping : the detector's
    shape : of the picture, ``(H, W, ...)``
    """
    x, y, width, height = box
    side = mapping.side * height
    left = x + width / 2 + mapping.right * height - side / 2
    top = y + height / 2 + mapping.down * height - side / 2
    return cut((left, top, side, side), shape) or box


def checked(boxes: Any, shape: tuple[int, ...], name: str) -> list[Box]:
    """Boxes ``[n, 4]`` that a user gives, in whole pixels.

    Raises
    ------
    DataError
        for a box that is empty or reaches outside the picture `name` of `shape` ``(H, W, ...)``.
    """
    height, width = shape[:2]
    try:
        given = np.asarray(boxes)
        numbers = given.ndim == 2 and given.dtype.kind in "iuf"
        if given.size and (not numbers or any(isinstance(v, bool) for row in boxes for v in row)):
            raise ValueError("text, or truth, or lists of lists")
        rows = given.astype(np.float64).reshape(len(boxes), 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: boxes [n, 4] must be a list of [x, y, width, height]") from error
    whole = []
    for row in rows:
        shown = ", ".join(f"{value:g}" for value in row)
        if not np.isfinite(row).all():
            raise DataError(f"{name}: box ({shown}) has no place in a picture; give numbers")
        # Edges are rounded, as in `cut`: a place and a length rounded up could leave the picture.
        x, y, right, bottom = (round(value) for value in (row[0], row[1], *(row[:2] + row[2:])))
        w, h = right - x, bottom - y
        if min(w, h) < 1:
            raise DataError(f"{name}: box ({shown}) is empty; give a width and a height")
        if min(x, y) < 0 or x + w > width or y + h > height:
            raise DataError(
                f"{name}: box ({shown}) reaches outside the picture of {width}x{height} pixels; "
                "cut it at the border"
            )
        whole.append((x, y, w, h))
    return whole
