"""A study: train what is planned and not yet done, measure it, and leave the results."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.data.audit import audit
from mien.data.faceset import FaceSet
from mien.data.splits import Roles, roles
from mien.errors import MienError
from mien.metrics import collapsed, epochs_to, evaluate, last_epochs_spread
from mien.models import create_model
from mien.models.cost import cost, outline
from mien.runs.atomic import write_json, write_text
from mien.runs.environment import hardware, versions
from mien.runs.recipe import Recipe
from mien.runs.run import Run, find_finished, run_name
from mien.study.scales import Planned, Scale
from mien.study.sheets import write_sheets
from mien.training import fit, predict_splits

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7)
"""Validation accuracies to which the epochs are counted."""

PROTOCOL = (
    "clean: trained on the training split, nothing chosen on any split, the last averaged weights "
    "taken; images that stand in the training split too are left out where it is said"
)


@dataclass(frozen=True)
class _Job:
    """What a worker process needs to train one model."""

    recipe: Recipe
    runs: Path
    records: Path | None
    device: str | None
    threads: int
    progress: str


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
    """Train the models of a study and leave ``results.json`` and ``sheets.npz`` in `out`.

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
        of ``results.json``
    """
    faces, parts = roles(faces)
    train, validation = _train_part(faces, parts, scale), faces[parts.validation]
    plan = [*scale.plan, *extra]
    accelerator = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs is None:
        alone = accelerator != "cpu" or scale.name == "paper"
        jobs = 1 if alone else max(1, min(cores, len(plan)))
    state = _Study(faces, parts, train, scale, plan, out, runs, records, command, source)
    missing = [planned for planned in plan if state.run_of(planned) is None]
    state.note(f"{len(plan) - len(missing)} of {len(plan)} trainings are done")
    state.write()
    job_of = {
        planned.recipe.key + planned.setting: _Job(
            planned.recipe,
            runs,
            records,
            device,
            max(1, cores // jobs),
            "live" if jobs == 1 else "lines",
        )
        for planned in missing
    }
    failures = _train(list(job_of.values()), train, validation, jobs, state)
    state.write(measure=True)
    if failures:
        raise failures[0]
    return out / "results.json"


def _train(
    jobs: list[_Job], train: FaceSet, validation: FaceSet, workers: int, state: _Study
) -> list[MienError]:
    """Train every job; one that fails does not keep the others from being trained."""
    failures: list[MienError] = []
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
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
                failures.append(error)
            state.write()
        return failures
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_receive, initargs=(train, validation)
    ) as pool:
        waiting = [pool.submit(_train_here, job) for job in jobs]
        try:
            for done in as_completed(waiting):
                error = done.exception()
                if isinstance(error, MienError):
                    failures.append(error)
                elif error is not None:
                    raise error
                state.write()
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise KeyboardInterrupt(
                f"stopped; finished epochs are kept in {state.runs}: the same command goes on from "
                "there"
            ) from None
    return failures


_PARTS: tuple[FaceSet, FaceSet] | None = None


def _receive(train: FaceSet, validation: FaceSet) -> None:
    """Keep the data in a worker process, which gets it once for all its trainings."""
    global _PARTS
    _PARTS = (train, validation)


def _train_here(job: _Job) -> None:
    assert _PARTS is not None
    torch.set_num_threads(job.threads)
    fit(
        job.recipe,
        *_PARTS,
        runs=job.runs,
        records=job.records,
        device=job.device,
        progress=job.progress,
    )


def _train_part(faces: FaceSet, parts: Roles, scale: Scale) -> FaceSet:
    """The training split, cut to the scale's number of images a class."""
    train = faces[parts.train]
    if scale.train_images is None:
        return train
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(train.labels == label))[: scale.train_images]
        for label in range(len(train.classes))
    ]
    return train[np.sort(np.concatenate(chosen))]


