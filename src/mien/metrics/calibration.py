"""How far confidence is to be believed."""

from __future__ import annotations

import numpy as np


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: the mean distance of confidence from accuracy.

    The images are put into bins of equal width by the probability of their predicted class;
    a bin counts by its number of images, and the m-th of M holds ((m - 1) / M, m / M].

    Parameters
    ----------
    probabilities : float ``[n, C]``, rows sum to 1
    labels : int ``[n]``
    bins : number of bins

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017, eqs. 2-3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # |accuracy - confidence| of a bin times its share of the images is |sum of differences| / n.
    excess = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(excess).sum() / len(labels))
