"""The space of features, against scikit-learn's PCA."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mien.balance.feature_space import fit_feature_space
from mien.errors import DataError, RecipeError


def features(n: int = 300, width: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) * np.geomspace(5, 0.1, width) + 3


def test_distances_in_the_space_are_those_of_scikit_learns_pca_but_for_one_scale():
    train, other = features(), features(seed=1)
    space = fit_feature_space(train, 8)
    pca = PCA(8).fit(train)
    assert space.scale == pytest.approx(np.sqrt(pca.explained_variance_.mean()))
    assert space.variance_kept == pytest.approx(pca.explained_variance_ratio_.sum())
    assert np.abs(space.transform(other) * space.scale) == pytest.approx(
        np.abs(pca.transform(other)), abs=1e-9
    )


def test_a_direction_of_the_space_has_a_mean_variance_of_1_and_is_not_whitened():
    train = features()
    variance = fit_feature_space(train, 8).transform(train).var(axis=0, ddof=1)
    assert variance.mean() == pytest.approx(1)
    assert variance[0] > 2 * variance[-1]


def test_the_unit_of_a_models_features_does_not_matter():
    train, other = features(), features(seed=1)
    once = fit_feature_space(train, 8).transform(other)
    again = fit_feature_space(1000 * train, 8).transform(1000 * other)
    assert np.abs(again) == pytest.approx(np.abs(once), rel=1e-6, abs=1e-9)


def test_only_directions_that_vary_are_kept():
    few = features(n=10)
    assert fit_feature_space(few, 64).dimensions == 9
    assert fit_feature_space(few, 64).variance_kept == pytest.approx(1)
    dead = features()
    dead[:, 3:] = 7.1  # as of channels that never fire
    assert fit_feature_space(dead.astype(np.float32), 64).dimensions == 3


def test_what_gives_no_space_is_told():
    train = features()
    for dimensions in (0, 129):
        with pytest.raises(RecipeError, match=f"dimensions = {dimensions}"):
            fit_feature_space(train, dimensions)
    with pytest.raises(DataError, match="collapsed"):
        fit_feature_space(np.full((50, 4), 0.1))
    with pytest.raises(DataError, match="width 39 in a space of features of width 40"):
        fit_feature_space(train).transform(train[:, 1:])
