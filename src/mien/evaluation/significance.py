"""Tests of whether two models differ: each for its own scheme of training and measuring.

Differences are of the first model minus the second, as shares of 1 (0.02 is two points).
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from mien.errors import DataError
from mien.evaluation.outcome import ALPHA, Test

EXACT_BELOW = 25
"""Fewer disagreements than this go to the exact form of McNemar's test."""

_THESE_TWO = (
    "it holds for these two trained models, and says nothing of other seeds or training images"
)
_CHUNK = 1 << 16


def paired_t_5x2cv(differences: ArrayLike) -> Test:
    """Dietterich's 5x2cv paired t-test, 5 degrees of freedom.

    The statistic weighs the difference of one half alone, that of the first half of the first
    repeat; all ten give its variance. `difference` and `interval` are of that same half, so that
    they say what p says (the interval leaves out 0 where p < 0.05). The mean of all ten, which is
    the better guess at the true difference, is the effect size.

    Parameters
    ----------
    differences : ``[5, 2]``, repeats by halves

    Raises
    ------
    DataError
        for another shape, values that are no shares, or differences without any variance

    References
    ----------
    T. G. Dietterich, "Approximate statistical tests for comparing supervised classification
    learning algorithms", Neural Computation 10 (1998), section 3.5.
    """
    d = _five_by_two(differences)
    error = sqrt(((d[:, 0] - d[:, 1]) ** 2).mean() / 2)
    t = _over(d[0, 0], error, d)
    return Test(
        name="5x2cv paired t",
        statistic=t,
        p=float(2 * stats.t.sf(abs(t), 5)),
        degrees_of_freedom=(5,),
        difference=float(d[0, 0]),
        interval=_around(d[0, 0], stats.t.isf(ALPHA / 2, 5) * error),
        effect_size=float(d.mean()),
        effect_name="mean of all ten differences, as a share,",
        assumptions="five random halvings of one data set, models trained on half of it; "
        "differences are taken as normal and independent; difference and interval are of the "
        "first half alone",
        n=10,
    )


def combined_f_5x2cv(differences: ArrayLike) -> Test:
    """Alpaydin's combined 5x2cv F-test, 10 and 5 degrees of freedom.

    It weighs all ten differences, so nothing hangs on which half comes first. `difference` is
    their mean, and `interval` holds the true differences that the test would not reject; it is
    None where there are none, the repeats lying further apart than their halves explain.

    Parameters
    ----------
    differences : ``[5, 2]``, repeats by halves

    Raises
    ------
    DataError
        for another shape, values that are no shares, or differences without any variance

    References
    ----------
    E. Alpaydin, "Combined 5x2 cv F test for comparing supervised classification learning
    algorithms", Neural Computation 11 (1999).
    """
    d = _five_by_two(differences)
    within = ((d[:, 0] - d[:, 1]) ** 2).sum()  # twice the sum of the five variances
    f = _over((d**2).sum(), within, d)
    # sum((d - delta)^2) = sum((d - mean)^2) + 10 (mean - delta)^2, solved for F at its bound
    square = (stats.f.isf(ALPHA, 10, 5) * within - ((d - d.mean()) ** 2).sum()) / 10
    return Test(
        name="combined 5x2cv F",
        statistic=f,
        p=float(stats.f.sf(f, 10, 5)),
        degrees_of_freedom=(10, 5),
        difference=float(d.mean()),
        interval=_around(d.mean(), sqrt(max(square, 0.0))),
        effect_size=_standardised(d),
        effect_name="Cohen's d over the ten differences",
        assumptions="five random halvings of one data set, models trained on half of it; "
        "differences are taken as normal and independent",
        n=10,
    )


