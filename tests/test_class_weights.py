"""Class weights: what an image of each class counts in the loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from mien.balance.weights import class_weights
from mien.errors import DataError

KINDS = ("balanced", "effective")
FER2013 = (3995, 436, 4097, 7215, 4830, 3171, 4965)


def labelled(counts: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = labelled(FER2013)
    expected = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    np.testing.assert_allclose(class_weights(labels, 7, "balanced"), expected, rtol=1e-6)


def test_effective_weights_follow_the_sum_of_beta_over_the_images() -> None:
    # 1 + b + b^2 + ...: each further image of a class adds a little less than the one before.
    amount = np.array([sum(0.999**i for i in range(n)) for n in FER2013])
    ours = class_weights(labelled(FER2013), 7, "effective")
    np.testing.assert_allclose(ours / ours[0], amount[0] / amount, rtol=1e-5)


def test_effective_weights_are_gentler_than_balanced_ones() -> None:
    labels = labelled(FER2013)
    balanced, effective = (class_weights(labels, 7, kind) for kind in KINDS)
    assert 1 < effective.max() / effective.min() < balanced.max() / balanced.min()


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=8).map(tuple),
    st.sampled_from(KINDS),
)
def test_the_images_weigh_1_on_average(counts: tuple[int, ...], kind: str) -> None:
    labels = labelled(counts)
    weights = class_weights(labels, len(counts), kind)
    assert weights.dtype == np.float32
    assert weights.shape == (len(counts),)
    assert weights[labels].mean(dtype=np.float64) == pytest.approx(1, rel=1e-5)


def test_unlabelled_images_are_not_counted() -> None:
    labels = labelled((10, 30))
    with_unknown = np.concatenate([labels, np.full(50, -1)])
    for kind in KINDS:
        assert np.array_equal(class_weights(with_unknown, 2, kind), class_weights(labels, 2, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_class_is_an_error_that_names_it(kind: str) -> None:
    with pytest.raises(DataError, match="class 1, 3 "):
        class_weights(np.array([0, 0, 2]), 4, kind)
