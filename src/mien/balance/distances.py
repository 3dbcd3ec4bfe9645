"""Distances between two sets of faces, each given as features: FID, KID, precision and recall.

All of them depend on the number of images, and all but KID are biased by it. Compare values at
equal n only, and beside the value that two sets of real faces give at that same n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from mien.errors import DataError

BLOCK = 512
"""Rows whose distances to all of the other set are in memory at once."""

DEGREE = 3
"""Of KID's kernel: it compares means, covariances and third moments."""


def fid(real: ArrayLike, other: ArrayLike) -> float:
    """Frechet distance of two sets, each taken as a Gaussian: squared, as it is always given.

    It is biased upwards, by about as much as the means and covariances are uncertain: the more
    dimensions and the fewer images, the more. Two samples of the same faces do not give 0.

    Parameters
    ----------
    real, other : float ``[n, d]`` and ``[m, d]``; n and m may be below d

    Raises
    ------
    DataError
        for fewer than two rows, different d, or values that are not finite

    References
    ----------
    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", NeurIPS 2017, eq. 6. On the bias: Binkowski et al., "Demystifying MMD GANs",
    ICLR 2018, section 4.
    """
    first, second = _two_sets(real, other)
    apart = first.mean(axis=0) - second.mean(axis=0)
    a, b = _root_of_covariance(first), _root_of_covariance(second)
    # With the covariances as A'A and B'B, the trace of their product's root is the sum of the
    # singular values of AB'. No root is taken of a matrix that may be singular.
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(float(apart @ apart + (a**2).sum() + (b**2).sum() - 2 * shared), 0.0)


def kid(real: ArrayLike, other: ArrayLike) -> float:
    """Squared maximum mean discrepancy with the kernel ``(x.y / d + 1) ** 3``, unbiased.

    Its expected value does not depend on the number of images, and is 0 for two samples of the
    same faces, so that it is below 0 about half the time then. All pairs of images are taken;
    there are no random subsets.

    Parameters
    ----------
    real, other : float ``[n, d]`` and ``[m, d]``

    Raises
    ------
    DataError
        for fewer than two rows, different d, or values that are not finite

    References
    ----------
    Binkowski et al., "Demystifying MMD GANs", ICLR 2018, section 4, for the kernel; Gretton et
    al., "A kernel two-sample test", JMLR 13 (2012), eq. 3, for the estimator.
    """
    first, second = _two_sets(real, other)
    return (
        _mean_kernel_of_pairs(first)
        + _mean_kernel_of_pairs(second)
        - 2 * _kernel_sum(first, second) / (len(first) * len(second))
    )