@dataclass
class _Study:
    """What a study knows while it runs; `write` brings its results up to date."""

    faces: FaceSet
    parts: Roles
    train: FaceSet
    scale: Scale
    plan: Sequence[Planned]
    out: Path
    runs: Path
    records: Path | None
    command: str
    source: str

    def note(self, message: str) -> None:
        print(f"study: {message}", file=sys.stderr, flush=True)

    def run_of(self, planned: Planned) -> Run | None:
        name = run_name(planned.recipe, self.train, self.faces[self.parts.validation])
        folders = [self.runs] + ([self.records] if self.records else [])
        return find_finished(name, planned.recipe, *folders)

    def write(self, measure: bool = False) -> None:
        """Write the results; with `measure` also what takes the machine for itself, and pictures."""
        found = [(planned, self.run_of(planned)) for planned in self.plan]
        models = [self._model(planned, run, measure) for planned, run in found]
        results = {
            "mien": versions()["mien"],
            "scale": self.scale.name,
            "scale_label": self.scale.label,
            "toy": self.scale.toy,
            "protocol": "clean",
            "protocol_text": PROTOCOL,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "state": "complete" if all(run for _, run in found) else "partial",
            "data": self._data(measure),
            "hardware": hardware(),
            "versions": versions(),
            "models": models,
            "pairs": self._pairs(),
        }
        if measure:
            trained = {planned.recipe.key: run for planned, run in found if run is not None}
            write_sheets(self.out / "sheets.npz", self.train, self.plan[0].recipe, trained)
        write_json(self.out / "results.json", _plain(results))

    def _data(self, measure: bool) -> dict[str, Any]:
        faces, parts = self.faces, self.parts
        counts = {split: faces[split].counts().tolist() for split in faces.splits}
        unlabelled = {split: int((faces[split].labels < 0).sum()) for split in faces.splits}
        return {
            "name": faces.name,
            "fingerprint": faces.fingerprint,
            "source": self.source,
            "notes": list(faces.notes),
            "classes": list(faces.classes),
            "images": len(faces),
            "size": faces.size,
            "channels": faces.channels,
            "counts": {split: row for split, row in counts.items() if sum(row)},
            "unlabelled": {split: n for split, n in unlabelled.items() if n},
            "trained_on": len(self.train),
            "roles": asdict(parts),
            "audit": [list(row) for row in audit(faces).rows()] if measure else [],
        }

    def _model(self, planned: Planned, run: Run | None, measure: bool) -> dict[str, Any]:
        recipe = planned.recipe
        row: dict[str, Any] = {
            "key": recipe.key if planned.setting == "default" else f"{recipe.key}-tuned",
            "title": recipe.title,
            "family": planned.family,
            "attention": planned.attention,
            "setting": planned.setting,
            "recipe": recipe.to_dict(),
            "seed": recipe.seed,
            "state": "finished" if run else "not run",
        }
        model = create_model(
            recipe.model,
            classes=len(self.faces.classes),
            channels=self.faces.channels,
            attention=recipe.attention,
            place=recipe.place,
            width=recipe.width,
            stride=recipe.stride,
            image_size=recipe.image_size,
        )
        row["outline"] = [asdict(r) for r in outline(model, recipe.image_size, self.faces.channels)]
        price: dict[str, Any] = asdict(cost(model, recipe.image_size, self.faces.channels))
        if measure:
            price["latency_ms"] = latency(model, recipe.image_size, self.faces.channels)
        if run is None:
            return row | {"why": "its training is not finished", "cost": price}
        test = [self.parts.test] if self.parts.test else []
        if measure and run.weights_path.exists():
            predict_splits(run, self.faces, test)
            self._write_opening(run, test)
        price |= {
            key: run.info.get(key)
            for key in ("training_images_per_second", "train_seconds", "peak_memory_gb")
        }
        found = self._metrics(run)
        last = run.predictions(self.parts.validation).probabilities.argmax(1)
        return row | {
            "run": run.name,
            "log": run.log,
            "metrics": found,
            "hardware": run.info["hardware"],
            "finished": run.info["finished"],
            "predicted_unlabelled": {
                split: len(p.labels)
                for split in run.predicted
                if ((p := run.predictions(split)).labels < 0).all()
            },
            "cost": price,
            "efficiency": {
                "epochs_to": {str(a): epochs_to(run.log, a) for a in THRESHOLDS},
                "last_epochs_spread": last_epochs_spread(run.log),
                "last_epochs": min(5, len(run.log)),
            },
            "collapsed_to": collapsed(last, self.faces.classes),
        }

    def _metrics(self, run: Run) -> dict[str, Any]:
        """Metrics on every labelled split that was predicted, with and without copies."""
        found = {}
        for split in run.predicted:
            p = run.predictions(split)
            if (p.labels < 0).any():
                continue
            new = ~self.faces[split].stands_in(self.faces[self.parts.train])
            found[split] = {
                "all": evaluate(p.probabilities, p.labels, run.classes).to_dict(),
                "without_copies": evaluate(
                    p.probabilities[new], p.labels[new], run.classes
                ).to_dict(),
            }
        return found

    def _write_opening(self, run: Run, splits: Sequence[str]) -> None:
        """Write down that a labelled test split was opened for a run."""
        path = self.out / "openings.jsonl"
        known = path.read_text() if path.exists() else ""
        lines = []
        for split in splits:
            if self.faces[split].labelled and f'"{run.name}"' not in known:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                lines.append(json.dumps({"split": split, "run": run.name, "date": now}) + "\n")
        if lines:
            write_text(path, known + "".join(lines))

    def _pairs(self) -> list[dict[str, str]]:
        plain = {p.family: p.recipe.key for p in self.plan if p.attention == "none"}
        return [
            {"family": p.family, "without": plain[p.family], "with": p.recipe.key}
            for p in self.plan
            if p.attention != "none" and p.setting == "default" and p.family in plain
        ]


@torch.inference_mode()
def latency(model: torch.nn.Module, image_size: int, channels: int, runs: int = 15) -> float:
    """Median time in milliseconds for one image, batch 1, float32, on this machine's processor."""
    model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(1, channels, image_size, image_size)
    times = []
    for _ in range(runs + 3):
        began = time.perf_counter()
        model(image)
        times.append(time.perf_counter() - began)
    return round(float(np.median(times[3:])) * 1e3, 3)


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
