"""The space in which faces are compared: few directions of a model's features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mien.balance.distances import as_features
from mien.errors import DataError, RecipeError

MOST_DIMENSIONS = 128
"""A covariance of more dimensions than this cannot be told from a few thousand faces."""


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Principal directions of the features of real faces, and one scale for all of them.

    Attributes
    ----------
    mean : float64 ``[D]``
    directions : float64 ``[d, D]``, orthonormal, the widest first
    scale : a length of the features that counts as 1
    variance_kept : share of the variance of the fitted features that lies in the `d` directions
    """

    mean: np.ndarray
    directions: np.ndarray
    scale: float
    variance_kept: float

    @property
    def dimensions(self) -> int:
        """Number of directions, d."""
        return len(self.directions)

    def transform(self, features: ArrayLike) -> np.ndarray:
        """Features ``[n, D]`` of the fitted model's in this space, float64 ``[n, d]``.

        Raises
        ------
        DataError
            if they are of another width, or not finite
        """
        rows = as_features(features, "features")
        if rows.shape[1] != len(self.mean):
            raise DataError(
                f"features of width {rows.shape[1]} in a space of features of width "
                f"{len(self.mean)}; take both from the same model"
            )
        return (rows - self.mean) @ self.directions.T / self.scale


def fit_feature_space(features: ArrayLike, dimensions: int = 64) -> FeatureSpace:
    """Find the directions in which the features of real training faces vary most.

    Nothing is whitened: a direction keeps the weight that the model gives it. One scale for all
    makes the mean variance of a direction 1, since KID's kernel is no measure without a unit: it
    would compare means alone where a model's features are small, third moments alone where they
    are large. FID and KID are therefore comparable between generators seen by one model, and not
    with those of Inception features.

    Parameters
    ----------
    features : float ``[n, D]`` of real training faces, such as a model's pooled last map
    dimensions : directions, at most 128; fewer are kept where the features vary in fewer

    Raises
    ------
    RecipeError
        for dimensions outside 1 to 128
    DataError
        for fewer than two rows, values that are not finite, or features that do not vary
    """
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise RecipeError(
            f"dimensions = {dimensions}: a feature space has 1 to {MOST_DIMENSIONS} dimensions"
        )
    rows = as_features(features, "features", least=2)
    mean = rows.mean(axis=0)
    about = rows - mean
    variance, directions = np.linalg.eigh(about.T @ about / (len(rows) - 1))
    variance, directions = variance[::-1], directions.T[::-1]
    # What is left of a direction without variance is rounding, relative to the widest and to the
    # mean that was taken off.
    rounding = rows.shape[1] * np.finfo(np.float64).eps * max(variance[0], float(mean @ mean))
    kept = min(dimensions, int((variance > rounding).sum()))
    if not kept:
        raise DataError(
            f"the features of all {len(rows):,} training faces are the same; "
            "the model has collapsed, take another"
        )
    return FeatureSpace(
        mean=mean,
        directions=np.ascontiguousarray(directions[:kept]),
        scale=float(np.sqrt(variance[:kept].mean())),
        variance_kept=float(variance[:kept].sum() / variance[variance > rounding].sum()),
    )
