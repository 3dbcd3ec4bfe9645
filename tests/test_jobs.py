"""Trainings as tasks: the same runs, wherever they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien.data import FaceSet, draw_faces, roles
from mien.data.splits import sample, sample_rows
from mien.errors import MienError, RecipeError, RunError
from mien.executors import Local
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name
from mien.runs.store import RunStore
from mien.training import fit
from mien.training.jobs import Job, train_job, train_jobs

TINY = Recipe(model="plain", width=0.1, image_size=16, stride=8, epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return roles(draw_faces(105, size=16))[0]


def job_for(faces: FaceSet, folder: Path, recipe: Recipe = TINY, **more: Any) -> Job:
    train, validation = (np.flatnonzero(faces.split == s) for s in ("train", "validation"))
    return Job(recipe, train, validation, folder, progress="none", **more)


def outcomes(faces: FaceSet, jobs: Sequence[Job]) -> dict[Job, str | MienError | None]:
    found: dict[Job, str | MienError | None] = {}
    train_jobs(faces, jobs, Local(), lambda job, name, error: found.update({job: error or name}))
    return found


def test_a_job_makes_the_run_that_fit_makes(faces: FaceSet, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    name = train_job(faces, job_for(faces, tmp_path / "job"))
    run = fit(TINY, faces["train"], faces["validation"], runs=tmp_path / "fit", progress="none")
    assert name == run.name
    assert torch.get_num_threads() == before
    digests = [Run.open(tmp_path / way / name).info["weights_sha256"] for way in ("job", "fit")]
    assert digests[0] == digests[1]


def test_a_job_without_a_validation_part_is_done_with_as_many_threads_as_it_asks_for(
    faces: FaceSet, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    try:
        job = Job(TINY, np.flatnonzero(faces.split == "train")[:50], None, tmp_path, threads=2)
        name = train_job(faces, job)
    finally:
        torch.set_num_threads(before)
    run = Run.open(tmp_path / name)
    assert run.info["hardware"]["threads"] == 2
    assert run.info["data"]["train"]["images"] == 50
    assert "validation" not in run.info["data"]


@pytest.mark.parametrize("per_class", [3, None])
def test_rows_of_a_sample_name_the_run_that_the_sample_names(
    per_class: int | None, faces: FaceSet
) -> None:
    few = sample(faces["train"], per_class)
    rows = sample_rows(faces, "train", per_class)
    assert faces[rows].names.tolist() == few.names.tolist()
    assert run_name(TINY, faces[rows], None) == run_name(TINY, few, None)


def test_runs_made_elsewhere_reach_this_machine_through_the_store(
    faces: FaceSet, tmp_path: Path
) -> None:
    store, here = str(tmp_path / "store"), tmp_path / "here"
    good, bad = job_for(faces, here, store=store), job_for(faces, here, TINY.but(patience=9))
    bad = Job(bad.recipe, bad.train, None, here, store=store)
    found = outcomes(faces, [good, bad])
    assert isinstance(found[bad], RecipeError)
    name = found[good]
    assert isinstance(name, str)
    assert [folder.name for folder in here.iterdir()] == [name]
    assert RunStore(store).has(name)
    assert Run.open(here / name).predictions("validation").probabilities.shape[1] == 7


def test_what_the_store_or_this_machine_has_is_not_trained_again(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path / "store")
    first = job_for(faces, tmp_path / "one", store=store)
    [name] = outcomes(faces, [first]).values()

    def refuse(*parts: object, **settings: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("mien.training.jobs.fit", refuse)
    assert list(outcomes(faces, [job_for(faces, tmp_path / "two", store=store)]).values()) == [name]
    assert Run.open(tmp_path / "two" / str(name)).finished
    monkeypatch.setattr("mien.training.jobs.train_job", refuse)
    assert list(outcomes(faces, [first]).values()) == [name]
    records = tmp_path / "records"
    Run.open(tmp_path / "one" / str(name)).write_record(records)
    recorded = job_for(faces, tmp_path / "three", store=store, records=records)
    assert list(outcomes(faces, [recorded]).values()) == [name]


def test_the_folder_of_the_runs_may_be_the_store_also_with_an_unfinished_run_in_it(
    faces: FaceSet, tmp_path: Path
) -> None:
    """As where every machine has it by NFS, and a training was stopped in it before."""
    job = job_for(faces, tmp_path, store=str(tmp_path))
    name = run_name(TINY, *job.parts(faces))
    Run.create(tmp_path / name, TINY, {"state": "training"})
    assert not RunStore(tmp_path).has(name)
    assert list(outcomes(faces, [job]).values()) == [name]
    assert Run.open(tmp_path / name).finished


def test_a_run_that_does_not_reach_the_store_of_this_machine_is_a_failed_job(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where every machine has a disk of its own under the same path."""

    def nowhere(store: RunStore, run: Path) -> None:
        return

    monkeypatch.setattr(RunStore, "put", nowhere)
    job = job_for(faces, tmp_path / "here", store=str(tmp_path / "store"))
    [error] = outcomes(faces, [job]).values()
    assert isinstance(error, RunError)
    assert "one place that all machines reach" in str(error)


def test_a_relative_store_is_the_same_folder_from_everywhere(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert job_for(faces, tmp_path, store="store").store == str(tmp_path / "store")
    assert job_for(faces, tmp_path, store="s3://bucket/runs").store == "s3://bucket/runs"
