from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.data import draw_faces
from mien.errors import RecipeError
from mien.runs.recipe import Recipe
from mien.search.fidelity import (
    Bracket,
    Fidelity,
    Rung,
    due,
    full,
    halving,
    hyperband,
    shortened,
    subset_of,
)
from mien.search.trials import Trial


def trial(number: int, rung: int, value: float | None, state: str = "done") -> Trial:
    return Trial(0, number, str(number), rung, f"{number} {rung}", state, value=value)


def played_out(fidelity: Fidelity, values: list[float | None]) -> list[Trial]:
    """A whole search in which a setting comes to the same value on every rung; None: it fails."""
    trials: list[Trial] = []
    start = 0
    for bracket in fidelity.brackets:
        for number in range(start, start + bracket.settings):
            value = values[number]
            trials.append(trial(number, bracket.first, value, "done" if value else "failed"))
        start += bracket.settings
    while more := due(fidelity, trials):
        trials += [trial(number, rung, values[number]) for number, rung in more]
    return trials


def test_rungs_take_fewer_epochs_and_below_one_epoch_fewer_images() -> None:
    assert halving(243, 27).rungs == (
        Rung(1, pytest.approx(1 / 9)), Rung(1, pytest.approx(1 / 3)), Rung(1), Rung(3), Rung(9),
        Rung(27),
    )  # fmt: skip
    assert halving(27, 27).rungs == (Rung(1), Rung(3), Rung(9), Rung(27))
    assert halving(5, 200, 2).rungs == (Rung(50), Rung(100), Rung(200))
    assert halving(243, 1).rungs[0].share == pytest.approx(1 / 9), "less says nothing of a setting"
    assert str(halving(243, 27).rungs[0]) == "1 epoch on 11% of Training"
    assert full(7, 30).rungs == (Rung(30),)
    with pytest.raises(RecipeError, match="eta = 1 promotes everything"):
        halving(9, 9, 1)


@pytest.mark.parametrize(("n", "epochs", "eta"), [(81, 27, 3), (243, 50, 3), (64, 16, 2)])
def test_halving_costs_what_the_formula_says(n: int, epochs: int, eta: int) -> None:
    plan = halving(n, epochs, eta)
    cost = sum(plan.places(0, i) * r.epochs * r.share for i, r in enumerate(plan.rungs))
    levels = round(math.log(n, eta)) + 1
    assert len(plan.rungs) == levels
    assert cost / (n * epochs) == pytest.approx(levels / n, rel=0.06)  # epochs are whole


def test_hyperband_divides_the_settings_as_the_paper_does() -> None:
    plan = hyperband(143, 81)
    # Li and others, Table 1: 81, 34, 15, 8 and 5 settings for R = 81 and eta = 3, rounded there up.
    assert [b.settings for b in plan.brackets] == pytest.approx([81, 34, 15, 8, 5], abs=1)
    assert [b.first for b in plan.brackets] == [0, 1, 2, 3, 4]
    assert plan.settings == 143
    assert [plan.bracket_of(n) for n in (0, 80, 82, 142)] == [0, 0, 1, 4]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_best_of_each_rung_and_no_others_are_promoted_once(data: st.DataObject) -> None:
    n, epochs = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 30))
    plan = data.draw(st.sampled_from([halving, hyperband]))(n, epochs, 3)
    accuracy = st.one_of(st.none(), st.integers(1, 9).map(lambda v: v / 10))
    values = data.draw(st.lists(accuracy, min_size=n, max_size=n))
    trials = played_out(plan, values)
    keys = [(t.number, t.rung) for t in trials]
    assert len(keys) == len(set(keys))
    start = 0
    for number, bracket in enumerate(plan.brackets):
        entered = range(start, start + bracket.settings)
        start += bracket.settings
        ranked = sorted((i for i in entered if values[i]), key=lambda i: (-(values[i] or 0), i))
        for rung in range(bracket.first + 1, len(plan.rungs)):
            there = {t.number for t in trials if t.rung == rung and t.number in entered}
            assert there == set(
                ranked[: max(1, bracket.settings // 3 ** (rung - bracket.first))]
            ), number


def test_settings_that_were_one_training_so_far_go_on_together() -> None:
    plan = halving(9, 9)
    better = [replace(trial(n, 0, 0.1 * (n // 3)), work=f"{n // 3}") for n in range(9)]
    assert sorted(due(plan, better)) == [(6, 1), (7, 1), (8, 1)]
    second = [trial(6, 1, 0.5), trial(7, 1, 0.7), replace(trial(8, 1, 0.7), work="7 1")]
    assert sorted(due(plan, [*better, *second])) == [(7, 2), (8, 2)]


def test_nothing_is_promoted_before_its_rung_is_complete() -> None:
    plan = Fidelity("halving", (Rung(1), Rung(3)), (Bracket(3), Bracket(3)))
    first = [trial(0, 0, 0.3), trial(1, 0, 0.5), trial(2, 0, 0.4)]
    assert due(plan, first) == [(1, 1)]
    assert due(plan, first[:2]) == []
    assert due(plan, [*first[:2], replace(first[2], state="running", value=None)]) == []
    assert due(plan, [*first, trial(1, 1, None, "running")]) == [], "it stands there already"
    assert due(plan, [*first, trial(3, 0, 0.9)]) == [(1, 1)], "brackets do not compete"


def test_a_failed_trial_takes_nobodys_place() -> None:
    plan = halving(9, 9)
    values: list[float | None] = [None, None, None, None, None, None, None, 0.2, 0.1]
    trials = played_out(plan, values)
    assert [(t.number, t.rung) for t in trials if t.rung] == [(7, 1), (8, 1), (7, 2)]
    assert due(plan, played_out(plan, [None] * 9)) == []


def test_a_smaller_part_lies_in_a_larger_one_with_the_same_shares_of_each_class() -> None:
    faces = draw_faces(210, size=16)["train"]
    parts = [set(subset_of(faces, share)) for share in (1 / 9, 1 / 3, 1.0)]
    assert parts[0] < parts[1] < parts[2] == set(range(len(faces)))
    for part, share in zip(parts, (1 / 9, 1 / 3, 1), strict=True):
        counts = faces[np.array(sorted(part))].counts()
        np.testing.assert_array_equal(counts, np.ceil(share * faces.counts() - 1e-9))
    assert (faces[subset_of(faces, 0.001)].counts() == 1).all()
    np.testing.assert_array_equal(subset_of(faces, 1 / 3), subset_of(faces, 1 / 3))


def test_a_shorter_training_keeps_the_shape_of_its_schedule() -> None:
    cosine = Recipe(schedule="cosine", epochs=20, warmup=4)
    assert shortened(cosine, 5) == cosine.but(epochs=5, warmup=1)
    constant = Recipe(schedule="constant", epochs=20, warmup=4)
    assert shortened(constant, 5) == constant.but(epochs=5)
    assert shortened(constant, 2) == constant.but(epochs=2, warmup=2)
    assert shortened(cosine, 20) is shortened(cosine, 50) is cosine
