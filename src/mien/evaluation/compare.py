"""Which of two or more models is better, by the tests that the way they were measured allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.evaluation.cross_validation import CrossValidation
from mien.evaluation.outcome import Test
from mien.evaluation.ranks import Friedman, friedman, holm
from mien.evaluation.significance import (
    combined_f_5x2cv,
    corrected_resampled_t,
    mcnemar,
    paired_bootstrap,
    paired_t_5x2cv,
)
from mien.metrics import wilson_interval
from mien.runs.run import Predictions, Run


@dataclass(frozen=True)
class Pair:
    """One test of two models, its p also adjusted by Holm for all pairs of the comparison."""

    first: str
    second: str
    test: Test
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """What the tests of two or more models found.

    Attributes
    ----------
    scheme : ``"5x2"``, ``"k-fold"``, or ``"one test set"``
    models : name and accuracy of each (over folds, the mean), with what else is known of it
    pairs : every test of every two models, or of those that were asked for
    family : of three or more models over folds, Friedman's test with Nemenyi's; else None
    notes : to be printed beneath
    """

    scheme: str
    models: tuple[dict[str, Any], ...]
    pairs: tuple[Pair, ...]
    family: Friedman | None
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every finding as a sentence to quote."""
        names = [model["name"] for model in self.models]
        several = len(names) > 2
        found = [
            pair.test.sentence(pair.first, pair.second, pair.p_holm if several else None)
            for pair in self.pairs
        ]
        return (*found, *([self.family.sentence(names)] if self.family else []))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "scheme": self.scheme,
            "models": list(self.models),
            "tests": [
                {"first": p.first, "second": p.second, **p.test.to_dict(), "p_holm": p.p_holm}
                for p in self.pairs
            ],
            "family": self.family.to_dict() if self.family else None,
            "sentences": list(self.sentences),
            "notes": list(self.notes),
        }


