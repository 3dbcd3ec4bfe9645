"""Which setting is tried next: the grid in order, at random, by TPE or by CMA-ES.

Nothing is kept between two questions. A sampler is rebuilt each time from what stands in the trial
table, so any worker can ask, also after an interruption, and what it answers depends only on the
seed, the number of the setting asked for, and the trials there are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import RecipeError, RunError, unknown
from mien.search.space import KIND_OF, Range, Setting, Space, setting_key
from mien.search.trials import Trial

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("grid", "random", "tpe", "cmaes")

MOST_ASKS = 100
"""Times a sampler is asked again because it gave a setting that is tried already."""


def check_sampler(sampler: str, space: Space, settings: int | None) -> int:
    """The number of settings to try; all of the space where None is asked for.

    Raises
    ------
    RecipeError
        for an unknown sampler, one that does not fit the space, and more settings than there are.
    """
    if sampler not in SAMPLERS:
        raise RecipeError(unknown("sampler", sampler, SAMPLERS))
    where = f"space '{space.name}'"
    if sampler == "grid":
        space.grid()
    if sampler == "cmaes":
        listed = [n for n, given in space.parameters.items() if not isinstance(given, Range)]
        if listed:
            raise RecipeError(
                f"{where}: CMA-ES moves through ranges of numbers, and {', '.join(listed)} has "
                "levels; give low and high instead, or use tpe"
            )
        if len(space.parameters) == 1:
            raise RecipeError(f"{where}: CMA-ES needs two ranges or more; use tpe or random")
    if settings is None:
        if space.size is None:
            raise RecipeError(f"{where}: has a continuous range; say how many settings to try")
        return space.size
    if settings < 1 or (space.size is not None and settings > space.size):
        most = "any number" if space.size is None else f"1 to {space.size}"
        raise RecipeError(f"{where}: {settings} settings cannot be tried; give {most}")
    return settings


def propose(
    sampler: str, space: Space, trials: Sequence[Trial], number: int, rung: int, seed: int
) -> Setting:
    """The setting with this number, which enters at a rung: one that is not among the trials.

    TPE and CMA-ES learn from what was measured on that very rung, since accuracies after few epochs
    and after many are not to be compared. Trials that are not done yet are taken by TPE as bad
    ones, so that workers who ask at the same time spread out; a failed one counts as accuracy 0.

    Raises
    ------
    RunError
        if a continuous space gives only settings that were tried.
    """
    if sampler == "grid":
        return space.grid()[_order(space, seed)[number]]
    tried = {trial.setting for trial in trials}
    known = [trial for trial in trials if trial.rung == rung]
    if sampler == "cmaes":
        found = _by_cmaes(space, known, tried, np.random.SeedSequence([seed, number]))
    else:
        found = _by_optuna(sampler, space, known, tried, (seed, number))
    if found is not None:
        return found
    if space.size is None:
        raise RunError(
            f"space '{space.name}': {MOST_ASKS} settings in a row were tried already; widen its "
            "ranges, or ask for fewer"
        )
    left = [setting for setting in space.grid() if setting_key(setting) not in tried]
    return left[int(np.random.default_rng([seed, number]).integers(len(left)))]


def _order(space: Space, seed: int) -> np.ndarray:
    """The grid shuffled: what enters another bracket, or is left out, is not all of one level."""
    assert space.size is not None
    return np.random.default_rng(seed).permutation(space.size)


def _by_optuna(
    sampler: str, space: Space, known: Sequence[Trial], tried: set[str], seeds: tuple[int, int]
) -> Setting | None:
    import optuna

    # A sampler draws one stream of numbers, and the study is asked again where it repeats one.
    seed = int(np.random.default_rng(seeds).integers(2**31))
    kinds: dict[str, optuna.samplers.BaseSampler] = {
        "random": optuna.samplers.RandomSampler(seed=seed),
        "tpe": optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    }
    study = study_of(space, known, kinds[sampler])
    for _ in range(MOST_ASKS):
        asked = study.ask(distributions(space))
        setting = space.setting({n: _value(space, n, v) for n, v in asked.params.items()})
        if setting_key(setting) not in tried:
            return setting
    return None


def study_of(
    space: Space, trials: Sequence[Trial], sampler: optuna.samplers.BaseSampler | None = None
) -> optuna.Study:
    """An Optuna study, in memory, of these trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    kinds = distributions(space)
    states = optuna.trial.TrialState
    for trial in trials:
        ended = trial.state in ("done", "failed")
        values = trial.values
        study.add_trial(
            optuna.trial.FrozenTrial(
                number=0,  # the study numbers its trials itself
                trial_id=0,
                state=states.COMPLETE if ended else states.RUNNING,
                value=(trial.value or 0.0) if ended else None,
                params={name: _parameter(space, name, values[name]) for name in kinds},
                distributions=kinds,
                datetime_start=datetime.now(),
                datetime_complete=datetime.now() if ended else None,
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
        )
    return study


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """The parameters as Optuna has them; levels are categories named by their JSON."""
    import optuna.distributions as kinds

    found: dict[str, kinds.BaseDistribution] = {}
    for name, given in space.parameters.items():
        if not isinstance(given, Range):
            found[name] = kinds.CategoricalDistribution([json.dumps(level) for level in given])
        elif KIND_OF[name] == "int":
            step = int(given.step or 1)
            found[name] = kinds.IntDistribution(int(given.low), int(given.high), given.log, step)
        else:
            found[name] = kinds.FloatDistribution(given.low, given.high, given.log, given.step)
    return found


def _parameter(space: Space, name: str, value: Any) -> Any:
    return value if isinstance(space.parameters[name], Range) else json.dumps(value)


def _value(space: Space, name: str, parameter: Any) -> Any:
    given = space.parameters[name]
    if not isinstance(given, Range):
        return json.loads(parameter)
    steps = given.values()  # from which Optuna's numbers differ in their last digits
    return parameter if steps is None else min(steps, key=lambda step: abs(step - parameter))


def _by_cmaes(
    space: Space, known: Sequence[Trial], tried: set[str], seeds: np.random.SeedSequence
) -> Setting | None:
    """N. Hansen's CMA-ES over the unit cube, run again from its first generation.

    Optuna's own sampler would need its pickled state kept in the table, which a shared database is
    no place for. A generation is told when all of it is measured; what is asked for before that
    comes from the distribution of the one before, as Optuna's does.
    """
    from cmaes import CMA

    ranges = {n: g for n, g in space.parameters.items() if isinstance(g, Range)}
    optimiser = CMA(
        mean=np.full(len(ranges), 0.5),
        sigma=1 / 6,  # Optuna's choice: the ends are three deviations from the middle
        bounds=np.array([[0.0, 1.0]] * len(ranges)),
        seed=int(seeds.generate_state(1)[0]),
    )
    size = optimiser.population_size
    for start in range(0, len(known) - size + 1, size):
        generation = known[start : start + size]
        if any(trial.state not in ("done", "failed") for trial in generation):
            break
        optimiser.tell(
            [
                (
                    np.array([_to_unit(ranges[n], t.values[n]) for n in ranges]),
                    -(t.value or 0.0),
                )
                for t in generation
            ]
        )
    for _ in range(MOST_ASKS):
        point = dict(zip(ranges, optimiser.ask(), strict=True))
        setting = space.setting(
            {n: _from_unit(ranges[n], u, KIND_OF[n] == "int") for n, u in point.items()}
        )
        if setting_key(setting) not in tried:
            return setting
    return None


def _to_unit(given: Range, value: float) -> float:
    if given.log:
        return math.log(value / given.low) / math.log(given.high / given.low)
    return (value - given.low) / (given.high - given.low)


def _from_unit(given: Range, unit: float, whole: bool) -> float:
    if (steps := given.values()) is not None:
        return steps[round(unit * (len(steps) - 1))]
    if given.log:
        value = given.low * (given.high / given.low) ** unit
    else:
        value = given.low + unit * (given.high - given.low)
    value = min(max(value, given.low), given.high)
    return round(value) if whole else value
