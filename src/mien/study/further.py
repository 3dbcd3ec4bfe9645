"""What a study does beside its trainings: it searches, cross-validates, and tests differences."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import MienError
from mien.evaluation.compare import compare_folds
from mien.evaluation.cross_validation import cross_validate
from mien.evaluation.schemes import five_by_two, k_fold
from mien.executors import Executor, Local
from mien.runs.recipe import Recipe
from mien.search import Space, tune
from mien.study.scales import Candidate, PlannedSearch, PlannedValidation


@dataclass(frozen=True)
class Means:
    """With what, and where, the searches and cross-validations of a study are done.

    Attributes
    ----------
    executor : does the trainings; None is this machine, `workers` at a time
    storage : of the table of trials, as in `mien.search.tune`
    runs, records, device, store : as in `run_study`
    threads : that torch may use in each training
    """

    executor: Executor | None
    workers: int
    storage: str
    runs: Path
    records: Path | None
    device: str | None
    store: str | None
    threads: int | None


def search(planned: PlannedSearch, faces: FaceSet, means: Means) -> dict[str, Any]:
    """Search a space on the validation split, by successive halving; goes on where it was.

    Returns
    -------
    dict
        `Search.to_dict`, with ``key`` and ``title`` of the model and ``source`` of the levels.
    """
    recipe = planned.default
    space = Space(f"{planned.key}, {planned.source}", recipe.to_dict(), planned.levels)
    print(f"study: {space.size} settings of {recipe.title} are searched", file=sys.stderr)
    found = tune(
        space,
        faces,
        storage=means.storage,
        workers=means.workers,
        executor=means.executor,
        runs=means.runs,
        records=means.records,
        device=means.device,
        threads=means.threads,
    )
    named = {"key": planned.key, "title": recipe.title, "source": planned.source}
    return {**named, **found.to_dict()}


def validate(
    planned: PlannedValidation,
    train: FaceSet,
    found: Mapping[str, Mapping[str, Any]],
    label: str,
    means: Means,
) -> dict[str, Any]:
    """Cross-validate models on the training split and test their differences.

    Parameters
    ----------
    found : results of `search` by the key of the search; the models that one tunes wait for it

    Returns
    -------
    dict
        `CrossValidation.to_dict`, with ``key``, ``same`` (models that a search left in the
        settings of another, whose name they go by), and ``comparison`` (`Comparison.to_dict`) or
        ``why`` there is none.

    Raises
    ------
    MienError
        if a search that tunes one of the models is missing.
    """
    recipes: dict[str, Recipe] = {}
    divided_as: dict[str, str] = {}  # the best setting may be the default
    for model in planned.models:
        recipe = _tuned(model, found)
        name = next((name for name, same in recipes.items() if same == recipe), model.name)
        divided_as[model.name] = name
        recipes[name] = recipe
    folds = five_by_two(train) if planned.scheme == "5x2" else k_fold(train, planned.folds)
    print(f"study: {planned.key} of {', '.join(recipes)}", file=sys.stderr)
    cv = cross_validate(
        recipes,
        train,
        planned.scheme,
        folds,
        executor=means.executor or Local(means.workers),
        runs=means.runs,
        records=means.records,
        device=means.device,
        threads=means.threads,
        progress="none",
        store=means.store,
        label=label,
    )
    same = {name: known for name, known in divided_as.items() if name != known}
    results = {"key": planned.key, **cv.to_dict(), "same": same}
    try:
        pairs = [(divided_as[one.name], divided_as[other.name]) for one, other in planned.pairs]
        different = list(dict.fromkeys(pair for pair in pairs if len(set(pair)) == 2))
        return {**results, "comparison": compare_folds(cv, different).to_dict(), "why": None}
    except MienError as error:
        return {**results, "comparison": None, "why": str(error)}


def _tuned(model: Candidate, found: Mapping[str, Mapping[str, Any]]) -> Recipe:
    if model.search is None:
        return model.recipe
    if model.search not in found:
        raise MienError(f"{model.name}: the search '{model.search}' that tunes it has no result")
    return model.recipe.but(**found[model.search]["best"]["setting"])


def development(faces: FaceSet, train: np.ndarray, validation: np.ndarray) -> FaceSet:
    """The images that settings may be chosen with: rows of training and validation."""
    return faces[np.sort(np.concatenate([train, validation]))]
