"""Whether an exported file gives what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mien.errors import RunError
from mien.export.source import Source
from mien.export.temperature import soften
from mien.training.predict import predict_probabilities

TOLERANCE = 1e-4
"""The largest difference of a probability that fp32 may show."""

SAME_LABELS = 0.99
"""The smallest share of equal labels that all but fp32 may show."""

ACCURACY_LOST = 0.003
"""The most accuracy that they may lose on the images of the data set."""


@dataclass(frozen=True)
class Parity:
    """How far a file is from its run, or from the file it was made from, on `images` images.

    `largest_difference` is that of a probability, `same_labels` a share; `accuracy` and
    `accuracy_of_run` are None on drawn faces and where there are no labels.
    """

    images: int
    largest_difference: float
    same_labels: float
    accuracy: float | None
    accuracy_of_run: float | None

    @property
    def accuracy_lost(self) -> float:
        return (self.accuracy_of_run or 0.0) - (self.accuracy or 0.0)

    def reason(self, precision: str) -> str | None:
        """Why a file of this precision is refused; None if it is not."""
        if precision == "fp32":
            near = self.largest_difference <= TOLERANCE
        else:
            near = self.same_labels >= SAME_LABELS and self.accuracy_lost <= ACCURACY_LOST
        if near:
            return None
        lost = ""
        if self.accuracy is not None:
            lost = f", {100 * self.accuracy_lost:+.2f} points of accuracy are lost"
        return (
            f"its probabilities differ by up to {self.largest_difference:.2g}, "
            f"{100 * self.same_labels:.2f} % of its labels are the same{lost} on "
            f"{self.images:,} images"
        )


def parity(source: Source, predict_proba: Callable[[np.ndarray], np.ndarray]) -> Parity:
    """Compare what a file says of the source's images with what its run says."""
    faces = source.checked
    expected = soften(
        predict_probabilities(source.runs, faces, views=source.views), source.temperature
    )
    labels = faces.labels if source.real else None
    return parity_of(expected, predict_proba(faces.images), labels)


def parity_of(expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> Parity:
    """Compare probabilities ``[N, C]``; `labels` are -1 where unknown, None of drawn faces."""
    ours, theirs = found.argmax(1), expected.argmax(1)
    accuracies: tuple[float | None, float | None] = (None, None)
    if labels is not None and (known := labels >= 0).any():
        right = [float((called == labels)[known].mean()) for called in (ours, theirs)]
        accuracies = right[0], right[1]
    largest, same = np.abs(found - expected).max(), (ours == theirs).mean()
    return Parity(len(found), float(largest), float(same), *accuracies)


def check(source: Source, precision: str, found: Parity) -> dict[str, Any]:
    """What was checked and calibrated, as plain values, unless `refuse` has something to say."""
    refuse(source.name, precision, found)
    calibration = source.calibration and source.calibration.to_dict()
    return asdict(found) | {"temperature": source.temperature, "calibration": calibration}


def refuse(name: str, precision: str, found: Parity) -> None:
    """Refuse a file that differs too much from `name`, which it was made from.

    Raises
    ------
    RunError
        with what differs.
    """
    if reason := found.reason(precision):
        raise RunError(
            f"{name}: as {precision} {reason}, which is too far; nothing was written. "
            + ("Please report this" if precision == "fp32" else "Export it as fp32")
        )
