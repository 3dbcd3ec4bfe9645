from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.runs.recipe import CHOICES, Recipe
from mien.training.schedule import learning_rate


def rates(recipe: Recipe, steps: int) -> list[float]:
    return [learning_rate(recipe, step, steps) for step in range(recipe.epochs * steps)]


def test_one_cycle_rises_for_30_percent_and_falls_to_zero() -> None:
    recipe = Recipe(schedule="onecycle", epochs=10, lr=2.0)
    at = {step: learning_rate(recipe, step, 10) for step in (0, 15, 30, 65, 99, 100)}
    assert at[0] == pytest.approx(2 / 25)
    assert at[15] == pytest.approx(2 * (0.04 + 0.96 / 2))
    assert at[30] == pytest.approx(2)
    assert at[65] == pytest.approx(1)  # half of the fall
    assert at[99] == pytest.approx(2 * 0.000503, rel=1e-2)  # sin^2(pi / 140)
    assert at[100] == pytest.approx(0, abs=1e-12)


def test_one_cycle_rises_to_its_top_once_and_never_again() -> None:
    found = rates(Recipe(schedule="onecycle", epochs=7, lr=0.1), 9)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert max(found) == pytest.approx(0.1)


def test_cosine_falls_over_what_the_warm_up_leaves() -> None:
    recipe = Recipe(schedule="cosine", epochs=10, lr=1.0, warmup=2)
    at = {step: learning_rate(recipe, step, 10) for step in (0, 9, 19, 20, 40, 60, 80, 100)}
    assert at[0] == pytest.approx(1 / 20)
    assert at[9] == pytest.approx(10 / 20)
    assert at[19] == pytest.approx(1)
    assert at[20] == pytest.approx(1)
    assert at[40] == pytest.approx((1 + 2**-0.5) / 2)
    assert at[60] == pytest.approx(0.5)
    assert at[80] == pytest.approx((1 - 2**-0.5) / 2)
    assert at[100] == pytest.approx(0, abs=1e-12)


def test_step_divides_by_ten_after_half_and_three_quarters() -> None:
    found = rates(Recipe(schedule="step", epochs=4, lr=1.0), 5)
    assert found == pytest.approx([1] * 10 + [0.1] * 5 + [0.01] * 5)


def test_constant_is_constant_after_its_warm_up() -> None:
    found = rates(Recipe(schedule="constant", epochs=3, lr=0.3, warmup=0.5), 4)
    assert found == pytest.approx([0.15] + [0.3] * 11)


def test_a_training_of_one_step_has_a_rate_above_zero() -> None:
    for schedule in CHOICES["schedule"]:
        assert 0 < learning_rate(Recipe(schedule=schedule, epochs=1, lr=1.0), 0, 1) <= 1


@given(
    st.sampled_from(CHOICES["schedule"]),
    st.integers(1, 50),
    st.integers(1, 30),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_no_rate_is_above_the_highest_or_below_zero(
    schedule: str, epochs: int, steps: int, warm: float, place: float
) -> None:
    warmup = 0.0 if schedule == "onecycle" else warm * epochs
    recipe = Recipe(schedule=schedule, epochs=epochs, lr=0.25, warmup=warmup)
    step = min(int(place * epochs * steps), epochs * steps - 1)
    assert 0 <= learning_rate(recipe, step, steps) <= 0.25 * (1 + 1e-12)
