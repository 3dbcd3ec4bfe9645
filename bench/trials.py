"""Trials: recipes trained with several seeds on the same images, and their accuracy compared."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.data import FaceSet, read, roles
from mien.data.splits import sample
from mien.errors import RunInUseError
from mien.evaluation.ranks import holm
from mien.metrics import wilson_interval
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit

LIGHT: dict[str, Any] = {
    "flip": 0.5, "shift": 0.08, "rotate": 10.0, "zoom": 0.1, "brightness": 0.2, "contrast": 0.2,
}  # fmt: skip
"""Augmentation for short trainings, where the network is far from knowing the images by heart."""

SHORT = Recipe(width=0.25, batch_size=64, lr=2e-3, ema=0.99, **LIGHT)
"""What the six were first trained with, for five epochs, and what is compared here for as few."""

PAUSE = 5.0
"""Seconds until runs that other processes are training are looked for again."""


@dataclass(frozen=True)
class Parts:
    """What is trained on, what is watched, and which watched images stand nowhere in Training."""

    train: FaceSet
    validation: FaceSet
    unseen: np.ndarray

    def __str__(self) -> str:
        return (
            f"{self.train.name}: {len(self.train):,} images of {self.train.split[0]} (fingerprint "
            f"{self.train.fingerprint}); validation: {len(self.validation):,} of "
            f"{self.validation.split[0]}, {int(self.unseen.sum()):,} without the copies of "
            "training images. No epoch was chosen on them: the last averaged weights are taken"
        )


@dataclass(frozen=True)
class Trial:
    """One recipe's finished runs, a run a seed, and their accuracies in the same order."""

    recipe: Recipe
    runs: Sequence[Run]
    accuracies: np.ndarray  # [seeds], all validation images
    unseen_accuracies: np.ndarray  # [seeds], without copies of training images
    images: int

    @property
    def mean(self) -> float:
        return float(self.accuracies.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """What the number of validation images leaves open about the mean accuracy."""
        return wilson_interval(round(self.mean * self.images), self.images)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        return float(self.accuracies.std(ddof=1)) if len(self.runs) > 1 else None

    @property
    def curve(self) -> np.ndarray:
        """Validation accuracy after each epoch, mean over the seeds: ``[epochs]``."""
        return np.mean([[row["validation_accuracy"] for row in run.log] for run in self.runs], 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a benchmark that trains."""
    parser.add_argument("--images", type=int, help="training images per class; default: all")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each recipe")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/bench"),
        help="folder of the runs: the same command again trains only what is missing",
    )


def read_parts(data: str, per_class: int | None, votes: bool = False) -> Parts:
    """The training and the validation part of a data set, named as `mien.roles` names them."""
    faces, found = roles(read(data, votes=votes))
    train, validation = faces[found.train], faces[found.validation]
    return Parts(sample(train, per_class), validation, ~validation.stands_in(train))


def train_all(recipes: Sequence[Recipe], parts: Parts, args: argparse.Namespace) -> list[Trial]:
    """Train every recipe with every seed and return a trial each, in the order of `recipes`.

    Seed by seed, so that a drift of the machine falls on all recipes alike and what is there after
    an interruption can be compared. What another process is training is left to it and taken up
    when it is done, so the same command given twice shares the work.
    """
    asked = [(recipe, seed) for seed in range(args.seeds) for recipe in recipes]
    runs: dict[tuple[Recipe, int], Run] = {}
    while missing := [pair for pair in asked if pair not in runs]:
        before = len(runs)
        for recipe, seed in missing:
            with contextlib.suppress(RunInUseError):
                runs[recipe, seed] = trained(recipe.but(seed=seed), parts, args)
        if len(runs) == before:
            time.sleep(PAUSE)
    return [_trial(r, [runs[r, seed] for seed in range(args.seeds)], parts) for r in recipes]


def trained(recipe: Recipe, parts: Parts, args: argparse.Namespace) -> Run:
    """One training, for as many epochs as are asked for."""
    return fit(
        recipe.but(epochs=args.epochs),
        parts.train,
        parts.validation,
        runs=args.runs,
        device=args.device,
        progress="lines",
    )


def _trial(recipe: Recipe, runs: Sequence[Run], parts: Parts) -> Trial:
    found = [run.predictions(run.validation_split) for run in runs]
    right = np.stack([p.probabilities.argmax(1) == p.labels for p in found])
    return Trial(recipe, runs, right.mean(1), right[:, parts.unseen].mean(1), right.shape[1])


def p_values(first: np.ndarray, others: Sequence[np.ndarray]) -> list[float | None]:
    """Of a paired t-test over the seeds of each of `others` with `first`, corrected by Holm.

    None where every seed differs by the same, of which the test says nothing.
    """
    from scipy.stats import ttest_rel

    # Of a change that changes nothing the test itself would say nothing.
    found = [ttest_rel(o, first).pvalue if (o != first).any() else 1.0 for o in others]
    told = [not _alike(o - first) for o in others]
    corrected = iter(holm([p for p, known in zip(found, told, strict=True) if known]))
    return [float(next(corrected)) if known else None for known in told]


def _alike(differences: np.ndarray) -> bool:
    """Whether the seeds differ by one and the same amount, but for rounding, that is not 0."""
    return bool(differences.any() and np.ptp(differences) < 1e-12)


def difference(first: np.ndarray, second: np.ndarray) -> list:
    """Mean of ``second - first`` over the seeds, in points, its 95 % interval, and what it says.

    A paired t interval: runs of one seed see the same batches in the same order.
    """
    from scipy.stats import ttest_rel

    points = 100 * (second - first)
    if len(points) < 2:
        return [points.mean(), None, "one seed says nothing about it"]
    if _alike(second - first):
        return [points.mean(), None, "every seed says the same, and nothing about others"]
    if not points.any():
        bounds = (0.0, 0.0)
    else:
        found = ttest_rel(100 * second, 100 * first).confidence_interval()
        bounds = (float(found.low), float(found.high))
    within = bounds[0] <= 0 <= bounds[1]
    return [
        points.mean(),
        bounds,
        "within the spread of the seeds" if within else "beyond the spread",
    ]


def scale(parts: Parts, args: argparse.Namespace) -> str:
    """How large the trainings were, for captions."""
    images = "all training images" if args.images is None else f"{args.images} images a class"
    seeds = f"seeds 0 to {args.seeds - 1}" if args.seeds > 1 else "seed 0 alone"
    return f"{images} ({len(parts.train):,}), {args.epochs} epochs, {seeds}"
