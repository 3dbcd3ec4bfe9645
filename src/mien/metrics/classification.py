"""Figures of merit of a classifier on labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mien.errors import DataError
from mien.jsonable import jsonable
from mien.metrics.calibration import calibration_error
from mien.metrics.interval import wilson_interval

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from 1; predictions kept in half precision come near it."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """Figures of merit on one split.

    A class without images has no recall and no F1 score, and one that was never predicted has
    no precision. These are NaN, not 0, and the means (`balanced_accuracy`, `macro_f1`) are
    taken over the classes that have images.

    Attributes
    ----------
    n : number of images
    accuracy : share of the images whose most probable class is theirs
    accuracy_interval : its 95 % interval (low, high) by Wilson's method
    balanced_accuracy : mean recall of the classes
    macro_f1 : mean F1 score of the classes
    log_loss : mean negative log probability of the true class, in nats
    calibration_error : expected calibration error with 15 bins
    classes : names of the C classes in label order
    support : int ``[C]``, images of each class
    precision, recall, f1 : float ``[C]``
    confusion : int ``[C, C]``, rows are the true classes, columns the predicted
    """

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    classes: tuple[str, ...]
    support: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    confusion: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; NaN, which JSON lacks, becomes None."""
        return {f.name: jsonable(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_dict`."""
        missing = {f.name for f in fields(cls)} - set(values)
        if missing:
            raise DataError(f"stored metrics lack {', '.join(sorted(missing))}; evaluate again")
        known = {f.name: values[f.name] for f in fields(cls)}
        low, high = known["accuracy_interval"]
        known |= {"accuracy_interval": (low, high), "classes": tuple(known["classes"])}
        for key in ("support", "confusion"):
            known[key] = np.array(known[key], np.int64)
        for key in ("precision", "recall", "f1"):
            known[key] = np.array(known[key], np.float64)  # None becomes NaN
        return cls(**known)


def evaluate(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Compare predicted probabilities with labels.

    Parameters
    ----------
    probabilities : float ``[n, C]``, rows sum to 1
    labels : int ``[n]``, indices into `classes`
    classes : names of the C classes

    Raises
    ------
    DataError
        where shapes do not match, there is no image, an image has no label, or a row is no
        probability distribution
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    _check(probabilities, labels, classes)
    n, c = probabilities.shape
    predictions = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * c + predictions, minlength=c * c).reshape(c, c)
    right, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    recall, precision = _ratio(right, support), _ratio(right, predicted)
    f1 = np.where(support > 0, _ratio(2 * right, support + predicted), np.nan)
    correct = int(right.sum())
    return Metrics(
        n=n,
        accuracy=correct / n,
        accuracy_interval=wilson_interval(correct, n),
        balanced_accuracy=float(np.nanmean(recall)),
        macro_f1=float(np.nanmean(f1)),
        log_loss=_log_loss(probabilities, labels),
        calibration_error=calibration_error(probabilities, labels),
        classes=tuple(classes),
        support=support,
        precision=precision,
        recall=recall,
        f1=f1,
        confusion=confusion,
    )


def collapsed(predictions: np.ndarray, classes: Sequence[str], share: float = 0.99) -> str | None:
    """The class into which (almost) all predictions fall, or None.

    A training whose penalty outweighs its loss ends so. Fewer predictions than there are
    classes say nothing and give None.

    Parameters
    ----------
    predictions : int ``[n]``, indices into `classes`
    classes : names of the classes
    share : share of the predictions in one class from which it is a collapse
    """
    if len(predictions) < len(classes):
        return None
    counts = np.bincount(predictions, minlength=len(classes))
    top = int(counts.argmax())
    return classes[top] if counts[top] >= share * len(predictions) else None


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood.

    A probability that underflowed to 0 counts as the machine epsilon of its precision:
    one such image must not make the mean infinite.
    """
    chosen = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    floor = np.finfo(probabilities.dtype).eps
    return float(-np.log(np.clip(chosen.astype(np.float64), floor, 1)).mean())


def _check(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    n, c = len(labels), len(classes)
    if probabilities.ndim != 2 or labels.ndim != 1 or probabilities.shape != (n, c):
        raise DataError(
            f"probabilities {list(probabilities.shape)} and labels {list(labels.shape)} of "
            f"{c} classes do not match; give [n, {c}] and [n]"
        )
    if not n:
        raise DataError("there are no images to evaluate on; choose a split that has some")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be integers, not {labels.dtype}")
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise DataError(f"probabilities must be floating-point, not {probabilities.dtype}")
    if unlabelled := int((labels < 0).sum()):
        raise DataError(
            f"{unlabelled} of {n} images have no label (-1); evaluate on the labelled ones alone"
        )
    if (top := int(labels.max())) >= c:
        raise DataError(f"label {top} has no name; the classes are {', '.join(classes)}")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    bad = ~(np.abs(sums - 1) <= SUM_TOLERANCE) | ~(probabilities >= 0).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"row {row} of the probabilities is no distribution (sum {sums[row]:.6g}, smallest "
            f"{probabilities[row].min():.6g}), nor are {int(bad.sum()) - 1} others; "
            "give the softmax of finite logits"
        )
