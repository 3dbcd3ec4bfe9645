"""Which face of one frame is which of the frames before, and its probabilities over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mien.detection.found import Box
from mien.errors import DataError
from mien.inference.classifier import Face

OVERLAP = 0.3
"""Least intersection over union with its last box at which a face is taken for the same one."""

LOST = 1.0
"""Seconds without a face after which its track ends."""


@dataclass(frozen=True)
class Tracked:
    """A face of a frame, and the number of the track it belongs to, from 1 on."""

    track: int
    face: Face


@dataclass
class _Track:
    box: Box
    probabilities: np.ndarray
    seen: float


class Tracks:
    """Links the faces of successive frames by the overlap of their boxes.

    The pair of largest overlap is linked first (greedily), and each track to one face at most. A
    track is a place that a face moves on from, not a person: who leaves the picture and comes back
    later has a new number, and at a cut another face may take over an old one.

    Parameters
    ----------
    smooth : time constant in seconds of an exponential mean of each track's probabilities; 0
        leaves each frame's as they are
    least : the mean probability from which on a smoothed face is `known`

    Raises
    ------
    DataError
        if `smooth` is negative or no number.

    Notes
    -----
    After ``dt`` seconds a new answer weighs ``1 - exp(-dt / smooth)``, so the mean is the same at
    any frame rate and with frames left out.
    """

    def __init__(self, smooth: float = 0.0, least: float = 0.0) -> None:
        if not (np.isfinite(smooth) and smooth >= 0):
            raise DataError(f"smoothing over {smooth} seconds is not possible; give 0 or more")
        self._smooth, self._least = smooth, least
        self._open: dict[int, _Track] = {}
        self.count = 0

    def follow(self, faces: Sequence[Face], time: float) -> list[Tracked]:
        """The faces of the frame at `time`, in their order, each with its track."""
        numbers = self._link([face.box for face in faces])
        followed = []
        for number, face in zip(numbers, faces, strict=True):
            chances = np.array(list(face.probabilities.values()))
            if self._smooth and number in self._open:
                track = self._open[number]
                weight = -np.expm1(-(time - track.seen) / self._smooth)
                chances = track.probabilities + weight * (chances - track.probabilities)
                names, best = list(face.probabilities), int(chances.argmax())
                face = replace(
                    face,
                    label=names[best],
                    probabilities=dict(zip(names, map(float, chances), strict=True)),
                    known=bool(chances[best] >= self._least),
                )
            self._open[number] = _Track(face.box, chances, time)
            followed.append(Tracked(number, face))
        # One that was missed is given up only now: frames may lie further apart than LOST.
        self._open = {
            number: track for number, track in self._open.items() if time - track.seen <= LOST
        }
        return followed

    def _link(self, boxes: Sequence[Box]) -> list[int]:
        """The number of each box's track, a new one where none overlaps enough."""
        numbers, known = [0] * len(boxes), list(self._open)
        shared = overlaps([self._open[number].box for number in known], boxes)
        for pair in np.argsort(-shared, axis=None, kind="stable"):
            old, new = divmod(int(pair), len(boxes))
            if shared[old, new] < OVERLAP:
                break
            if not numbers[new] and known[old] not in numbers:
                numbers[new] = known[old]
        for new, number in enumerate(numbers):
            if not number:
                self.count += 1
                numbers[new] = self.count
        return numbers


def overlaps(some: Sequence[Box], others: Sequence[Box]) -> np.ndarray:
    """Intersection over union of each of n boxes with each of m, float ``[n, m]``.

    Boxes are x, y, width and height.
    """
    a = np.array(some, float).reshape(-1, 1, 4)
    b = np.array(others, float).reshape(1, -1, 4)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    return common / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common)
