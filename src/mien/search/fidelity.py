"""How much training a setting gets before it is judged: successive halving and Hyperband as data.

A search is a ladder of rungs, each with more epochs or more images than the one below, and brackets
of settings that enter it at some rung. When a bracket's rung is complete, the best ``1 / eta`` of
it are trained on the next one. `due` reads from what has been measured what is to be trained next,
and from nothing else, so any number of workers may ask it, at any time, and get the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import RecipeError
from mien.runs.recipe import Recipe

if TYPE_CHECKING:
    from mien.search.trials import Trial

LEAST_SHARE = 1 / 9
"""The smallest part of Training that a setting is judged by."""


@dataclass(frozen=True)
class Rung:
    """A fidelity: so many epochs at most, on a share of Training."""

    epochs: int
    share: float = 1.0

    def __str__(self) -> str:
        part = "" if self.share == 1 else f" on {self.share:.0%} of Training"
        return f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}{part}"


@dataclass(frozen=True)
class Bracket:
    """So many settings that enter at a rung, counted from 0."""

    settings: int
    first: int = 0


@dataclass(frozen=True)
class Fidelity:
    """The plan of a search: rungs from the lowest to full training, brackets, and their ratio."""

    name: str
    rungs: tuple[Rung, ...]
    brackets: tuple[Bracket, ...]
    eta: int = 3

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "name": self.name,
            "eta": self.eta,
            "rungs": [asdict(rung) for rung in self.rungs],
            "brackets": [asdict(bracket) for bracket in self.brackets],
        }

    @property
    def top(self) -> int:
        """The number of the rung of full training."""
        return len(self.rungs) - 1

    @property
    def settings(self) -> int:
        """Settings that enter, all brackets together; they are numbered bracket by bracket."""
        return sum(bracket.settings for bracket in self.brackets)

    def bracket_of(self, number: int) -> int:
        """The bracket that the setting of this number enters."""
        ends = np.cumsum([bracket.settings for bracket in self.brackets])
        return int(np.searchsorted(ends, number, side="right"))

    def places(self, bracket: int, rung: int) -> int:
        """How many settings of a bracket are trained on a rung."""
        entered = self.brackets[bracket]
        if rung < entered.first:
            return 0
        return max(1, entered.settings // self.eta ** (rung - entered.first))


def full(settings: int, epochs: int, eta: int = 3) -> Fidelity:
    """Every setting is trained in full."""
    return Fidelity("full", (Rung(epochs),), (Bracket(settings),), eta)


def halving(settings: int, epochs: int, eta: int = 3) -> Fidelity:
    """Successive halving: one bracket, from as low a rung as leaves one setting at the top.

    K. Jamieson and A. Talwalkar, Non-stochastic best arm identification and hyperparameter
    optimization, AISTATS 2016. With n settings and all rungs it costs ``(1 + log_eta n) / n`` of
    training them all.
    """
    rungs = _rungs(settings, epochs, eta)
    return Fidelity("halving", rungs, (Bracket(settings),), eta)


def hyperband(settings: int, epochs: int, eta: int = 3) -> Fidelity:
    """Hyperband: a bracket for every rung to enter at, so that not all rests on the lowest.

    The settings are divided in the proportions of L. Li and others, Hyperband: a novel bandit-based
    approach to hyperparameter optimization, JMLR 18 (2018), so that brackets cost about the same.
    """
    rungs = _rungs(settings, epochs, eta)
    # With s rungs above the one it enters at, s = R - 1, ..., 0, a bracket gets eta^s / (s + 1).
    parts = np.array([eta**s / (s + 1) for s in range(len(rungs))][::-1])
    ends = np.round(np.cumsum(parts / parts.sum()) * settings).astype(int)
    counts = np.diff(ends, prepend=0)
    brackets = tuple(Bracket(int(n), first) for first, n in enumerate(counts) if n)
    return Fidelity("hyperband", rungs, brackets, eta)


FIDELITIES: dict[str, Callable[[int, int, int], Fidelity]] = {
    "full": full,
    "halving": halving,
    "hyperband": hyperband,
}


def _rungs(settings: int, epochs: int, eta: int) -> tuple[Rung, ...]:
    """Rungs that each cost 1/eta of the next: fewer epochs first, below one epoch fewer images."""
    if eta < 2:
        raise RecipeError(f"eta = {eta} promotes everything; give 2 or more")
    rungs = [Rung(epochs)]
    ratio = eta
    while ratio <= settings and epochs / ratio >= LEAST_SHARE * (1 - 1e-9):
        share = min(1.0, epochs / ratio)
        rungs.insert(0, Rung(max(1, round(epochs / ratio)), share))
        ratio *= eta
    return tuple(rungs)


def due(fidelity: Fidelity, trials: Sequence[Trial]) -> list[tuple[int, int]]:
    """What is to be trained beyond the trials there are: number of the setting, and rung.

    For every rung of a bracket that is complete, the best of it on the next rung. A failed trial is
    never promoted, and of equals the one that entered first is. Settings that were one training so
    far, because they differ in epochs that come later, go on together: nothing tells them apart.
    """
    there = {(trial.number, trial.rung) for trial in trials}
    found = []
    for number, bracket in enumerate(fidelity.brackets):
        own = [t for t in trials if t.rung < fidelity.top]
        own = [t for t in own if fidelity.bracket_of(t.number) == number]
        wanted = bracket.settings
        for rung in range(bracket.first, fidelity.top):
            ended = [t for t in own if t.rung == rung and t.state in ("done", "failed")]
            if len(ended) < wanted:
                break
            best = sorted((t for t in ended if t.value is not None), key=merit)
            works = {t.work for t in best[: fidelity.places(number, rung + 1)]}
            promoted = [t for t in best if t.work in works]
            found += [(t.number, rung + 1) for t in promoted if (t.number, rung + 1) not in there]
            wanted = len(promoted)
    return found


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with no more than so many epochs.

    A warm-up keeps its share of a schedule that is laid over the whole training; otherwise it is as
    long as it was, if there is time for it.
    """
    if epochs >= recipe.epochs:
        return recipe
    warmup = min(recipe.warmup, float(epochs))
    if recipe.schedule != "constant":
        warmup = recipe.warmup * epochs / recipe.epochs
    return recipe.but(epochs=epochs, warmup=warmup)


def merit(trial: Trial) -> tuple[float, int]:
    """Sorts measured trials from the best: by value, of equals the one that entered first."""
    assert trial.value is not None
    return -trial.value, trial.number


def subset_of(faces: FaceSet, share: float) -> np.ndarray:
    """The rows of a share of every class, sorted; at least one of each that there is.

    Drawn at random but always the same, and a smaller share lies within a larger one.
    """
    rng = np.random.default_rng(0)
    chosen = []
    for label in range(len(faces.classes)):
        rows = rng.permutation(np.flatnonzero(faces.labels == label))
        chosen.append(rows[: math.ceil(share * len(rows) - 1e-9)])
    return np.sort(np.concatenate(chosen))
