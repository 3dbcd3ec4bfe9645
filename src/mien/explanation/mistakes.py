"""The errors that a network is surest of: where it, or the label, is worth a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEPT = 8
"""Faces that are kept of each pair of classes."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The images of class `true` that were called `predicted`.

    `count` of them there are; `rows` int ``[k]`` are those with the largest probabilities of the
    wrong class, in falling order, and `largest` is the first one's.
    """

    true: int
    predicted: int
    count: int
    largest: float
    rows: np.ndarray


def confident_errors(
    probabilities: np.ndarray, labels: np.ndarray, kept: int = KEPT
) -> list[Errors]:
    """The most confident errors of each pair of classes that has any, the most frequent pair first.

    Parameters
    ----------
    probabilities : float ``[N, C]``
    labels : int ``[N]``
    kept : rows of a pair at the most
    """
    called, sure = probabilities.argmax(1), probabilities.max(1)
    found = []
    for true, predicted in np.unique(np.stack([labels, called], 1), axis=0):
        rows = np.flatnonzero((labels == true) & (called == predicted))
        if true != predicted:
            rows = rows[np.argsort(-sure[rows], kind="stable")]
            largest = float(sure[rows[0]])
            found.append(Errors(int(true), int(predicted), len(rows), largest, rows[:kept]))
    return sorted(found, key=lambda errors: -errors.count)
