"""Cross-validation: every model trained on every fold, and measured on what the fold holds out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import DataError, MienError, RecipeError, RunError
from mien.evaluation.schemes import SCHEMES, Fold
from mien.executors import Executor
from mien.jsonable import jsonable
from mien.metrics import evaluate
from mien.runs.recipe import Recipe
from mien.runs.run import Run, find_finished
from mien.training.jobs import Job, train_jobs

SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
"""The figures of merit that are kept of every fold, by their names in `Metrics`."""

NOTE = (
    "mean and standard deviation over the folds; folds share training images, so an interval made "
    "of this deviation as if they were independent is too narrow"
)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What models reach on the folds of one scheme.

    Attributes
    ----------
    scheme : a name of `SCHEMES`
    label : the scale, as every table says it
    data : name, fingerprint and number of the images that were divided
    recipes : of the M models, by name
    folds : name, ``n_train`` and ``n_held_out`` of the F folds
    accuracy, balanced_accuracy, macro_f1 : float ``[M, F]``, on the images held out; NaN where a
        training failed
    runs : names of the runs, ``[M][F]``; None where a training failed
    failures : model, fold and error of each training that failed
    """

    scheme: str
    label: str
    data: Mapping[str, Any]
    recipes: Mapping[str, Recipe]
    folds: Sequence[Mapping[str, Any]]
    accuracy: np.ndarray
    balanced_accuracy: np.ndarray
    macro_f1: np.ndarray
    runs: list[list[str | None]]
    failures: list[dict[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a score that is not known is None.

        Each model comes with its mean and standard deviation over the folds that are done.
        """
        models = []
        for row, (name, recipe) in enumerate(self.recipes.items()):
            scores = {score: getattr(self, score)[row] for score in SCORES}
            models.append(
                {"name": name, "recipe": recipe.to_dict(), "runs": self.runs[row]}
                | {score: jsonable(values) for score, values in scores.items()}
                | {"summary": {score: _summary(values) for score, values in scores.items()}}
            )
        return {
            "scheme": self.scheme,
            "label": self.label,
            "data": dict(self.data),
            "folds": [dict(fold) for fold in self.folds],
            "models": models,
            "failures": self.failures,
            "note": NOTE,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CrossValidation:
        """The inverse of `to_dict`.

        Raises
        ------
        DataError
            if something is missing.
        """
        plain = ("scheme", "label", "data", "folds", "failures")
        try:
            models = values["models"]
            known: dict[str, Any] = {key: values[key] for key in plain}
            known |= {score: np.array([m[score] for m in models], float) for score in SCORES}
            recipes = {m["name"]: Recipe.from_dict(m["recipe"], m["name"]) for m in models}
            return cls(**known, recipes=recipes, runs=[m["runs"] for m in models])
        except (KeyError, TypeError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"this is no whole cross-validation ({what}); cross-validate again, finished folds "
                "are not repeated"
            ) from error


def cross_validate(
    recipes: Mapping[str, Recipe],
    faces: FaceSet,
    scheme: str,
    folds: Sequence[Fold],
    *,
    executor: Executor,
    runs: Path | str,
    records: Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: str = "live",
    store: str | None = None,
    label: str = "",
) -> CrossValidation:
    """Train every recipe on every fold, and measure it on the images held out.

    Each is a run like any other, named by its content: one that is done is not trained again, and
    one that was stopped goes on. All that a training learns, normalisation included, it learns from
    the fold's training part. One that fails does not keep the others from being done.

    Parameters
    ----------
    recipes : by the names the models go by
    faces : the images that `folds` divide
    scheme : the name in `SCHEMES` of the function that made the folds
    executor : does the trainings, fold by fold, so that early folds have all models first
    runs, records, device, threads, progress, store : as in `Job`
    label : the scale, for tables

    Raises
    ------
    DataError
        for an unknown scheme, no folds, or a fold with copies of an image on both sides.
    RecipeError
        for no recipe, two that are equal, or one that stops early: it would choose on the images
        it is measured on.
    """
    _check(recipes, faces, scheme, folds)
    names = list(recipes)
    settings = {"device": device, "threads": threads, "progress": progress, "store": store}
    place = {
        Job(recipes[name], fold.train, fold.held_out, runs, records, **settings): (row, column)  # type: ignore[arg-type]
        for column, fold in enumerate(folds)
        for row, name in enumerate(names)
    }
    shape = len(names), len(folds)
    scores = {score: np.full(shape, np.nan) for score in SCORES}
    run_names: list[list[str | None]] = [[None] * len(folds) for _ in names]
    failures = {}

    def done(job: Job, name: str | None, error: MienError | None) -> None:
        row, column = place[job]
        try:
            if error is not None:
                raise error
            measured = _measure(_run_of(job, str(name)), faces, folds[column])
        except MienError as failed:
            fold = folds[column].name
            failures[column, row] = {"model": names[row], "fold": fold, "error": str(failed)}
            print(f"{names[row]}, {fold}: failed: {failed}", file=sys.stderr)
            return
        run_names[row][column] = name
        for score in SCORES:
            scores[score][row, column] = measured[score]

    train_jobs(faces, list(place), executor, done)
    return CrossValidation(
        scheme=scheme,
        label=label,
        data={"name": faces.name, "fingerprint": faces.fingerprint, "images": len(faces)},
        recipes=dict(recipes),
        folds=[
            {"name": fold.name, "n_train": len(fold.train), "n_held_out": len(fold.held_out)}
            for fold in folds
        ],
        runs=run_names,
        failures=[failures[key] for key in sorted(failures)],
        **scores,
    )


def _check(
    recipes: Mapping[str, Recipe], faces: FaceSet, scheme: str, folds: Sequence[Fold]
) -> None:
    if scheme not in SCHEMES:
        raise DataError(f"unknown scheme '{scheme}'; known: {', '.join(SCHEMES)}")
    if not folds or (scheme == "5x2" and len(folds) != 10):
        raise DataError(f"{len(folds)} folds are no '{scheme}'; let mien.evaluation.schemes divide")
    for fold in folds:
        if np.isin(faces.groups[fold.held_out], faces.groups[fold.train]).any():
            raise DataError(
                f"{faces.name}, {fold.name}: images held out stand in its training part too; keep "
                "equal images (FaceSet.groups) on one side"
            )
    if not recipes:
        raise RecipeError("no model to cross-validate; give one recipe or more")
    name_of: dict[Recipe, str] = {}
    for name, recipe in recipes.items():
        if recipe in name_of:
            raise RecipeError(f"'{name_of[recipe]}' and '{name}' are the same recipe; drop one")
        if recipe.patience:
            raise RecipeError(
                f"{name}: patience = {recipe.patience} would choose the last epoch on the images "
                "held out, which then measure nothing; set patience = 0"
            )
        name_of[recipe] = name


def _run_of(job: Job, name: str) -> Run:
    folders = [Path(folder) for folder in (job.runs, job.records) if folder is not None]
    run = find_finished(name, job.recipe, *folders)
    if run is None:
        raise RunError(f"{name}: was trained, but is not in {' or '.join(map(str, folders))}")
    return run


def _measure(run: Run, faces: FaceSet, fold: Fold) -> dict[str, float]:
    """The scores on the images that the fold holds out."""
    found = run.predictions(run.validation_split)
    if not np.array_equal(found.labels, faces.labels[fold.held_out]):
        raise RunError(
            f"{run.path}: its predictions are not for the images that {fold.name} holds out; "
            "remove the run folder and train again"
        )
    metrics = evaluate(found.probabilities, found.labels, run.classes)
    return {score: getattr(metrics, score) for score in SCORES}


def _summary(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean and standard deviation (None for fewer than two) of the folds that are done."""
    known = values[~np.isnan(values)]
    return {
        "mean": float(known.mean()) if len(known) else None,
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
        "folds": len(known),
    }
