"""What a model says of any number of pictures, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from mien.errors import DataError
from mien.inference.classifier import BATCH, Classifier, Face
from mien.inference.pictures import BYTES, Picture, decoded


@dataclass(frozen=True)
class Answer:
    """The faces of a picture.

    Attributes
    ----------
    picture : its name and where it is
    pixels : uint8 ``[H, W]`` or RGB ``[H, W, 3]``
    faces : the largest first; empty where none was found
    """

    picture: Picture
    pixels: np.ndarray
    faces: list[Face]


def answers(
    pictures: Iterable[Picture],
    classifier: Classifier,
    *,
    largest: bool = False,
    min_probability: float | None = None,
    unreadable: Callable[[DataError], object] | None = None,
) -> Iterator[Answer]:
    """The faces of each picture in order, decoded in threads while the networks work.

    Parameters
    ----------
    pictures : as `mien.inference.pictures.listed` gives them; what is held in memory does not grow
        with their number
    largest, min_probability : as of `Classifier.predict`
    unreadable : told of each picture that cannot be read, which is then left out; None raises the
        error, after the answers to the pictures before it

    Raises
    ------
    DataError
        if a picture cannot be read and `unreadable` is None.
    """
    batch: list[tuple[Picture, np.ndarray]] = []

    def answered() -> Iterator[Answer]:
        images = [pixels for _, pixels in batch]
        found = cast(
            list[list[Face]],
            classifier.predict(images, largest=largest, min_probability=min_probability),
        )
        for (picture, pixels), faces in zip(batch, found, strict=True):
            yield Answer(picture, pixels, faces)
        batch.clear()

    for picture, pixels in decoded(pictures):
        if isinstance(pixels, DataError):
            if unreadable is None:
                yield from answered()
                raise pixels
            unreadable(pixels)
            continue
        batch.append((picture, pixels))
        if len(batch) == BATCH or sum(image.nbytes for _, image in batch) > BYTES:
            yield from answered()
    yield from answered()