def prdc(real: ArrayLike, other: ArrayLike, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of `other` as an image of `real`.

    Around every face lies a ball that reaches to its k-th nearest neighbour in its own set.
    Precision is the share of `other` in a ball of a real face, recall the share of `real` in a
    ball of another. Density counts in how many real balls a face of `other` lies, over k, and may
    exceed 1. Coverage is the share of the real balls that hold one.

    Parameters
    ----------
    real, other : float ``[n, d]`` and ``[m, d]``, more than k rows each
    k : neighbours

    Returns
    -------
    ``{"precision", "recall", "density", "coverage"}``

    Raises
    ------
    DataError
        for k below 1, sets of k rows or fewer, different d, or values that are not finite

    References
    ----------
    Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models",
    NeurIPS 2019, eqs. 1-2; Naeem et al., "Reliable fidelity and diversity metrics for generative
    models", ICML 2020, section 3.
    """
    if k < 1:
        raise DataError(f"precision and recall need k of at least 1, not {k}")
    first, second = _two_sets(real, other, least=k + 1)
    radius, other_radius = _radii(first, k), _radii(second, k)
    precise = np.zeros(len(second), bool)
    recalled, covered = np.empty(len(first), bool), np.empty(len(first), bool)
    held = 0
    for start in range(0, len(first), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = cdist(first[rows], second)
        inside = distance <= radius[rows, None]
        held += int(inside.sum())
        precise |= inside.any(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (distance <= other_radius).any(axis=1)
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": held / (k * len(second)),
        "coverage": float(covered.mean()),
    }


def nearest(features: ArrayLike, to: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of `to`, by Euclidean distance, for every row of `features`.

    Parameters
    ----------
    features : float ``[n, d]``
    to : float ``[m, d]``; None for the other rows of `features` itself

    Returns
    -------
    distance : float64 ``[n]``
    index : int64 ``[n]``, rows of `to`

    Raises
    ------
    DataError
        for no rows to choose from, different d, or values that are not finite
    """
    if to is None:
        rows = as_features(features, "features", least=2)
        others = rows
    else:
        rows, others = _two_sets(features, to, least=1, names=("features", "to"))
    # About the mean, the products below are small and little of the difference is rounded away.
    centre = others.mean(axis=0)
    about, others_about = rows - centre, others - centre
    squares = np.einsum("nd,nd->n", others_about, others_about)
    index = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        part = about[start : start + BLOCK]
        # Squared distance less the part's own square, which is the same for all it may choose.
        score = part @ others_about.T
        score *= -2
        score += squares
        if to is None:
            own = np.arange(len(part))
            score[own, start + own] = np.inf
        index[start : start + BLOCK] = score.argmin(axis=1)
    return np.linalg.norm(rows - others[index], axis=1), index


def as_features(values: ArrayLike, name: str, least: int = 1) -> np.ndarray:
    """`values` as float64 ``[n, d]``, or a `DataError` that says what is wrong with `name`."""
    rows = np.asarray(values)
    if rows.ndim != 2 or not rows.shape[1] or rows.dtype.kind not in "fiu":
        raise DataError(
            f"{name}: features must be numbers [n, d], not {rows.dtype} {list(rows.shape)}"
        )
    if len(rows) < least:
        raise DataError(f"{name}: {len(rows)} rows are too few, give {least} or more")
    rows = rows.astype(np.float64, copy=False)
    if not np.isfinite(rows).all():
        row = int((~np.isfinite(rows)).any(axis=1).argmax())
        raise DataError(
            f"{name}: row {row} has a value that is no number; the model that gave these "
            "features has diverged, take another"
        )
    return rows


def _two_sets(
    first: ArrayLike,
    second: ArrayLike,
    least: int = 2,
    names: tuple[str, str] = ("real", "other"),
) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_features(first, names[0], least), as_features(second, names[1], least)
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"{names[0]} has {a.shape[1]} features a row and {names[1]} has {b.shape[1]}; "
            "take both from the same model"
        )
    return a, b


def _root_of_covariance(rows: np.ndarray) -> np.ndarray:
    """R with ``R'R`` the covariance (n - 1 in the divisor), of at most min(n, d) rows."""
    centred = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _mean_kernel_of_pairs(rows: np.ndarray) -> float:
    """Mean kernel of all pairs of different rows."""
    n, d = rows.shape
    own = ((np.einsum("nd,nd->n", rows, rows) / d + 1) ** DEGREE).sum()
    return float((_kernel_sum(rows, rows) - own) / (n * (n - 1)))


def _kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
    d = first.shape[1]
    blocks = (first[start : start + BLOCK] for start in range(0, len(first), BLOCK))
    return float(sum(((block @ second.T / d + 1) ** DEGREE).sum() for block in blocks))


def _radii(rows: np.ndarray, k: int) -> np.ndarray:
    """Distance of every row to its k-th nearest other row, float ``[n]``."""
    radius = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        distance = cdist(rows[start : start + BLOCK], rows)
        # Each row is its own nearest, at 0, so that place k of n, from 0, is the k-th other.
        radius[start : start + BLOCK] = np.partition(distance, k, axis=1)[:, k]
    return radius