def corrected_resampled_t(differences: ArrayLike, test_share: float) -> Test:
    """The resampled t-test with Nadeau and Bengio's correction, for k-fold and repeated hold-out.

    Trainings that share images are not independent: the variance of the mean is taken as
    (1/J + n_test/n_train) times that of the J differences, in place of 1/J.

    Parameters
    ----------
    differences : ``[J]``, one a fold or repeat, at least two
    test_share : share of the images that each was measured on: 0.1 for ten folds

    Raises
    ------
    DataError
        for another shape, values that are no shares, or differences without any variance

    References
    ----------
    C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
    """
    d = _shares(differences)
    if d.ndim != 1 or len(d) < 2:
        raise DataError(
            f"the corrected resampled t-test needs one difference a fold, two or more, not an "
            f"array of shape {d.shape}; run k-fold cross-validation"
        )
    if not 0 < test_share < 1:
        raise DataError(
            f"the share of test images lies between 0 and 1, not at {test_share}; "
            "it is 1/k for k folds"
        )
    # equal differences may leave a rounding error for a deviation
    deviation = d.std(ddof=1) if np.ptp(d) > 0 else 0.0
    error = deviation * sqrt(1 / len(d) + test_share / (1 - test_share))
    t = _over(d.mean(), error, d)
    freedom = len(d) - 1
    return Test(
        name="corrected resampled t",
        statistic=t,
        p=float(2 * stats.t.sf(abs(t), freedom)),
        degrees_of_freedom=(freedom,),
        difference=float(d.mean()),
        interval=_around(d.mean(), stats.t.isf(ALPHA / 2, freedom) * error),
        effect_size=_standardised(d),
        effect_name="Cohen's d over the folds",
        assumptions="differences are taken as normal, and any two as correlated by the share of "
        "test images, which is an approximation",
        n=len(d),
    )


