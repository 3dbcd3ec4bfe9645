"""A model of expressions in an ONNX file, and what it says of pictures of faces."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.detection import Detector, as_training, crop, tilt
from mien.detection import detector as detector_named
from mien.detection.boxes import checked
from mien.detection.found import Box
from mien.errors import DataError, RunError
from mien.packaged import PACKAGED_BY_VIEWS
from mien.pixels import decode, from_pillow, letterbox, to_channels
from mien.runtime import content_of, session

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = np.ndarray | Image | Path | str | bytes

BATCH = 64


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes
    ----------
    box : x, y, width and height in pixels of the picture: what the model looked at. Of a face that
        a detector found it is the crop that the training images would show, cut at the border.
    label : the class with the largest probability
    probabilities : of each class, summing to 1
    detection : how sure the detector is that this is a face, 0 to 1; None without a detector
    known : False where the largest probability is too small to give an answer
    tilt : how far the face is turned in the picture, in degrees clockwise; the model saw the box
        turned back by it. 0 for a face that is nearly upright, or whose eyes no detector saw.
    """

    box: Box
    label: str
    probabilities: dict[str, float]
    detection: float | None = None
    known: bool = True
    tilt: float = 0.0


@dataclass(frozen=True)
class _Place:
    """Where a face is, and in which picture of those asked for."""

    picture: int
    box: Box
    tilt: float = 0.0
    detection: float | None = None


