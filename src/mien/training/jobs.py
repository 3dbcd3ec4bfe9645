"""A training as a task for an executor, on this machine or another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mien.data.faceset import FaceSet
from mien.errors import MienError
from mien.executors import Executor
from mien.runs.recipe import Recipe
from mien.runs.run import find_finished, run_name
from mien.runs.store import RunStore
from mien.training.fit import fit


@dataclass(frozen=True, eq=False)
class Job:
    """One training to do; its parts are rows of a `FaceSet` that all jobs share.

    Attributes
    ----------
    recipe, runs, records, device, progress : as in `fit`
    train, validation : rows of the shared images, int64 ``[N]``; the validation part may be None
    threads : that torch may use; None leaves the number as it is
    store : URL or folder of a `RunStore`, where the job is done on a machine that does not have
        `runs`: it trains in a folder of its own and leaves the finished run there
    """

    recipe: Recipe
    train: np.ndarray
    validation: np.ndarray | None
    runs: Path | str
    records: Path | None = None
    device: str | None = None
    threads: int | None = None
    progress: str = "live"
    store: str | None = None

    def __post_init__(self) -> None:
        # Whoever does the job may stand in another folder.
        if self.store is not None and "://" not in self.store:
            object.__setattr__(self, "store", str(Path(self.store).absolute()))

    def parts(self, faces: FaceSet) -> tuple[FaceSet, FaceSet | None]:
        """The images to train on and those to watch."""
        return faces[self.train], None if self.validation is None else faces[self.validation]


def train_job(faces: FaceSet, job: Job) -> str:
    """Do a job with `fit` and return the name of its run; raises what `fit` raises."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    parts = job.parts(faces)

    train_in = partial(
        fit, job.recipe, *parts, records=job.records, device=job.device, progress=job.progress
    )
    if job.store is None:
        return train_in(runs=job.runs).name
    store = RunStore(job.store)
    name = run_name(job.recipe, *parts)
    if not store.has(name):
        with tempfile.TemporaryDirectory(prefix="mien-") as folder:
            store.put(train_in(runs=folder).path)
    return name


def train_jobs(
    faces: FaceSet,
    jobs: Sequence[Job],
    executor: Executor,
    done: Callable[[Job, str | None, MienError | None], None],
) -> None:
    """Do every job with `executor`; what is done on other machines is fetched from their store.

    Parameters
    ----------
    done : called as each job ends, with the name of its run, which is then in `Job.runs` (or
        `Job.records`) of this machine, and None; or with None and the error
    """

    def arrived(job: Job, name: str | None, error: MienError | None) -> None:
        if name is not None and job.store is not None:
            try:
                RunStore(job.store).fetch(name, Path(job.runs))
            except MienError as failed:
                name, error = None, failed
        done(job, name, error)

    missing = []
    for job in jobs:
        known = None if job.store is None else _finished_here(faces, job)
        if known is None:
            missing.append(job)
        else:
            done(job, known, None)
    executor.run(train_job, faces, missing, arrived)


def _finished_here(faces: FaceSet, job: Job) -> str | None:
    """The name of the job's run, if this machine has it."""
    name = run_name(job.recipe, *job.parts(faces))
    folders = (Path(folder) for folder in (job.runs, job.records) if folder is not None)
    return name if find_finished(name, job.recipe, *folders) else None
