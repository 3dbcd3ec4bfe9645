"""YuNet, a small face detector that OpenCV runs (Wu and others, YuNet, 2023)."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np

from mien.detection.found import Found, largest_first, shrunk
from mien.errors import RunError

LEAST_SCORE = 0.7
MOST_OVERLAP = 0.3


class YuNet:
    """Finds faces and their eyes with `cv2.FaceDetectorYN`.

    Parameters
    ----------
    model : the ONNX file, such as ``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo

    Attributes
    ----------
    name : ``"yunet"``

    Raises
    ------
    RunError
        if the file is not there or is not YuNet.
    """

    name = "yunet"

    def __init__(self, model: Path | str) -> None:
        if not Path(model).is_file():
            raise RunError(f"{model}: there is no such file; check the path of the detector")
        self._opened_from = Path(model).absolute()
        self._alone = threading.Lock()  # the size of the input is a state of the detector
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(model), "", (64, 64), LEAST_SCORE, MOST_OVERLAP
            )
            self(np.zeros((64, 64), np.uint8))
        except cv2.error as error:
            raise RunError(
                f"{model}: is not YuNet's ONNX file, or is of a version that OpenCV "
                f"{cv2.__version__} cannot read ({error.err})"
            ) from error

    def __reduce__(self) -> tuple[type[YuNet], tuple[Path]]:
        return type(self), (self._opened_from,)

    def __call__(self, picture: np.ndarray) -> list[Found]:
        """The faces of a picture, uint8 ``[H, W]`` or RGB ``[H, W, 3]``, largest first."""
        colour, scale = shrunk(picture, channels=3)
        with self._alone:
            self._detector.setInputSize((colour.shape[1], colour.shape[0]))
            _, rows = self._detector.detect(cv2.cvtColor(colour, cv2.COLOR_RGB2BGR))
        # A row: box, right eye, left eye, nose, corners of the mouth, score.
        points = [] if rows is None else np.asarray(rows, np.float64)
        return largest_first(
            (
                (
                    row[:4] / scale,
                    row[14],
                    (
                        (float(row[4] / scale), float(row[5] / scale)),
                        (float(row[6] / scale), float(row[7] / scale)),
                    ),
                )
                for row in points
            ),
            picture.shape,
        )
