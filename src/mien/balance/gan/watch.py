"""Whether a GAN's training is still in order: mode collapse, and a discriminator that has won."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLLAPSE = 0.2
"""Spread of the generated images of a class, as a share of the real ones', that is too little."""

WON = 0.99
"""Share of real and of generated images told apart, above which the generator learns nothing."""

PATIENCE = 10
"""Epochs in a row that may be out of order, after one that was not, before training stops."""


def spread(images: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How far the images of each class lie from each other.

    The root of half their mean squared distance over all pairs, which is that of the summed
    variance of their pixels: 0 where all are alike.

    Parameters
    ----------
    images : ``[N, ...]`` of any one scale
    labels : int ``[N]``

    Returns
    -------
    float64 array ``[classes]``, NaN for a class of fewer than two images
    """
    found = np.full(classes, np.nan)
    flat = images.reshape(len(images), -1)
    for label in range(classes):
        chosen = flat[labels == label]
        if len(chosen) > 1:
            found[label] = np.sqrt(chosen.astype(np.float64).var(0, ddof=1).sum())
    return found


def trouble(
    right_on_real: float,
    right_on_generated: float,
    diversity: np.ndarray,
    classes: Sequence[str],
) -> str | None:
    """What is wrong after an epoch, in words; None where nothing is.

    Parameters
    ----------
    right_on_real, right_on_generated : shares of the epoch's images that the discriminator took for
        what they are
    diversity : `spread` of generated images as a share of that of real ones, ``[C]``
    classes : their names
    """
    if min(right_on_real, right_on_generated) > WON:
        return (
            f"the discriminator has won: it tells {100 * right_on_real:.1f} % of the real and "
            f"{100 * right_on_generated:.1f} % of the generated images"
        )
    if (diversity < COLLAPSE).any():
        least = int(np.nanargmin(diversity))
        return (
            f"mode collapse: the images generated for '{classes[least]}' differ from each other "
            f"only {100 * diversity[least]:.0f} % as much as the real ones"
        )
    return None
