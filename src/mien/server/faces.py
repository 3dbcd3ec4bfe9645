"""What is done with a batch of pictures: faces found, their expressions, where the model looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.detection import crop
from mien.detection.found import Box
from mien.inference import Classifier
from mien.inference.rows import as_json
from mien.pixels import letterbox, to_channels


@dataclass(frozen=True)
class Picture:
    """A decoded picture, the faces the client knows of, and whether maps are wanted."""

    pixels: np.ndarray
    boxes: Sequence[Box] | None
    attention: bool


Seen = list[dict[str, Any]]
"""The faces of a picture as `mien.server.answers.FaceFound` has them."""


def looker(classifier: Classifier) -> Callable[[Sequence[Picture]], list[Seen]]:
    """A function from a batch of pictures to the faces in each."""

    def look(pictures: Sequence[Picture]) -> list[Seen]:
        found: Any = classifier.predict(
            [picture.pixels for picture in pictures], [picture.boxes for picture in pictures]
        )
        seen = [[as_json(face) | {"attention": None} for face in faces] for faces in found]
        crops, wanted = [], []
        for picture, faces in zip(pictures, seen, strict=True):
            for face in faces if picture.attention else ():
                pixels = crop(picture.pixels, face["box"], face["tilt"])
                crops.append(letterbox(to_channels(pixels, classifier.channels), classifier.size))
                wanted.append(face)
        if crops and (weights := classifier.attention(np.stack(crops))) is not None:
            for face, one in zip(wanted, weights, strict=True):
                x, y, width, height = face["box"]
                side = max(width, height)  # letterbox pads the shorter side
                square = (x - (side - width) / 2, y - (side - height) / 2, side, side)
                rows = one.astype(float).round(3).tolist()
                face["attention"] = {"box": square, "tilt": face["tilt"], "map": rows}
        return seen

    return look
