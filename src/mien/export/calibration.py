"""What a model's probabilities are worth, and from which on it should answer: by cross-fitting.

A temperature or a threshold looks better on the images it was fitted on than it is. So both are
fitted on all folds but one, measured on that one, in turn; what is kept is fitted on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mien.errors import DataError
from mien.export.temperature import fit_temperature, soften
from mien.metrics import calibration_error, wilson_interval

FOLDS = 5


@dataclass(frozen=True)
class Threshold:
    """From which probability on a model answers.

    Attributes
    ----------
    value : the smallest probability of the predicted class that is an answer
    wanted : what was asked for, such as ``{"accuracy": 0.9}``
    coverage : share of the images that get an answer, in folds the threshold was not fitted on
    accuracy, interval : share of these answers that are right there, and its 95 % interval
    """

    value: float
    wanted: dict[str, float]
    coverage: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """What the probabilities are worth.

    Attributes
    ----------
    images, folds : how many there were
    temperature : fitted on all images; 1 where none helps
    error_before, error_after : expected calibration error without a temperature, and with one that
        was fitted on the other folds
    threshold : None where none was asked for
    """

    images: int
    folds: int
    temperature: float
    error_before: float
    error_after: float
    threshold: Threshold | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def calibrate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    accuracy: float | None = None,
    coverage: float | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> Calibration:
    """Fit a temperature, and a threshold where one is wanted; measure both by cross-fitting.

    The temperature is 1 where one that is fitted on the other folds makes the labels of a fold less
    likely, as it may on few images.

    Parameters
    ----------
    probabilities : ``[N, C]`` that a model gives to images it was not trained on
    labels : int ``[N]``
    groups : int ``[N]``; images of one group, such as copies, are in one fold
    accuracy, coverage : the share of answers that is to be right, or of images that are to be
        answered; one of them or neither
    folds, seed : into how many folds the groups are dealt, and how

    Raises
    ------
    DataError
        for both wishes at once, one outside (0, 1), fewer groups than folds, or an accuracy that no
        threshold reaches.
    """
    wanted = {
        name: value
        for name, value in (("accuracy", accuracy), ("coverage", coverage))
        if value is not None
    }
    if len(wanted) > 1:
        raise DataError("a threshold gives an accuracy or a coverage: ask for one of them")
    for name, value in wanted.items():
        if not 0 < value < 1:
            raise DataError(f"{name} {value:g} is no share of images; give one between 0 and 1")
    found, inverse = np.unique(groups, return_inverse=True)
    if len(found) < folds:
        raise DataError(
            f"{len(found)} distinct labelled images are too few to calibrate on in {folds} folds; "
            "train with a larger validation split"
        )
    fold = (np.random.default_rng(seed).permutation(len(found)) % folds)[inverse]
    parts = [fold == number for number in range(folds)]
    temperatures = [fit_temperature(probabilities[~out], labels[~out]) for out in parts]
    temperature = fit_temperature(probabilities, labels)
    softened = _by_parts(probabilities, parts, temperatures)
    if _loss(softened, labels) >= _loss(probabilities, labels):
        temperature, temperatures = 1.0, [1.0] * folds
        softened = _by_parts(probabilities, parts, temperatures)
    answered = np.zeros(len(labels), bool)
    for out, one in zip(parts, temperatures, strict=True):
        if wanted:
            others = soften(probabilities[~out], one)
            answered[out] = softened[out].max(1) >= threshold_for(others, labels[~out], **wanted)
    threshold = None
    if wanted:
        value = threshold_for(soften(probabilities, temperature), labels, **wanted)
        right, n = int((softened.argmax(1) == labels)[answered].sum()), int(answered.sum())
        if not n or value == float("inf"):
            raise DataError(
                f"{' '.join(wanted)}: no threshold gives {100 * sum(wanted.values()):g} % on "
                f"{len(labels):,} images; ask for less"
            )
        share = right / n, wilson_interval(right, n)
        threshold = Threshold(value, wanted, n / len(labels), *share)
    return Calibration(
        len(labels),
        folds,
        temperature,
        calibration_error(probabilities, labels),
        calibration_error(softened, labels),
        threshold,
    )


def _by_parts(
    probabilities: np.ndarray, parts: Sequence[np.ndarray], temperatures: Sequence[float]
) -> np.ndarray:
    """Probabilities softened by another temperature in each part."""
    softened = np.empty_like(probabilities, dtype=np.float64)
    for part, temperature in zip(parts, temperatures, strict=True):
        softened[part] = soften(probabilities[part], temperature)
    return softened


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """How unlikely the labels are."""
    return -float(np.log(probabilities[np.arange(len(labels)), labels].clip(1e-12)).mean())


def threshold_for(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> float:
    """The smallest threshold that gives an accuracy, or the largest that gives a coverage.

    Infinite if none gives that accuracy.
    """
    sure = probabilities.max(1)
    order = np.argsort(-sure, kind="stable")
    if coverage is not None:
        answered = np.ceil(coverage * len(sure) - 1e-9)  # 0.07 of 100 is 7, in floats a bit more
        return float(sure[order[int(answered) - 1]])
    right = np.cumsum((probabilities.argmax(1) == labels)[order])
    # Images of equal probability are answered together or not at all.
    ends = np.append(np.diff(sure[order]) < 0, True)
    enough = np.flatnonzero(ends & (right >= (accuracy or 0.0) * np.arange(1, len(right) + 1)))
    return float(sure[order[enough[-1]]]) if len(enough) else float("inf")
