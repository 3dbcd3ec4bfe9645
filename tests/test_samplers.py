from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from mien.errors import RecipeError, RunError
from mien.search.samplers import SAMPLERS, check_sampler, propose
from mien.search.space import Range, Setting, Space, setting_key
from mien.search.trials import Trial

LISTED = Space(
    "listed", {}, {"lr": [0.1, 0.01, 0.001], "optimiser": ["sgd", "adamw"], "l2": [0, 1]}
)
RANGES = Space(
    "ranges", {}, {"lr": Range(1e-4, 1, log=True), "flip": Range(0, 1), "batch_size": Range(8, 128)}
)


def trial(number: int, setting: Setting, value: float | None, rung: int = 0) -> Trial:
    state = "running" if value is None else "done"
    return Trial(number, number, setting_key(setting), rung, "", state, value=value)


def searched(sampler: str, space: Space, n: int, value: object, seed: int = 0) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(n):
        setting = propose(sampler, space, trials, number, 0, seed)
        trials.append(trial(number, setting, value(setting)))  # type: ignore[operator]
    return trials


def distance(setting: Setting) -> float:
    """How far a setting is from the best: lr 0.01, no flip, batches of 100."""
    return (
        abs(np.log10(setting["lr"]) + 2) / 4
        + setting["flip"]
        + abs(setting["batch_size"] - 100) / 120
    )


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_every_sampler_goes_through_a_whole_grid_without_repeating_itself(sampler: str) -> None:
    trials = searched(sampler, LISTED, 12, lambda setting: 0.5)
    assert {t.setting for t in trials} == {setting_key(s) for s in LISTED.grid()}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_question_has_the_same_answer_and_another_seed_another(sampler: str) -> None:
    space = LISTED if sampler == "grid" else RANGES
    known = searched(sampler, space, 4, lambda setting: 0.5)
    first = propose(sampler, space, known, 4, 0, 0)
    assert propose(sampler, space, known, 4, 0, 0) == first
    others = [propose(sampler, space, [], 0, 0, seed) for seed in range(1, 5)]
    assert any(setting != propose(sampler, space, [], 0, 0, 0) for setting in others)


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_ranges_are_kept_and_integers_stay_whole(sampler: str) -> None:
    for t in searched(sampler, RANGES, 12, lambda setting: 1 - distance(setting) / 3):
        setting = t.values
        assert 1e-4 <= setting["lr"] <= 1
        assert 0 <= setting["flip"] <= 1
        assert setting["batch_size"] in range(8, 129)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_those_that_learn_come_nearer_than_chance(sampler: str) -> None:
    def last(sampler: str, seed: int) -> float:
        trials = searched(sampler, RANGES, 36, lambda s: 1 - distance(s) / 3, seed)
        return float(np.mean([distance(t.values) for t in trials[-10:]]))

    learned, chance = (np.mean([last(s, seed) for seed in range(2)]) for s in (sampler, "random"))
    assert learned < 0.75 * chance


def test_workers_that_ask_at_once_do_not_get_the_same_setting() -> None:
    done = searched("tpe", LISTED, 5, lambda setting: setting["lr"])
    trials = list(done)
    for number in range(5, 12):
        setting = propose("tpe", LISTED, trials, number, 0, 0)
        trials.append(trial(number, setting, None))
    assert len({t.setting for t in trials}) == 12


def test_only_what_was_measured_at_the_same_fidelity_is_learned_from() -> None:
    other = searched("tpe", LISTED, 11, lambda setting: setting["lr"])
    elsewhere = [trial(t.number, t.values, t.value, rung=1) for t in other]
    (left,) = {setting_key(s) for s in LISTED.grid()} - {t.setting for t in other}
    assert setting_key(propose("tpe", LISTED, elsewhere, 11, 0, 0)) == left
    space = Space("wide", {}, {"lr": Range(0.1, 1), "flip": Range(0, 1)})
    known = searched("tpe", space, 15, lambda setting: setting["lr"])
    moved = [trial(t.number, t.values, t.value, rung=1) for t in known]
    assert propose("tpe", space, moved, 15, 0, 0) == propose("tpe", space, [], 15, 0, 0)
    assert propose("tpe", space, known, 15, 0, 0) != propose("tpe", space, [], 15, 0, 0)


def test_failed_trials_are_bad_ones_not_missing_ones() -> None:
    space = Space("wide", {}, {"lr": Range(0.1, 1), "flip": Range(0, 1)})
    numbers = count()
    known = [
        Trial(0, next(numbers), setting_key({"lr": lr, "flip": 0.5}), 0, "", *ended)
        for lr in np.linspace(0.1, 1, 30).tolist()
        for ended in [("failed",) if lr > 0.4 else ("done", None, 0, 0, 0.5)]
    ]
    asked = [propose("tpe", space, known, number, 0, seed=number)["lr"] for number in range(30, 40)]
    assert np.mean(asked) < 0.4


def test_cma_es_wants_ranges_and_says_what_else_to_take() -> None:
    with pytest.raises(RecipeError, match=r"lr, optimiser, l2 has levels.*use tpe"):
        check_sampler("cmaes", LISTED, 3)
    with pytest.raises(RecipeError, match="two ranges or more"):
        check_sampler("cmaes", Space("one", {}, {"lr": Range(0.1, 1)}), 3)
    assert check_sampler("cmaes", RANGES, 3) == 3


def test_more_settings_than_there_are_or_an_unknown_number_of_them_is_refused() -> None:
    assert check_sampler("random", LISTED, None) == 12
    for settings in (0, 13):
        with pytest.raises(RecipeError, match=f"{settings} settings cannot be tried; give 1 to 12"):
            check_sampler("tpe", LISTED, settings)
    with pytest.raises(RecipeError, match="say how many settings"):
        check_sampler("tpe", RANGES, None)
    with pytest.raises(RecipeError, match="continuous range has no grid"):
        check_sampler("grid", RANGES, 5)
    with pytest.raises(RecipeError, match=r"unknown sampler 'tpa'.*did you mean 'tpe'"):
        check_sampler("tpa", LISTED, 5)


def test_a_space_that_gives_nothing_new_says_so_instead_of_asking_for_ever() -> None:
    space = Space("narrow", {}, {"batch_size": Range(8, 9, log=True)})
    known = [trial(i, {"batch_size": 8 + i}, 0.5) for i in range(2)]
    with pytest.raises(RunError, match="tried already"):
        propose("random", space, known, 2, 0, 0)


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_every_number_of_a_range_of_decimals_can_be_tried(sampler: str) -> None:
    space = Space(
        "decimals", {}, {"dropout": Range(0, 0.45, step=0.15), "flip": Range(0, 0.3, step=0.1)}
    )
    trials = searched(sampler, space, 16, lambda setting: setting["dropout"])
    assert {t.setting for t in trials} == {setting_key(s) for s in space.grid()}
