"""Trainings one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from mien.data.faceset import FaceSet
from mien.errors import MienError
from mien.runs.recipe import Recipe
from mien.training import fit


@dataclass(frozen=True)
class Job:
    """One training to do; the fields are those of `fit`, with the threads it may use."""

    recipe: Recipe
    runs: Path
    records: Path | None = None
    device: str | None = None
    threads: int | None = None
    progress: str = "live"


def train_all(
    jobs: Sequence[Job],
    train: FaceSet,
    validation: FaceSet,
    workers: int,
    done: Callable[[Job, MienError | None], None],
) -> None:
    """Do every job; one that fails does not keep the others from being done.

    Parameters
    ----------
    jobs : in the order in which they are begun
    workers : jobs at a time; one is done in this process
    done : called after each job, with its error if it failed
    """
    if workers == 1:
        for job in jobs:
            done(job, _attempt(job, train, validation))
        return
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_receive,
        initargs=(train, validation),
    ) as pool:
        job_of = {pool.submit(_attempt_here, job): job for job in jobs}
        try:
            for future in as_completed(job_of):
                done(job_of[future], future.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise KeyboardInterrupt(
                f"stopped; finished epochs are kept in {jobs[0].runs}: the same command goes on "
                "from there"
            ) from None


def _attempt(job: Job, train: FaceSet, validation: FaceSet) -> MienError | None:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    try:
        fit(
            job.recipe,
            train,
            validation,
            runs=job.runs,
            records=job.records,
            device=job.device,
            progress=job.progress,
        )
    except MienError as error:
        return error
    return None


_PARTS: tuple[FaceSet, FaceSet] | None = None
_STOPPED = False


def _receive(train: FaceSet, validation: FaceSet) -> None:
    """Keep the data in a worker process, which gets it once for all its jobs."""
    global _PARTS
    _PARTS = (train, validation)


def _attempt_here(job: Job) -> MienError | None:
    """Do a job in a worker process; after Ctrl-C, which every process hears, none is begun."""
    global _STOPPED
    assert _PARTS is not None
    try:
        return None if _STOPPED else _attempt(job, *_PARTS)
    except KeyboardInterrupt:
        _STOPPED = True
        return None