def compare_runs(
    runs: Sequence[Run],
    split: str | None = None,
    *,
    faces: FaceSet | None = None,
    without_copies: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare finished runs, or records of them, on the images of one labelled split.

    Every two by McNemar's test and a paired bootstrap of the difference in accuracy.

    Parameters
    ----------
    split : what to compare on; None takes the one labelled split that all have predictions for
    faces : the data set, needed where a run did not note which images it was trained on
    without_copies : leave out the images that stand in any run's training part
    seed : of the bootstrap

    Raises
    ------
    DataError
        if the runs were measured on other images, or labels, than each other; if some of these
        stand in a training part; or if that cannot be told.
    RunError
        for fewer than two runs, or one that is not finished or has no such predictions.
    """
    _check_runs(runs)
    split = split or _common_split(runs)
    found = [run.predictions(split) for run in runs]
    if unlabelled := int((found[0].labels < 0).sum()):
        raise DataError(
            f"{runs[0].name}: {unlabelled:,} images of '{split}' have no label; name another split"
        )
    for run, predictions in zip(runs[1:], found[1:], strict=True):
        _check_same_images(runs[0], found[0], run, predictions, split)
    seen = np.stack([_seen(run, p, split, faces) for run, p in zip(runs, found, strict=True)])
    copies, notes = seen.any(0), []
    if copies.any():
        of = f"{int(copies.sum()):,} of {copies.size:,} images of '{split}' stand"
        if not without_copies:
            per_run = ", ".join(
                f"{int(row.sum()):,} for {run.name}" for run, row in zip(runs, seen, strict=True)
            )
            raise DataError(
                f"{of} pixel for pixel in a training part ({per_run}), so a test on them is "
                "invalid; leave them out for all runs (without_copies, --without-copies)"
            )
        if copies.all():
            raise DataError(f"{of} in a training part, so none is left; compare on another split")
        notes.append(f"{of} in a training part and are left out for all")
    labels = found[0].labels[~copies]
    right = [p.probabilities[~copies].argmax(1) == labels for p in found]
    names = _names(runs)
    notes += [
        f"{name} chose its last epoch on '{split}', so its accuracy there is too high"
        for name, run in zip(names, runs, strict=True)
        if run.recipe.patience and split in run.info["data"]["validation"]["split"]
    ]
    # A fold's run goes by the split that it was trained on a part of.
    part = "images held out of" if split in runs[0].info["data"]["train"]["split"] else "images of"
    return Comparison(
        "one test set",
        tuple(
            {
                "name": name,
                "run": run.name,
                "accuracy": float(hits.mean()),
                "interval": wilson_interval(int(hits.sum()), len(hits)),
                "n": len(hits),
            }
            for name, run, hits in zip(names, runs, right, strict=True)
        ),
        _pairs(names, right, lambda a, b: (mcnemar(a, b), paired_bootstrap(a, b, seed=seed))),
        None,
        (f"on {len(labels):,} {part} '{split}'", *notes),
    )


def compare_folds(cv: CrossValidation, pairs: Sequence[tuple[str, str]] = ()) -> Comparison:
    """Compare cross-validated models by the tests that their scheme allows.

    5x2: the 5x2cv paired t-test and the combined F-test; k-fold: the corrected resampled t-test;
    and for three or more models Friedman's with Nemenyi's.

    Parameters
    ----------
    pairs : names of the models to test against each other, settled before the trainings; by
        default every two

    Raises
    ------
    DataError
        for fewer than two models, a training that is missing, a scheme of one fold, or models
        whose differences do not vary.
    """
    names = list(cv.recipes)
    if len(names) < 2:
        raise DataError(f"{len(names)} model(s): there is nothing to compare; give two or more")
    if cv.scheme not in ("5x2", "k-fold"):
        raise DataError(
            f"the scheme '{cv.scheme}' trains each model once, so no test over folds applies; "
            "compare the runs on the images they were measured on, or cross-validate by 5x2"
        )
    missing = [
        f"{names[row]} on {cv.folds[column]['name']}"
        for row, column in np.argwhere(np.isnan(cv.accuracy))
    ]
    if missing:
        raise DataError(
            f"trainings are missing ({', '.join(missing)}), and no test over folds can do without; "
            "cross-validate again, finished folds are not repeated"
        )
    share = float(np.mean([f["n_held_out"] / (f["n_held_out"] + f["n_train"]) for f in cv.folds]))

    def test(first: np.ndarray, second: np.ndarray) -> tuple[Test, ...]:
        differences = first - second
        if cv.scheme == "k-fold":
            return (corrected_resampled_t(differences, share),)
        halves = differences.reshape(-1, 2)
        return paired_t_5x2cv(halves), combined_f_5x2cv(halves)

    return Comparison(
        cv.scheme,
        tuple(
            {"name": name, "accuracy": float(row.mean()), "std": float(row.std(ddof=1))}
            for name, row in zip(names, cv.accuracy, strict=True)
        ),
        _pairs(names, list(cv.accuracy), test, pairs),
        friedman(cv.accuracy.T) if len(names) > 2 else None,
        (cv.label,) if cv.label else (),
    )


def _pairs(
    names: Sequence[str],
    values: Sequence[np.ndarray],
    test: Callable[[np.ndarray, np.ndarray], tuple[Test, ...]],
    pairs: Sequence[tuple[str, str]] = (),
) -> tuple[Pair, ...]:
    """Test every two models, or `pairs`, and adjust each kind of test for the number of pairs."""
    of = dict(zip(names, values, strict=True))
    found = []
    for first, second in pairs or combinations(names, 2):
        try:
            found.append((first, second, test(of[first], of[second])))
        except DataError as error:
            raise DataError(f"{first} and {second}: {error}") from error
    p_holm = np.apply_along_axis(holm, 0, [[one.p for one in tests] for _, _, tests in found])
    return tuple(
        Pair(first, second, one, float(p))
        for (first, second, tests), adjusted in zip(found, p_holm, strict=True)
        for one, p in zip(tests, adjusted, strict=True)
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Titles of the models, with the names of the runs where two share a title."""
    times = Counter(run.recipe.title for run in runs)
    return [
        run.recipe.title if times[run.recipe.title] == 1 else f"{run.recipe.title} ({run.name})"
        for run in runs
    ]


def _check_runs(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise RunError(f"{len(runs)} run(s): there is nothing to compare; give two or more")
    for run in runs:
        if not run.finished:
            raise RunError(f"{run.path}: is not finished; train it to its end first")
    name, times = Counter(run.name for run in runs).most_common(1)[0]
    if times > 1:
        raise RunError(f"{name}: was given {times} times; a run cannot be compared with itself")


def _common_split(runs: Sequence[Run]) -> str:
    """The one labelled split that all runs have predictions for."""
    splits = [s for s in runs[0].predicted if all(s in run.predicted for run in runs)]
    splits = [s for s in splits if (runs[0].predictions(s).labels >= 0).all()]
    if len(splits) != 1:
        held = "; ".join(f"{run.name} {', '.join(run.predicted) or 'none'}" for run in runs)
        raise RunError(
            f"labelled splits that all runs have predictions for: {', '.join(splits) or 'none'} "
            f"(held: {held}); "
            + ("name one" if splits else "predict a split with all of them first")
        )
    return splits[0]


def _check_same_images(
    first: Run, expected: Predictions, run: Run, found: Predictions, split: str
) -> None:
    """Refuse predictions that are not for the same images with the same labels as the first's."""
    both = f"{first.name} and {run.name}, '{split}'"
    if run.classes != first.classes:
        raise DataError(f"{both}: classes differ, {first.classes} and {run.classes}")
    if len(found.names) != len(expected.names):
        raise DataError(
            f"{both}: {len(expected.names):,} and {len(found.names):,} images; predict the same "
            "images with both"
        )
    for what, ours, theirs in (
        ("image", expected.names, found.names),
        ("label", expected.labels, found.labels),
    ):
        if (differ := ours != theirs).any():
            row = int(differ.argmax())
            raise DataError(
                f"{both}: {what} {row} is '{ours[row]}' for the one and '{theirs[row]}' for the "
                f"other, and {int(differ.sum()) - 1} more differ; predict the same images with both"
            )
    # One set may be read at two sizes, or in grey and in colour.
    alike = all(first.info.get(what) == run.info.get(what) for what in ("size", "channels"))
    digests = zip(_digests(first, expected, split), _digests(run, found, split), strict=True)
    if alike and any(None not in pair and pair[0] != pair[1] for pair in digests):
        raise DataError(
            f"{both}: the images have the same names and other pixels; predict the same images "
            "with both"
        )


def _digests(run: Run, found: Predictions, split: str) -> tuple[str | None, str | None]:
    """Of the pixels of the split, as its predictions and as its training noted them."""
    part = run.info.get("data", {}).get("validation", {})
    return found.pixels, part.get("fingerprint") if part.get("split") == [split] else None


def _seen(run: Run, found: Predictions, split: str, faces: FaceSet | None) -> np.ndarray:
    """Which images stand in the run's training part, bool ``[n]``."""
    if found.seen is not None:
        return found.seen
    if faces is None:
        raise DataError(
            f"{run.name}: did not note which images of '{split}' it was trained on; give the data "
            "set too"
        )
    train = run.training_part(faces)
    if train is None:
        raise DataError(
            f"{faces.name}: does not hold the images that {run.name} was trained on, so it cannot "
            f"be told which of '{split}' are among them; give the data set as it was then"
        )
    part = faces[split]
    if not np.array_equal(part.names, found.names):
        raise DataError(
            f"{faces.name}: the images of '{split}' are not those that {run.name} has predictions "
            "for; give the data set as it was then"
        )
    return part.stands_in(train)
