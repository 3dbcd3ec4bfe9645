"""Finding faces in pictures, and bringing them to what the training images show. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mien.detection.align import crop, tilt
from mien.detection.boxes import MAPPINGS, Mapping, training_box
from mien.detection.fetch import place
from mien.detection.found import Detector, Found
from mien.errors import DataError

__all__ = [
    "DETECTORS",
    "MAPPINGS",
    "Detector",
    "Found",
    "Mapping",
    "as_training",
    "crop",
    "detector",
    "tilt",
    "training_box",
]

DETECTORS = ("auto", "centerface", "yunet", "cascade")


def as_training(picture: np.ndarray, finds: Detector) -> list[Found]:
    """The faces of a picture, the largest first, in the boxes that training images would show.

    Those of a detector of the user's own, which has none of `MAPPINGS`, are left as they are.
    """
    mapping = MAPPINGS.get(finds.name)
    if mapping is None:
        return finds(picture)
    return [
        replace(face, box=training_box(face.box, mapping, picture.shape)) for face in finds(picture)
    ]


def detector(name: str = "auto", model: Path | str | None = None, *, threads: int = 0) -> Detector:
    """Load a face detector: a function of a picture that gives its faces, the largest first.

    Parameters
    ----------
    name : ``"centerface"``, ``"yunet"`` or ``"cascade"``; ``"auto"`` takes the first of them that
        is there, and the attribute `name` of what is returned says which it was
    model : the ONNX file of CenterFace or YuNet; by default the one in the cache, where
        `mien fetch detector` brings CenterFace
    threads : of ONNX Runtime, which runs CenterFace; 0 takes every core

    Raises
    ------
    DataError
        for an unknown name, a file that no detector was named for, or none in the cache.
    RunError
        if a file that was given is not there, or one is of another kind.
    """
    if name not in DETECTORS:
        raise DataError(
            f"there is no detector '{name}'; choose of {', '.join(DETECTORS)}, or none where each "
            "picture is a crop of a face"
        )
    if model is not None and name in ("auto", "cascade"):
        raise DataError(
            f"{model}: say whose file this is with detector 'centerface' or 'yunet', not '{name}'"
        )
    if name == "auto":
        files = (kind for kind in ("centerface", "yunet") if place(kind).is_file())
        name = next(files, "cascade")
    if name == "cascade":
        from mien.detection.cascade import Cascade

        return Cascade()
    path = Path(model) if model is not None else place(name)
    if name == "yunet":
        from mien.detection.yunet import YuNet

        if model is None and not path.is_file():
            raise DataError(
                f"YuNet's file is not in this package: put it at {path}, or give it with "
                "--detector-model FILE (`mien predict`) or as detector('yunet', FILE)"
            )
        return YuNet(path)
    from mien.detection.centerface import CenterFace

    if model is None and not path.is_file():
        raise DataError(
            "CenterFace's file is not here yet: bring it with `mien fetch detector`, put it at "
            f"{path}, or give it with --detector-model FILE (`mien predict`)"
        )
    return CenterFace(path, threads)
