"""A study: train what is planned and not yet done, measure it, and leave the results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mien.data.faceset import FaceSet
from mien.data.splits import roles, sample
from mien.errors import MienError
from mien.runs.environment import cores
from mien.study.results import StudyResults
from mien.study.scales import Planned, Scale
from mien.study.workers import Job, train_all


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
    command: str = "",
    source: str = "",
) -> Path:
    """Train the models of a study and leave its results in `out`.

    ``results.json`` holds all that was measured, ``sheets.npz`` the pictures for the figures, and
    ``records/`` a small record of every finished run, which can be kept and given as `records`.

    A training that was done before (its run, or a record of it) is taken as it is, and one that
    was interrupted goes on, so the same call may be repeated at any time. The results are written
    anew after every training, so that a report can be made of a study that is not complete.

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
    command, source : how the study was called and where its data came from, for the report

    Returns
    -------
    Path
        of ``results.json``. A training that failed stands there as not run, with its error.
    """
    faces, parts = roles(faces)
    train, validation = sample(faces[parts.train], scale.train_images), faces[parts.validation]
    plan = [*scale.plan, *extra]
    results = StudyResults(faces, parts, train, scale, plan, out, runs, records, command, source)
    missing = [planned for planned in plan if results.run_of(planned) is None]
    print(f"study: {len(plan) - len(missing)} of {len(plan)} trainings are done", file=sys.stderr)
    results.write()
    if jobs is None:
        alone = scale.name == "paper" or (device or "cpu") != "cpu" or torch.cuda.is_available()
        jobs = 1 if alone else cores()
    workers = max(1, min(jobs, len(missing)))
    # Attention makes a training longer, and the longest go first, so that no core waits.
    missing.sort(key=lambda planned: planned.attention == "none")
    key_of = {
        Job(
            planned.recipe,
            runs,
            records,
            device,
            threads=None if workers == 1 else max(1, cores() // workers),
            progress="live" if workers == 1 else "lines",
        ): planned.key
        for planned in missing
    }

    def done(job: Job, error: MienError | None) -> None:
        if error is not None:
            results.failures[key_of[job]] = str(error)
            print(f"study: {key_of[job]} failed: {error}", file=sys.stderr)
        results.write()

    train_all(list(key_of), train, validation, workers, done)
    results.write(measure=True)
    return out / "results.json"