def mcnemar(right_first: ArrayLike, right_second: ArrayLike) -> Test:
    """McNemar's test of two trained models on the same images.

    Exact (binomial) for fewer than 25 images on which one is right and the other wrong, else
    chi-square with continuity correction. The interval is Agresti and Min's, half an image added
    to each of the four cells; close to p = 0.05 it may part from the test.

    Parameters
    ----------
    right_first, right_second : ``[n]``, whether each image was classified rightly, the images
        in the same order

    Raises
    ------
    DataError
        where the two do not have one 0 or 1 for each image

    References
    ----------
    Q. McNemar, Psychometrika 12 (1947); Dietterich (1998), section 3.1; A. Agresti and Y. Min,
    "Simple improved confidence intervals for comparing matched proportions", Statistics in
    Medicine 24 (2005).
    """
    first, second = _paired(right_first, right_second)
    for right in (first, second):
        if not np.isin(right, (0, 1)).all():
            raise DataError("McNemar's test needs 1 (right) or 0 (wrong) for each image")
    n = len(first)
    only_first, only_second = int((first > second).sum()), int((first < second).sum())
    disagreements = only_first + only_second
    exact = disagreements < EXACT_BELOW
    if exact:
        statistic = float(min(only_first, only_second))
        p = min(1.0, float(2 * stats.binom.cdf(statistic, disagreements, 0.5)))
    else:
        statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / disagreements
        p = float(stats.chi2.sf(statistic, 1))
    centre = (only_first - only_second) / (n + 2)
    error = sqrt((disagreements + 1) / (n + 2) - centre**2) / sqrt(n + 2)
    half = stats.norm.isf(ALPHA / 2) * error
    return Test(
        name="exact McNemar" if exact else "McNemar chi-square",
        statistic=statistic,
        p=p,
        degrees_of_freedom=() if exact else (1,),
        difference=(only_first - only_second) / n,
        interval=(float(max(centre - half, -1)), float(min(centre + half, 1))),
        effect_size=only_first / disagreements - 0.5 if disagreements else None,
        effect_name="Cohen's g",
        assumptions=f"images are independent draws; {_THESE_TWO}",
        n=n,
    )


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    measure: str = "accuracy",
    resamples: int = 10_000,
    seed: int = 0,
) -> Test:
    """Compare the mean of a value an image has under two trained models, by drawing images anew.

    Interval and p both come from the percentiles of the resampled difference: p is twice the
    smaller share of resamples on either side of 0, the data themselves counted as one.

    Parameters
    ----------
    first, second : ``[n]``, a value for each image, the images in the same order: right or wrong
        (the default), log loss, ...
    measure : what the mean of the values is called
    resamples : how often the `n` images are drawn, with replacement
    seed : of the draws

    Raises
    ------
    DataError
        where the two do not have one finite value for each of two or more images, or differ by
        the same amount on all

    References
    ----------
    B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.
    """
    d = np.subtract(*_paired(first, second)).round(12)
    if len(d) < 2 or (np.ptp(d) == 0 and d.any()):
        raise DataError(
            f"a bootstrap of {len(d)} image(s) that all differ by {d[0]:g} has nothing to vary; "
            "test on more images"
        )
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(d))
    means = np.concatenate(
        [
            d[rng.integers(len(d), size=(min(rows, resamples - done), len(d)))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    ).round(12)  # fifths of one sum are 0 in all digits then
    smaller = min((means <= 0).sum(), (means >= 0).sum())
    low, high = np.quantile(means, (ALPHA / 2, 1 - ALPHA / 2))
    return Test(
        name="paired bootstrap",
        statistic=float(d.mean()),
        p=min(1.0, float(2 * (smaller + 1) / (resamples + 1))),
        degrees_of_freedom=(),
        difference=float(d.mean()),
        interval=(float(low), float(high)) if d.any() else None,
        effect_size=_standardised(d),
        effect_name="Cohen's d over the images",
        assumptions=f"images are independent draws ({resamples:,} resamples); {_THESE_TWO}",
        n=len(d),
        measure=measure,
    )


def _shares(differences: ArrayLike) -> np.ndarray:
    """Differences rounded to 12 decimals, so that those of equal accuracies are equal."""
    d = np.asarray(differences, dtype=float)
    if not np.isfinite(d).all():
        raise DataError(
            f"the differences hold NaN or infinity, first at {_place(~np.isfinite(d))}; "
            "finish those trainings, or leave the models out"
        )
    if (np.abs(d) > 1).any():
        raise DataError(
            f"a difference of {d[np.abs(d) > 1][0]:g} is no share of 1; divide per cents by 100"
        )
    return d.round(12)


def _five_by_two(differences: ArrayLike) -> np.ndarray:
    d = _shares(differences)
    if d.shape != (5, 2):
        raise DataError(
            f"a 5x2cv test needs the differences of five repeats by two halves, not an array of "
            f"shape {d.shape}; run the scheme '5x2'"
        )
    return d


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise DataError(
            f"a paired test needs one value for each image and model, not arrays of shape "
            f"{a.shape} and {b.shape}; predict the same images with both"
        )
    for values in (a, b):
        if not np.isfinite(values).all():
            raise DataError(
                f"image {_place(~np.isfinite(values))} has NaN or infinity for a value; "
                "leave it out for both models"
            )
    return a, b


def _place(bad: np.ndarray) -> str:
    return ", ".join(str(i) for i in np.argwhere(bad)[0])


def _over(estimate: float, error: float, differences: np.ndarray) -> float:
    """``estimate / error``; 0 for models that never differ, so that p is 1."""
    if error > 0:
        return float(estimate / error)
    if differences.any():
        raise DataError(
            "the differences do not vary between the held-out parts, so there is no error to test "
            "them against; hold out more images, or test on one test set (McNemar, bootstrap)"
        )
    return 0.0


def _around(estimate: float, half: float) -> tuple[float, float] | None:
    return (float(estimate - half), float(estimate + half)) if half > 0 else None


def _standardised(differences: np.ndarray) -> float | None:
    """Cohen's d of paired values: their mean over their standard deviation."""
    return float(differences.mean() / differences.std(ddof=1)) if differences.any() else None
