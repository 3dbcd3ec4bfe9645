"""A study: train what is planned and not yet done, measure it, and leave the results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.data.splits import roles, sample_rows
from mien.errors import DataError, MienError
from mien.executors import Executor, Local
from mien.runs.environment import choose_device, cores, emulates_bfloat16, trainings_at_once
from mien.study.balancing import balance_classes
from mien.study.further import Means, development, search, validate
from mien.study.results import StudyResults
from mien.study.scales import Planned, PlannedBalance, Scale
from mien.training.jobs import Job, train_jobs


def run_study(
    faces: FaceSet,
    scale: Scale,
    out: Path,
    *,
    runs: Path,
    records: Path | None = None,
    extra: Sequence[Planned] = (),
    jobs: int | None = None,
    device: str | None = None,
    executor: Executor | None = None,
    store: str | None = None,
    storage: str | None = None,
    command: str = "",
    source: str = "",
) -> Path:
    """Train the models of a study and leave its results in `out`.

    ``results.json`` holds all that was measured, ``sheets.npz`` the pictures for the figures, and
    ``records/`` a small record of every finished run, which can be kept and given as `records`.

    A training that was done before (its run, or a record of it) is taken as it is, and one that
    was interrupted goes on, so the same call may be repeated at any time. The results are written
    anew after every training, so that a report can be made of a study that is not complete.

    What is planned in bfloat16 and not yet done is trained in float32 where this machine's
    processor emulates bfloat16, which takes it several times as long.

    Parameters
    ----------
    faces : the data set; its splits are told apart by `mien.data.roles`
    scale : what is trained, and how
    out : the study's folder
    runs, records : folder of the runs, and one of records of runs made elsewhere
    extra : trainings beside the scale's own
    jobs : trainings at a time, each in a process of its own with its share of the cores; by default
        one on an accelerator or for networks of full width, else one a core
    device : as in `fit`
    executor : where the trainings are done, several at a time as it sees fit; None is this machine,
        `jobs` at a time
    store : a `RunStore` that brings the runs here from the other machines of `executor`
    storage : of the tables of trials of the searches; by default a file in `out`
    command, source : how the study was called and where its data came from, for the report

    Returns
    -------
    Path
        of ``results.json``. A training that failed stands there as not run, with its error.

    Raises
    ------
    DataError
        if the test split has nothing but copies of training images.
    """
    faces, parts = roles(faces)
    if parts.test and faces[parts.test].stands_in(faces[parts.train]).all():
        raise DataError(
            f"{faces.name}: every image of '{parts.test}' stands in '{parts.train}' too, and "
            "nothing could be measured on it; give images that are not trained on, or none"
        )
    rows = sample_rows(faces, parts.train, scale.train_images)
    validation_rows = np.flatnonzero(faces.split == parts.validation)
    plan = [*scale.plan, *extra]
    train = faces[rows]
    here = choose_device(None if executor else device)  # an executor's may be of other machines
    results = StudyResults(
        faces, parts, train, scale, plan, out, runs, records, command, source, str(here)
    )
    if executor is None and emulates_bfloat16(here):
        single = [
            planned if results.run_of(planned) else _in_single_precision(planned)
            for planned in plan
        ]
        if single != plan:
            print("study: this processor emulates bf16, so fp32 is taken", file=sys.stderr)
        results.plan = plan = single
    missing = [planned for planned in plan if results.run_of(planned) is None]
    print(f"study: {len(plan) - len(missing)} of {len(plan)} trainings are done", file=sys.stderr)
    results.write()
    if jobs is None:
        jobs = 1 if scale.name == "paper" else trainings_at_once(device)
    workers = max(1, min(jobs, len(missing)))
    # Attention makes a training longer, and the longest go first, so that no core waits.
    missing.sort(key=lambda planned: planned.attention == "none")
    key_of = {
        Job(
            planned.recipe,
            rows,
            validation_rows,
            runs,
            records,
            device,
            threads=None if executor or workers == 1 else max(1, cores() // workers),
            progress="live" if executor is None and workers == 1 else "lines",
            store=store,
        ): planned.key
        for planned in missing
    }

    def done(job: Job, run: str | None, error: MienError | None) -> None:
        if error is not None:
            results.failures[key_of[job]] = str(error)
            print(f"study: {key_of[job]} failed: {error}", file=sys.stderr)
        results.write()

    train_jobs(faces, list(key_of), executor or Local(workers), done)
    _go_further(
        results,
        development(faces, rows, validation_rows),
        Means(
            executor=executor,
            workers=jobs,
            storage=storage or str((out / "trials.db").absolute()),
            runs=runs,
            records=records,
            device=device,
            store=store,
            threads=None if executor or jobs == 1 else max(1, cores() // jobs),
        ),
    )
    results.write(measure=True)
    return out / "results.json"


def _in_single_precision(planned: Planned) -> Planned:
    return replace(planned, recipe=planned.recipe.but(precision="fp32"))


def _go_further(results: StudyResults, faces: FaceSet, means: Means) -> None:
    """Generate, search and cross-validate as the scale plans it; what fails stands as not run."""
    scale = results.scale
    if scale.balance is not None:
        try:
            results.balance, results.balance_sheets = _balance(results, scale.balance, means)
        except MienError as error:
            results.failures["balance generator"] = str(error)
            print(f"study: the generator failed: {error}", file=sys.stderr)
        results.write()
    for planned in scale.searches:
        try:
            results.searches[planned.key] = search(planned, faces, means)
        except MienError as error:
            results.failures[f"search {planned.key}"] = str(error)
            print(f"study: search {planned.key} failed: {error}", file=sys.stderr)
        results.write()
    for validation in scale.validations:
        try:
            found = validate(validation, results.train, results.searches, scale.label, means)
            results.validations[validation.key] = found
        except MienError as error:
            results.failures[f"validation {validation.key}"] = str(error)
            print(f"study: {validation.key} failed: {error}", file=sys.stderr)
        results.write()


def _balance(
    results: StudyResults, planned: PlannedBalance, means: Means
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The generator's faces, judged by models of the plan that are trained and have weights."""
    print(f"study: a generator lifts the small classes to {planned.lift}", file=sys.stderr)
    runs = {one.key: results.run_of(one) for one in results.plan}
    judges = [runs.get(key) for key in (planned.features, planned.classifier)]
    features, classifier = (run if run and run.weights_path.exists() else None for run in judges)
    done, sheets, _ = balance_classes(
        results.train,
        results.faces[results.parts.validation],
        planned.generator,
        planned.lift,
        features=features,
        classifier=classifier,
        runs=means.runs,
        device=means.device,
    )
    return done, sheets
