"""Confidence intervals of proportions."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from mien.errors import DataError


def wilson_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion, such as accuracy, by Wilson's score method.

    Unlike the interval of the normal approximation it never leaves [0, 1] and has a width
    when nothing or everything is right.

    Parameters
    ----------
    correct : successes among the `n` trials
    n : number of trials (images), at least 1
    level : coverage, between 0 and 1

    Returns
    -------
    (low, high), as shares

    Raises
    ------
    DataError
        where there are no trials, or more successes than trials

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927).
    """
    if n < 1 or not 0 <= correct <= n:
        raise DataError(
            f"no interval for {correct} right of {n} images; give 0 <= correct <= n > 0"
        )
    if not 0 < level < 1:
        raise DataError(f"the level of an interval lies between 0 and 1, not at {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / n
    centre = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the two ends the exact bound is 0 or 1; rounding would leave it beside it.
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == n else (centre + half) / scale
    return low, high
