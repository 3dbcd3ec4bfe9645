"""Deletion and insertion: against models whose curves are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from mien.explanation.faithfulness import (
    Scores,
    area,
    blurred,
    centre_maps,
    curve,
    deletion,
    gain,
    insertion,
    random_maps,
)

SIDE = 4


def additive(weights: torch.Tensor):  # type: ignore[no-untyped-def]
    """A score that is a weighted sum of the pixels: what each pixel is worth is known."""
    return lambda x: (x[:, 0] * weights).sum((1, 2))


def centred(n: int = 2, seed: int = 0) -> torch.Tensor:
    """Pixels with mean 0, so that deleting one takes away all it is worth."""
    x = torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (x - x.mean((2, 3), keepdim=True)).double()


def test_deletion_of_an_additive_model_is_worked_by_hand() -> None:
    x = torch.tensor([[[[3.0, -1.0], [-4.0, 2.0]]]])
    maps = torch.tensor([[[0.9, 0.1], [0.0, 0.5]]])  # so 3 goes first, then 2, -1 and -4
    score = additive(torch.ones(2, 2))
    found = curve(score, x, torch.zeros_like(x), maps, steps=4)
    torch.testing.assert_close(found, torch.tensor([[0.0, -3.0, -5.0, -4.0, 0.0]]))
    # By trapezoids of width 1/4: (0/2 - 3 - 5 - 4 + 0/2) / 4.
    torch.testing.assert_close(deletion(score, x, maps, 4), torch.tensor([-3.0]))


def test_insertion_of_an_additive_model_starts_from_the_blurred_image() -> None:
    x = centred()
    score = additive(torch.ones(SIDE, SIDE).double())
    maps = x[:, 0]
    worth = (x - blurred(x))[:, 0].flatten(1)
    order = maps.flatten(1).argsort(1, descending=True)
    steps = worth.gather(1, order).cumsum(1)
    start = blurred(x).sum((1, 2, 3))
    expected = torch.cat([start[:, None], start[:, None] + steps], 1)
    expected = (expected[:, 1:] + expected[:, :-1]).mean(1) / 2
    torch.testing.assert_close(insertion(score, x, maps, SIDE * SIDE), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_no_map_deletes_faster_than_the_true_worth_of_each_pixel(seed: int) -> None:
    x, score = centred(1, seed), additive(torch.ones(SIDE, SIDE).double())
    other = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed + 1))
    best, worst = deletion(score, x, x[:, 0], 16), deletion(score, x, -x[:, 0], 16)
    found = deletion(score, x, other, 16)
    assert float(best) - 1e-9 <= float(found) <= float(worst) + 1e-9


def test_equal_places_do_not_go_from_the_top_left() -> None:
    x = torch.zeros(1, 1, 16, 16)
    seen: list[torch.Tensor] = []

    def score(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.clone())
        return pixels.mean((1, 2, 3))

    curve(score, x, torch.ones_like(x), torch.zeros(1, 16, 16), steps=2)
    half = seen[1][0, 0]
    assert half.sum() == 128
    assert 40 < half[:8].sum() < 88


def test_a_batch_gives_what_its_images_give_alone() -> None:
    x, maps = centred(3), torch.rand(3, SIDE, SIDE)
    score = additive(torch.rand(SIDE, SIDE).double())
    together = deletion(score, x, maps, 5)
    alone = [deletion(score, x[i : i + 1], maps[i : i + 1], 5) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_area_is_that_of_trapezoids() -> None:
    found = area(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.5, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([0.25, 1.0, 0.5]))


def test_the_gain_is_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(4, 30))
    method, baseline = Scores(parts[0], parts[1] + 0.4), Scores(parts[2], parts[3])
    expected = ttest_rel(method.together, baseline.together).confidence_interval(0.95)
    mean, low, high = gain(method, baseline)
    assert mean == pytest.approx((method.together - baseline.together).mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_one_face_has_no_interval() -> None:
    one = Scores(np.array([0.2]), np.array([0.6]))
    zero = Scores(np.array([0.3]), np.array([0.3]))
    assert gain(one, zero) == [pytest.approx(0.4), None, None]


def test_the_baselines_know_nothing_of_the_image() -> None:
    random, centre = random_maps(2, (24, 24)), centre_maps(2, (24, 24))
    assert random.shape == centre.shape == (2, 24, 24)
    assert 0 <= random.min() <= random.max() <= 1
    assert not torch.equal(random[0], random[1])
    rows, columns = np.unravel_index(int(centre[0].argmax()), (24, 24))
    assert {int(rows), int(columns)} <= {11, 12}
    torch.testing.assert_close(centre[0], centre[0].flip(0))
    torch.testing.assert_close(centre[0], centre[0].T)
