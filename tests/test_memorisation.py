"""Copies are found, and fresh faces are not taken for copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mien.balance.distances import nearest
from mien.balance.memorisation import compare_nearness, duplicates, low_quantile, near_duplicates
from mien.errors import DataError


def faces(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8))


def memorisation(train: np.ndarray, held_out: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
    return compare_nearness(nearest(held_out, train)[0], nearest(generated, train)[0])


def test_a_generator_that_hands_out_training_faces_is_found():
    train = faces(500, 0)
    generated = train[:200] + np.random.default_rng(3).normal(0, 0.05, (200, 8))
    found = memorisation(train, faces(400, 1), generated)
    assert found["generated_median"] < found["held_out_median"] / 4
    assert found["nearer_than_1st_percentile"] > 0.9
    assert found["p"] < 1e-30
    assert found["generated_copies"] == 0


def test_one_copy_in_ten_is_found_where_medians_are_still_alike():
    train = faces(500, 0)
    generated = np.concatenate([train[:40], faces(360, 2)])
    found = memorisation(train, faces(400, 1), generated)
    assert found["generated_median"] > 0.9 * found["held_out_median"]
    assert found["nearer_than_1st_percentile"] > 0.1
    assert found["generated_copies"] == 40


def test_fresh_faces_are_nearer_than_a_percentile_as_often_as_it_says():
    found = [
        memorisation(faces(300, s), faces(150, s + 99), faces(200, s + 999)) for s in range(60)
    ]
    first = np.mean([one["nearer_than_1st_percentile"] for one in found])
    fifth = np.mean([one["nearer_than_5th_percentile"] for one in found])
    assert (first, fifth) == (pytest.approx(0.01, abs=0.003), pytest.approx(0.05, abs=0.007))
    # p is uniform then
    assert stats.kstest([one["p"] for one in found], "uniform").pvalue > 0.01


@pytest.mark.parametrize("count", [30, 450])  # few, and more than there are fresh faces
def test_held_out_copies_of_training_faces_are_left_out_of_the_percentiles(count):
    train, held_out, generated = faces(500, 0), faces(300, 1), faces(200, 2)
    # as a network gives the same image in another batch: different in the rounding
    copies = train[:count] * (1 + np.random.default_rng(3).uniform(-1e-6, 1e-6, (count, 8)))
    clean = memorisation(train, held_out, generated)
    found = memorisation(train, np.concatenate([copies, held_out]), generated)
    assert found.pop("held_out_copies") == count
    assert clean.pop("held_out_copies") == 0
    assert found == clean


def test_a_percentile_that_so_few_faces_do_not_have_is_none():
    train, generated = faces(300, 0), faces(200, 2)
    for n, first, fifth in ((98, False, True), (99, True, True), (18, False, False)):
        found = memorisation(train, faces(n, 1), generated)
        assert found["n_held_out"] == n
        assert (found["nearer_than_1st_percentile"] is not None) == first
        assert (found["nearer_than_5th_percentile"] is not None) == fifth


def test_a_low_quantile_of_99_values_is_their_least():
    values = np.random.default_rng(0).permutation(np.arange(99.0))
    assert low_quantile(values, 0.01) == 0
    assert low_quantile(values, 0.05) == 4  # the fifth of them: 5 / 100 lie below it
    assert low_quantile(values[:98], 0.01) is None


def test_held_out_faces_that_are_all_copies_are_told():
    train = faces(50, 0)
    with pytest.raises(DataError, match="all 20 held-out faces stand in the training part"):
        memorisation(train, train[:20], faces(30, 1))


def test_each_repeat_of_an_image_counts_once():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    images[3] = images[5] = images[0]
    images[4] = images[1].T  # other pixels
    assert duplicates(images) == 2
    assert duplicates(np.repeat(images[..., None], 3, axis=3)) == 2
    assert duplicates(images[:0]) == 0
    with pytest.raises(DataError, match="uint8"):
        duplicates(images / 255)


def test_a_generator_with_few_faces_has_near_duplicates_and_fresh_faces_have_1_in_100():
    real = faces(400, 0)
    fresh = np.mean([near_duplicates(faces(400, s), real)["share"] for s in range(1, 20)])
    assert fresh == pytest.approx(0.01, abs=0.01)
    rng = np.random.default_rng(0)
    few = faces(40, 1)[rng.integers(0, 40, 400)] + rng.normal(0, 0.02, (400, 8))
    found = near_duplicates(few, real)
    assert found["share"] > 0.95
    assert found["near"] == pytest.approx(400 * found["share"])


def test_copies_among_the_real_faces_do_not_hide_near_duplicates():
    real, rng = faces(400, 0), np.random.default_rng(0)
    real[:20] = real[20:40]
    few = faces(40, 1)[rng.integers(0, 40, 400)] + rng.normal(0, 0.02, (400, 8))
    assert near_duplicates(few, real)["share"] > 0.95


def test_near_duplicates_are_compared_at_equal_numbers():
    with pytest.raises(DataError, match="equal numbers"):
        near_duplicates(faces(400, 0), faces(300, 1))
    assert near_duplicates(faces(50, 0), faces(50, 1))["share"] is None
