"""CenterFace, a face detector without anchors, run in ONNX Runtime (Xu and others, 2020)."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from mien.detection.found import Eyes, Found, largest_first, shrunk
from mien.errors import RunError
from mien.runtime import content_of, session

LEAST_SCORE = 0.5
MOST_OVERLAP = 0.3

STRIDE = 4
"""Pixels of the picture that a place of the maps stands for."""

MULTIPLE = 32
"""Sides of the input are multiples of it: the network halves them five times and doubles back."""

# The released file says that it takes 10 images of 32 pixels a side, and ONNX Runtime would hold it
# to that, though no layer needs it. In the file's protocol buffers `\n\x02\x08\x0a` is a dimension
# of 10 and `\n\x02\x12\x00`, as long, one without a name or value, which is free.
FIXED = re.compile(rb"\n\x02\x08\x0a(\n\x02\x08.)(?:\n\x02\x08\x20){2}", re.DOTALL)
FIXED_MAPS = re.compile(rb"\n\x02\x08\x0a(\n\x02\x08.)(?:\n\x02\x08\x08){2}", re.DOTALL)
FREE = b"\n\x02\x12\x00"


class CenterFace:
    """Finds faces and their eyes as peaks of a map (Xu and others, CenterFace, 2020).

    Parameters
    ----------
    model : the ONNX file; `mien fetch detector` brings it
    threads : of ONNX Runtime; 0 takes every core

    Attributes
    ----------
    name : ``"centerface"``

    Raises
    ------
    RunError
        if the file is not there or is not CenterFace.
    """

    name = "centerface"

    def __init__(self, model: Path | str, threads: int = 0) -> None:
        self._opened_from = Path(model).absolute(), threads
        anew = "bring it anew with `mien fetch detector`"
        self._session = session(free_sizes(content_of(model)), str(model), threads, anew)
        maps = [output.shape[1:2] for output in self._session.get_outputs()]
        if maps != [[1], [2], [2], [10]]:
            raise RunError(
                f"{model}: is not CenterFace, which gives a heat map, sizes, offsets and landmarks"
            )
        self._input = self._session.get_inputs()[0].name

    def __reduce__(self) -> tuple[type[CenterFace], tuple[Path, int]]:
        return type(self), self._opened_from

    def __call__(self, picture: np.ndarray) -> list[Found]:
        """The faces of a picture, uint8 ``[H, W]`` or RGB ``[H, W, 3]``, largest first."""
        colour, scale = shrunk(picture, channels=3)
        missing = [-side % MULTIPLE for side in colour.shape[:2]]
        padded = np.pad(colour, ((0, missing[0]), (0, missing[1]), (0, 0)))
        batch = padded.astype(np.float32).transpose(2, 0, 1)[None]
        maps = (found[0] for found in self._session.run(None, {self._input: batch}))
        boxes, scores, eyes = decode(*maps)
        return largest_first(
            (
                (boxes[i] / scale, scores[i], _pair(eyes[i] / scale))
                for i in without_overlap(boxes, scores)
            ),
            picture.shape,
        )


def decode(
    heat: np.ndarray, sizes: np.ndarray, offsets: np.ndarray, landmarks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The faces that the network's maps tell of, in pixels of its input (section 3 of the paper).

    Parameters
    ----------
    heat : ``[1, h, w]``, how surely the middle of a face lies in this place
    sizes : ``[2, h, w]``, logarithms of height and width in places
    offsets : ``[2, h, w]``, from the place to the middle of the face in places, down and right
    landmarks : ``[10, h, w]``, down and right from the box's corner as shares of its height and
        width, of the right eye, the left eye, the nose and the corners of the mouth

    Returns
    -------
    boxes ``[n, 4]`` as x, y, width and height, scores ``[n]``, eyes ``[n, 2, 2]`` as x and y
    """
    rows, columns = np.nonzero(heat[0] >= LEAST_SCORE)
    places = np.stack([rows, columns])
    extent = np.exp(sizes[:, rows, columns].astype(np.float64)) * STRIDE
    centre = (places + offsets[:, rows, columns]) * STRIDE
    corner = centre - extent / 2
    points = landmarks[:4, rows, columns].reshape(2, 2, -1) * extent + corner
    boxes = np.concatenate([corner[::-1], extent[::-1]]).T
    return boxes, heat[0, rows, columns], points[:, ::-1].transpose(2, 0, 1)


def without_overlap(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Greedy suppression: the rows of boxes that overlap no better one, the best first.

    Two boxes ``[n, 4]`` (x, y, width, height) overlap where their intersection is more than
    `MOST_OVERLAP` of their union.
    """
    found = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, MOST_OVERLAP)
    return [int(row) for row in found]


def free_sizes(content: bytes) -> bytes:
    """The released file with inputs and outputs of any number and size; another as it is."""
    for pattern in (FIXED, FIXED_MAPS):
        content = pattern.sub(lambda found: FREE + found[1] + FREE + FREE, content)
    return content


def _pair(eyes: np.ndarray) -> Eyes:
    (a, b), (c, d) = eyes.tolist()
    return (a, b), (c, d)
