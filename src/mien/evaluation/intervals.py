"""Intervals of figures that Wilson's does not fit: differences of shares, F1 scores, ratios."""

from __future__ import annotations

from math import sqrt

import numpy as np

from mien.evaluation.outcome import ALPHA
from mien.metrics import wilson_interval

RESAMPLES = 2_000
_CHUNK = 1 << 20


def newcombe_interval(
    first: tuple[int, int], second: tuple[int, int], level: float = 1 - ALPHA
) -> tuple[float, float]:
    """Interval of the difference of two shares measured on different images.

    Parameters
    ----------
    first, second : how many are right, and of how many images

    Returns
    -------
    (low, high) of first minus second, as shares

    Raises
    ------
    DataError
        where a group has no images, or more right than it has.

    References
    ----------
    R. G. Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998), method 10.
    """
    (low_a, high_a), (low_b, high_b) = (wilson_interval(*one, level) for one in (first, second))
    a, b = (right / n for right, n in (first, second))
    return (
        a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2),
        a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2),
    )


def macro_f1_interval(confusion: np.ndarray) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the macro F1 score, by drawing images anew.

    To draw images with replacement is to draw the cells of the confusion matrix from a multinomial
    distribution, which is much faster. As in `mien.metrics`, a class counts where it has images.

    Parameters
    ----------
    confusion : int ``[C, C]``, rows are the true classes

    Returns
    -------
    (low, high), or None where every image is right: drawn anew, it would always be so. Of fewer
    than 100 images it holds the true value in some 92 to 94 of 100 cases
    """
    if confusion.sum() == confusion.trace():
        return None
    n, c = int(confusion.sum()), len(confusion)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, confusion.reshape(-1) / n, RESAMPLES).reshape(-1, c, c)
    support, both = drawn.sum(2), drawn.sum(2) + drawn.sum(1)
    right = drawn.diagonal(axis1=1, axis2=2)
    f1 = np.divide(2 * right, both, out=np.zeros(both.shape), where=both > 0)
    return _middle((f1 * (support > 0)).sum(1) / (support > 0).sum(1))


def ratio_interval(first: np.ndarray, second: np.ndarray | None = None) -> tuple[float, float]:
    """Percentile bootstrap interval of the ratio of two means over the same images.

    Parameters
    ----------
    first, second : float ``[n]``, a value an image; without the second, the mean of the first.
        Drawings in which the second mean is 0 are left out
    """
    n = len(first)
    below = np.ones(n) if second is None else np.asarray(second, float)
    rng = np.random.default_rng(0)
    ratios = []
    rows = max(1, _CHUNK // n)
    for done in range(0, RESAMPLES, rows):
        drawn = rng.integers(n, size=(min(rows, RESAMPLES - done), n))
        a, b = np.asarray(first, float)[drawn].sum(1), below[drawn].sum(1)
        ratios.append(a[b > 0] / b[b > 0])
    return _middle(np.concatenate(ratios))


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (ALPHA / 2, 1 - ALPHA / 2))
    return float(low), float(high)
