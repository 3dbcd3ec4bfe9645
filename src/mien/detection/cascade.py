"""OpenCV's cascade of frontal faces, which comes with OpenCV 4: the floor that is always there."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np

from mien.detection.found import Found, largest_first, shrunk
from mien.errors import RunError

FILE = "haarcascade_frontalface_alt2.xml"

SMALLEST = 24
"""Pixels a side; the cascade was trained on 20, where it takes much for a face that is none."""


class Cascade:
    """Finds upright frontal faces with boosted Haar features (Viola and Jones, CVPR 2001).

    Attributes
    ----------
    name : ``"cascade"``

    Raises
    ------
    RunError
        if OpenCV has no cascades (version 5 has none).
    """

    name = "cascade"

    def __init__(self) -> None:
        try:
            self._cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / FILE))  # type: ignore[attr-defined]
        except AttributeError as error:
            raise RunError(
                f"OpenCV {cv2.__version__} has no cascades; install "
                "'opencv-python-headless>=4.10,<5', or bring a better detector with "
                "`mien fetch detector`"
            ) from error
        self._alone = threading.Lock()  # the classifier keeps its buffers between calls

    def __reduce__(self) -> tuple[type[Cascade], tuple[()]]:
        return type(self), ()

    def __call__(self, picture: np.ndarray) -> list[Found]:
        """The faces of a picture, uint8 ``[H, W]`` or RGB ``[H, W, 3]``, largest first."""
        grey, scale = shrunk(picture, channels=1)
        with self._alone:
            boxes = self._cascade.detectMultiScale(
                cv2.equalizeHist(grey),
                scaleFactor=1.1,
                minNeighbors=3,
                minSize=(SMALLEST, SMALLEST),
            )
        rows = ((np.asarray(box) / scale, 1.0, None) for box in boxes)
        return largest_first(rows, picture.shape)
