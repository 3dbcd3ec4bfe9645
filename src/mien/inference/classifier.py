"""A model of expressions in an ONNX file, and what it says of pictures of faces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import DataError, RunError
from mien.pixels import decode, from_pillow, letterbox, to_channels

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = np.ndarray | Image | Path | str | bytes

PACKAGED = Path(__file__).parent / "fer2013.onnx"
"""The model that comes in the package; its card lies beside it."""

BATCH = 64


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes
    ----------
    box : x, y, width and height in pixels of the picture
    label : the class with the largest probability
    probabilities : of each class, summing to 1
    """

    box: tuple[int, int, int, int]
    label: str
    probabilities: dict[str, float]


class Classifier:
    """A model in an ONNX file written by `mien export`.

    Parameters
    ----------
    source : the file, or its bytes
    threads : of ONNX Runtime; 0 takes every core

    Attributes
    ----------
    classes : names in the order of the probabilities
    size, channels : of the square images it takes
    metadata : all that the file says of itself, such as its run, recipe, data and temperature

    Raises
    ------
    RunError
        if the file is not there, is no ONNX model, or was not written by `mien export`.
    """

    def __init__(self, source: Path | str | bytes, threads: int = 0) -> None:
        import onnxruntime

        name = "the model" if isinstance(source, bytes) else str(source)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise RunError(f"{name}: {error.strerror or error}; check the path") from error
        except Exception as error:  # ONNX Runtime raises kinds of its own
            raise RunError(
                f"{name}: is no ONNX model, or is damaged; write one with `mien export RUN`"
            ) from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        try:
            self.classes = tuple(json.loads(self.metadata["classes"]))
            self.size, self.channels = int(self.metadata["size"]), int(self.metadata["channels"])
        except (KeyError, ValueError) as error:
            raise RunError(
                f"{name}: does not say its classes and image size ({error}); write it with "
                "`mien export RUN`"
            ) from error

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 ``[N, C]``, of square images of the model's own size.

        Parameters
        ----------
        images : uint8 ``[N, S, S]`` for one channel, ``[N, S, S, 3]`` for three

        Raises
        ------
        DataError
            for images of another kind or shape.
        """
        wanted = (self.size, self.size, *([3] if self.channels == 3 else []))
        if images.dtype != np.uint8 or images.shape[1:] != wanted:
            raise DataError(
                f"images are {images.dtype} {list(images.shape)}, and the model takes uint8 "
                f"[N, {', '.join(map(str, wanted))}]; predict() brings pictures to that size"
            )
        parts = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
        found = [self._session.run(["probabilities"], {"images": part})[0] for part in parts]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *found])

    def predict(
        self, images: Picture | Sequence[Picture], boxes: Any = None
    ) -> list[Face] | list[list[Face]]:
        """The expressions of faces in one picture, or in each of a list of pictures.

        Parameters
        ----------
        images : a picture or a list of them, each a uint8 array ``[H, W]`` or RGB ``[H, W, 3]``, a
            PIL image, a path, or the bytes of a file. An array ``[N, H, W, 3]`` is a list too.
        boxes : the faces of the picture as x, y, width and height in pixels, ``[n, 4]``; a list of
            these for a list of pictures. None takes each picture as one face.

        Returns
        -------
        list of `Face`
            in the order of the boxes; for a list of pictures, a list of those lists.

        Raises
        ------
        DataError
            for what is no picture, a box that is empty or reaches outside its picture, or another
            number of lists of boxes than of pictures.
        """
        several = isinstance(images, list | tuple) or (
            isinstance(images, np.ndarray) and images.ndim == 4
        )
        pictures = list(images) if several else [images]  # type: ignore[arg-type]
        given = boxes if several else [boxes]
        if given is None:
            given = [None] * len(pictures)
        if len(given) != len(pictures):
            raise DataError(
                f"{len(pictures)} pictures and {len(given)} lists of boxes; give one of each, with "
                "an empty list where there is no face"
            )
        crops, places = [], []
        for number, (picture, own) in enumerate(zip(pictures, given, strict=True)):
            pixels, name = self._pixels(picture, f"picture {number}")
            for box in _checked(own, pixels, name):
                x, y, width, height = box
                crops.append(letterbox(pixels[y : y + height, x : x + width], self.size))
                places.append((number, box))
        found: list[list[Face]] = [[] for _ in pictures]
        if crops:
            for (number, box), row in zip(places, self.predict_proba(np.stack(crops)), strict=True):
                chances = dict(zip(self.classes, map(float, row), strict=True))
                found[number].append(Face(box, self.classes[int(row.argmax())], chances))
        return found if several else found[0]

    def _pixels(self, picture: Any, name: str) -> tuple[np.ndarray, str]:
        """A picture as an array of the model's channels, and what messages call it."""
        if isinstance(picture, str | Path):
            return decode(Path(picture), str(picture), self.channels), str(picture)
        if isinstance(picture, bytes):
            return decode(picture, name, self.channels), name
        if isinstance(picture, np.ndarray):
            colours = picture.shape[2:] in ((), (3,)) and picture.ndim in (2, 3)
            if picture.dtype != np.uint8 or not colours or 0 in picture.shape:
                raise DataError(
                    f"{name}: is {picture.dtype} {list(picture.shape)}; give uint8 [H, W] or RGB "
                    "[H, W, 3]"
                )
            return to_channels(picture, self.channels), name
        if hasattr(picture, "getexif"):
            return to_channels(from_pillow(picture), self.channels), name
        raise DataError(
            f"{name}: is a {type(picture).__name__}; give an array, a PIL image, a path or bytes"
        )


def _checked(boxes: Any, pixels: np.ndarray, name: str) -> list[tuple[int, int, int, int]]:
    """Boxes as whole numbers within the picture; all of it where none are given."""
    height, width = pixels.shape[:2]
    if boxes is None:
        return [(0, 0, width, height)]
    try:
        rows = np.asarray(boxes, np.float64).reshape(len(boxes), 4)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: boxes must be [n, 4]: x, y, width, height") from error
    whole = []
    for row in rows:
        shown = ", ".join(f"{value:g}" for value in row)
        if not np.isfinite(row).all():
            raise DataError(f"{name}: box ({shown}) has no place in a picture")
        x, y, w, h = (round(value) for value in row)
        if min(w, h) < 1:
            raise DataError(f"{name}: box ({shown}) is empty")
        if min(x, y) < 0 or x + w > width or y + h > height:
            raise DataError(
                f"{name}: box ({shown}) reaches outside the picture of {width}x{height} pixels; "
                "cut it at the border"
            )
        whole.append((x, y, w, h))
    return whole


def load(source: Path | str | None = None, *, threads: int = 0) -> Classifier:
    """Load a model of expressions; without a file, the one that comes in the package.

    Example: ``mien.load().predict("face.jpg")``
    """
    return Classifier(source or PACKAGED, threads)
