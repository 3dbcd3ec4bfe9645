"""Whether generated faces are copies: of training faces, or of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from mien.balance.distances import nearest
from mien.data.faceset import image_hashes
from mien.errors import DataError

COPY = 1e-3
"""Two faces nearer than this share of the usual distance show the same pixels.

The same image gives features that differ in the rounding of float32, a thousand times less;
different photographs of FER-2013 are not that near.
"""

NEAR = 0.01
"""The share of real faces that are as near to another as generated ones that count as near."""


def compare_nearness(held_out: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
    """Are generated faces nearer to the training faces than fresh real faces are?

    A generator that learned the faces, and not the images, keeps the distance that real faces it
    has never seen keep. Give both sides the same classes in the same shares, since faces of a large
    class have nearer neighbours.

    Held-out faces that are copies of a training face (see `COPY`) are counted and left out: with
    the 8 % of them in FER-2013's PublicTest the 1st percentile would be 0, and nothing nearer.

    Parameters
    ----------
    held_out, generated : float ``[m]`` and ``[g]``, m and g at least 1; distances to the nearest
        training face

    Returns
    -------
    ``n_held_out``, without copies, and ``n_generated``; ``held_out_median``, ``generated_median``;
    ``nearer_than_1st_percentile`` and ``nearer_than_5th_percentile``, the shares of the generated
    faces nearer than these percentiles of the held-out ones, 0.01 and 0.05 if nothing is
    memorised, None where the held-out faces are too few to have them (99 and 19); ``p`` of the
    one-sided Mann-Whitney U test that generated faces are nearer; ``held_out_copies`` and
    ``generated_copies`` of training faces. A small p alone is no proof of copying: faces that
    are all alike, or blurred, lie near to everything too.

    Raises
    ------
    DataError
        for held-out faces that all stand in the training part

    References
    ----------
    Meehan et al., "A non-parametric test to detect data-copying in generative models", AISTATS
    2020, for the test on distances.
    """
    fresh = held_out[~is_copy(held_out)]
    if not len(fresh):
        raise DataError(
            f"all {len(held_out):,} held-out faces stand in the training part; hold out others"
        )
    p = float(stats.mannwhitneyu(generated, fresh, alternative="less").pvalue)
    return {
        "n_held_out": len(fresh),
        "n_generated": len(generated),
        "held_out_median": float(np.median(fresh)),
        "generated_median": float(np.median(generated)),
        "nearer_than_1st_percentile": _share_below(generated, low_quantile(fresh, 0.01)),
        "nearer_than_5th_percentile": _share_below(generated, low_quantile(fresh, 0.05)),
        "p": None if np.isnan(p) else p,
        "held_out_copies": len(held_out) - len(fresh),
        "generated_copies": int((generated <= COPY * _usual(held_out)).sum()),
    }


def is_copy(distances: np.ndarray) -> np.ndarray:
    """Which distances of real faces to their nearest one are those of a copy: bool ``[n]``."""
    return distances <= COPY * _usual(distances)


def _usual(distances: np.ndarray) -> float:
    """The median; where that is a copy's, because most are copies, the 90th percentile."""
    middle, high = float(np.median(distances)), float(np.quantile(distances, 0.9))
    return middle if middle > COPY * high else high


def duplicates(images: np.ndarray) -> int:
    """How many images are pixel for pixel one that came before.

    Parameters
    ----------
    images : uint8 ``[n, H, W]`` or ``[n, H, W, 3]``

    Raises
    ------
    DataError
        for another dtype or shape
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"images must be uint8 [n, H, W] or [n, H, W, 3], "
            f"not {images.dtype} {list(images.shape)}"
        )
    return len(images) - len(np.unique(image_hashes(images)))


def near_duplicates(generated: ArrayLike, real: ArrayLike) -> dict[str, Any]:
    """How many generated faces lie as near to another as only 1 in 100 real faces does.

    What is near is taken from real faces, the 1st percentile of the distances to their nearest
    other one, copies left out. It is the lowest percentile that a few hundred faces have, and a
    generator as varied as the faces has 0.01 below it. Neighbours come nearer as a set grows,
    hence the same number on both sides, of the same classes in the same shares.

    Parameters
    ----------
    generated, real : float ``[n, d]``, as many of both

    Returns
    -------
    ``n``; ``threshold``, ``near``, how many generated faces lie nearer, and ``share``, the three of
    them None where there are too few real faces (99); ``expected``, the share if nothing repeats

    Raises
    ------
    DataError
        for different numbers of rows or columns, fewer than two rows, or values that are not
        finite
    """
    if np.shape(real) != np.shape(generated):
        raise DataError(
            f"{list(np.shape(generated))} features of generated faces and "
            f"{list(np.shape(real))} of real ones; near duplicates are compared at equal numbers"
        )
    between_real, between_generated = nearest(real)[0], nearest(generated)[0]
    threshold = low_quantile(between_real[~is_copy(between_real)], NEAR)
    near = None if threshold is None else int((between_generated < threshold).sum())
    return {
        "n": len(between_generated),
        "threshold": threshold,
        "near": near,
        "share": _share_below(between_generated, threshold),
        "expected": NEAR,
    }


def low_quantile(values: np.ndarray, share: float) -> float | None:
    """The value below which a new one falls with probability `share`; None with too few values.

    The i-th of n sorted values has a share of i / (n + 1) below it on average, whatever the
    distribution, so that n must be at least 1 / share - 1.
    """
    # 1e-9 for the rounding of (n + 1) * share where it is 1.
    if (len(values) + 1) * share < 1 - 1e-9:
        return None
    return float(np.quantile(values, share, method="weibull"))


def _share_below(values: np.ndarray, threshold: float | None) -> float | None:
    return None if threshold is None else float((values < threshold).mean())