class Classifier:
    """A model in an ONNX file written by `mien export`.

    Parameters
    ----------
    source : the file, or its bytes
    threads : of ONNX Runtime; 0 takes every core
    detector : finds the faces of a picture; None takes each picture as one face

    It can be pickled, for other processes: they open its file, by its path, anew. Of a model given
    as bytes, the bytes are pickled.

    Attributes
    ----------
    classes : names in the order of the probabilities
    size, channels : of the square images it takes
    metadata : all that the file says of itself, such as its run, recipe, data and temperature
    name : of the run, its precision and its views, or a digest where the file does not say its run
    threshold : the probability below which an answer is not known; 0 where the file has none
    detector : as given

    Raises
    ------
    RunError
        if the file is not there, is no ONNX model, or was not written by `mien export`.
    """

    def __init__(
        self, source: Path | str | bytes, threads: int = 0, detector: Detector | None = None
    ) -> None:
        name = "the model" if isinstance(source, bytes) else str(source)
        content = source if isinstance(source, bytes) else content_of(source)
        self._opened_from = source if isinstance(source, bytes) else Path(source).absolute()
        self._threads = threads
        self._session = session(content, name, threads, "write one with `mien export RUN`")
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        try:
            self.classes = tuple(json.loads(self.metadata["classes"]))
            self.size, self.channels = int(self.metadata["size"]), int(self.metadata["channels"])
            self.threshold = float(self.metadata.get("threshold", 0))
            self._views = int(self.metadata.get("views", 1))
        except (KeyError, ValueError) as error:
            raise RunError(
                f"{name}: does not say its classes and image size ({error}); write it with "
                "`mien export RUN`"
            ) from error
        self.detector = detector
        said = [self.metadata[key] for key in ("run", "precision") if key in self.metadata]
        said += [f"{self._views} views"] if said and self._views > 1 else []
        self.name = " ".join(said) if said else sha256(content).hexdigest()[:12]

    def __reduce__(self) -> tuple[type[Classifier], tuple[Any, ...]]:
        return type(self), (self._opened_from, self._threads, self.detector)

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
        return self._run("probabilities", np.asarray(images), (len(self.classes),))

    def attention(self, images: np.ndarray) -> np.ndarray | None:
        """Where the model looks in square images of its own size: float32 ``[N, h, w]``, 0 to 1.

        None where the file was written without such a map; ``metadata["attention"]`` says what the
        map is. `images` and errors as of `predict_proba`.
        """
        images = np.asarray(images)
        shape = next((o.shape for o in self._session.get_outputs() if o.name == "attention"), None)
        return None if shape is None else self._run("attention", images, tuple(shape[1:]))

    def _run(self, output: str, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """One output for all images, in batches; of none it has the shape ``[0, *shape]``."""
        wanted = (self.size, self.size, *([3] if self.channels == 3 else []))
        if images.dtype != np.uint8 or images.shape[1:] != wanted:
            raise DataError(
                f"images are {images.dtype} {list(images.shape)}, and the model takes uint8 "
                f"[N, {', '.join(map(str, wanted))}]; predict() brings pictures to that size"
            )
        if not len(images):
            return np.zeros((0, *shape), np.float32)
        at_once = max(1, BATCH // self._views)
        parts = [images[first : first + at_once] for first in range(0, len(images), at_once)]
        return np.concatenate([self._session.run([output], {"images": p})[0] for p in parts])

    def predict(
        self,
        images: Picture | Sequence[Picture],
        boxes: Any = None,
        *,
        largest: bool = False,
        min_probability: float | None = None,
    ) -> list[Face] | list[list[Face]]:
        """The expressions of the faces in one picture, or in each of a list of pictures.

        Parameters
        ----------
        images : a picture or a list of them, each a uint8 array ``[H, W]`` or RGB ``[H, W, 3]``, a
            PIL image, a path, or the bytes of a file. An array ``[N, H, W, 3]`` is a list too.
        boxes : the faces of the picture as x, y, width and height in pixels, ``[n, 4]``; a list of
            these for a list of pictures. None has the detector find them, and without a detector
            takes each picture as one face.
        largest : of the faces that the detector finds, take the largest only
        min_probability : the probability from which on a face is `known`; None takes the model's
            own threshold

        Returns
        -------
        list of `Face`
            in the order of the boxes, or the largest first; empty where no face was found. For a
            list of pictures, a list of those lists.

        Raises
        ------
        DataError
            for what is no picture, a box that is empty or reaches outside its picture, another
            number of lists of boxes than of pictures, or what is no probability.
        """
        several = isinstance(images, list | tuple) or (
            isinstance(images, np.ndarray) and images.ndim == 4
        )
        pictures = list(images) if several else [images]  # type: ignore[arg-type]
        boxes = list(boxes) if isinstance(boxes, Iterator) else boxes
        given = boxes if several else [boxes]
        if given is None:
            given = [None] * len(pictures)
        if len(given) != len(pictures):
            raise DataError(
                f"{len(pictures)} pictures and {len(given)} lists of boxes; give one of each, with "
                "an empty list where there is no face"
            )
        least = self.threshold if min_probability is None else min_probability
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise DataError(f"min_probability = {min_probability}: give one from 0 to 1")
        crops, places = [], []
        for number, (picture, own) in enumerate(zip(pictures, given, strict=True)):
            pixels, name = self._pixels(picture, f"picture {number}")
            for place in self._places(number, pixels, name, own, largest):
                face = to_channels(crop(pixels, place.box, place.tilt), self.channels)
                crops.append(letterbox(face, self.size))
                places.append(place)
        found: list[list[Face]] = [[] for _ in pictures]
        if crops:
            for place, row in zip(places, self.predict_proba(np.stack(crops)), strict=True):
                best = int(row.argmax())
                found[place.picture].append(
                    Face(
                        place.box,
                        self.classes[best],
                        dict(zip(self.classes, map(float, row), strict=True)),
                        place.detection,
                        bool(row[best] >= least),
                        place.tilt,
                    )
                )
        return found if several else found[0]

    def _places(
        self, number: int, pixels: np.ndarray, name: str, boxes: Any, largest: bool
    ) -> list[_Place]:
        """Where the faces of a picture are."""
        if boxes is not None:
            return [_Place(number, box) for box in checked(boxes, pixels.shape, name)]
        if self.detector is None:
            return [_Place(number, (0, 0, pixels.shape[1], pixels.shape[0]))]
        found = as_training(pixels, self.detector)[: 1 if largest else None]
        return [_Place(number, face.box, tilt(face.eyes), face.score) for face in found]

    def _pixels(self, picture: Any, name: str) -> tuple[np.ndarray, str]:
        """A picture as an array, and what messages call it."""
        if isinstance(picture, str | Path):
            return decode(Path(picture), str(picture)), str(picture)
        if isinstance(picture, bytes):
            return decode(picture, name), name
        if isinstance(picture, np.ndarray):
            colours = picture.shape[2:] in ((), (3,)) and picture.ndim in (2, 3)
            if picture.dtype != np.uint8 or not colours or 0 in picture.shape:
                raise DataError(
                    f"{name}: is {picture.dtype} {list(picture.shape)}; give uint8 [H, W] or RGB "
                    "[H, W, 3]"
                )
            return picture, name
        if hasattr(picture, "getexif"):
            if 0 in picture.size:
                raise DataError(f"{name}: is an image of {picture.width}x{picture.height} pixels")
            try:
                return from_pillow(picture), name
            except (OSError, ValueError, SyntaxError) as error:  # it is decoded only now
                raise DataError(f"{name}: is truncated or damaged ({error})") from error
        raise DataError(
            f"{name}: is a {type(picture).__name__}; give an array, a PIL image, a path or bytes"
        )


def load(
    source: Path | str | bytes | None = None,
    *,
    detector: str | Detector = "auto",
    threads: int = 0,
    views: int | None = None,
) -> Classifier:
    """Load a model of expressions; without a source, the one that comes in the package.

    Parameters
    ----------
    source : an ONNX file of `mien export`, or its bytes; the folder of a finished run, which is
        exported into memory (needs ``mien[train]``); or ``"packaged"``, as None
    detector : what finds faces in pictures: the name of a detector, a detector itself (such as
        ``mien.detection.detector("yunet", "yunet.onnx")``), or ``"none"`` where every picture is a
        crop of one face. ``"auto"`` takes the best that is there; ``load().detector.name`` says
        which it was.
    threads : of ONNX Runtime; 0 takes every core
    views : of each face that the packaged model averages: 2, its default; or 1 by a
        smaller network, which is far faster and less accurate. Another file says itself how many.

    Raises
    ------
    RunError, DataError
        if the model or the detector is not there or cannot be used, or there are no such views.

    Example: ``mien.load().predict("photo.jpg")``
    """
    if not isinstance(source, bytes) and str(source) == "packaged":
        source = None
    if source and views is not None:
        name = "of these bytes" if isinstance(source, bytes) else source
        raise DataError(
            f"views = {views}: the model {name} has its own; `mien export --views` sets them"
        )
    packaged = PACKAGED_BY_VIEWS.get(2 if views is None else views)
    if packaged is None:
        raise DataError(f"views = {views}: the packaged model has 2 or 1")
    finds = None if detector == "none" else detector
    if isinstance(finds, str):
        finds = detector_named(finds, threads=threads)
    source = source or packaged
    if not isinstance(source, bytes) and Path(source).is_dir():
        source = _exported(Path(source))
    return Classifier(source, threads, finds)


def _exported(run: Path) -> bytes:
    """The ONNX file of a finished run."""
    from mien.runs.run import Run

    finished = Run.open(run)
    try:
        # By name, since it is on a higher floor: this room needs neither it nor torch for files.
        export_onnx = import_module("mien.export").export_onnx
    except ModuleNotFoundError as error:
        raise RunError(
            f"{run}: a run folder is exported with PyTorch, which is not installed ({error.name}); "
            "install mien[train], or give the ONNX file of `mien export`"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(finished, Path(folder) / "model.onnx")
        return (Path(folder) / "model.onnx").read_bytes()
