"""Class weights: how much an image of each class counts in the loss."""

from __future__ import annotations

import numpy as np

from mien.errors import DataError

BETA = 0.999
"""Cui et al.'s beta: from about ``1 / (1 - BETA)`` images on, more of a class add little."""


def class_weights(labels: np.ndarray, classes: int, kind: str) -> np.ndarray:
    """Give each class a weight such that the mean weight of the images is 1.

    A mean of 1 keeps the size of the loss, and so the learning rate, comparable between kinds.

    Parameters
    ----------
    labels : int ``[N]`` of the training images; -1 (unknown) is not counted
    classes : number of classes
    kind : ``"balanced"``, inversely proportional to the images of a class, as in scikit-learn;
        ``"effective"``, inversely proportional to their effective number
        ``(1 - beta**n) / (1 - beta)`` with `BETA` (Cui et al., 2019, eq. 6), which is gentler

    Returns
    -------
    float32 array ``[classes]``

    Raises
    ------
    DataError
        If a class that should get a weight has no images.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    if not counts.all():
        empty = ", ".join(map(str, np.flatnonzero(counts == 0)))
        raise DataError(
            f"class weights '{kind}': no training images of class {empty} (of 0 to {classes - 1}); "
            "add images, leave the class out, or choose 'none'"
        )
    amount = counts if kind == "balanced" else (1 - BETA**counts) / (1 - BETA)
    weights = 1 / amount
    return (weights * counts.sum() / (weights @ counts)).astype(np.float32)
