"""A worker of a search: claim a trial, train it, say what it came to, until nothing is left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mien.balance.gan.training import Disordered
from mien.data.faceset import FaceSet
from mien.errors import DataError, OutOfMemory, RecipeError, RunError
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name
from mien.search.fidelity import Fidelity, Rung, due, shortened, subset_of
from mien.search.objective import Objective
from mien.search.samplers import propose
from mien.search.space import Setting, Space, setting_key
from mien.search.trials import Trial, TrialTable, worker_name
from mien.training import fit
from mien.training.loop import Diverged

MOST_TROUBLES = 3
"""Trials in a row that may end in an error that is none of their own before the worker stops."""


@dataclass(frozen=True, eq=False)
class Task:
    """All that a worker needs to take part in a search, besides its objective.

    Attributes
    ----------
    space, sampler, seed, fidelity : the search's own
    name, storage, lease : where its trial table is (see `TrialTable`)
    description : what the search is, so that no worker of another one joins in
    runs, records, device, progress : as in `fit`
    threads : that torch may use; None leaves the number as it is
    prefixes : whether a training goes on from the same one on a lower rung
    number : of the worker
    """

    space: Space
    sampler: str
    seed: int
    fidelity: Fidelity
    name: str
    storage: str
    lease: float
    description: dict[str, Any]
    runs: Path | str
    records: Path | str | None
    device: str | None
    progress: str
    threads: int | None
    prefixes: bool
    number: int = 0


def work(objective: Objective, task: Task) -> int:
    """Take part in a search until it is complete, and return the number of trials done here.

    Raises
    ------
    DataError
        if the images cannot be trained on.
    RunError
        if the table or the folder of the runs cannot be used. The trial in hand is given back.
    """
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    table = TrialTable(task.storage, task.name, task.description, task.lease)
    me = worker_name(task.number)
    done = troubles = 0
    while True:
        trial = table.claim(me)
        if trial is None:
            trials = table.trials()
            more = coming(task, trials)
            if more:
                table.add(more)
            elif all(trial.state in ("done", "failed") for trial in trials):
                return done
            else:
                time.sleep(min(1.0, task.lease / 10))
            continue
        try:
            with table.holding(trial):
                value, measured = train(objective, task, trial)
        except (DataError, Disordered, Diverged, OutOfMemory, RecipeError) as error:
            troubles = 0
            table.fail(trial, str(error))
            _say(task, trial, f"failed: {error}")
        except BaseException as error:
            with contextlib.suppress(RunError):  # if it cannot be given back, its lease runs out
                table.release(trial)
            # The disk may be full, or a worker that was stopped may still hold the run's folder.
            troubles += 1
            if not isinstance(error, RunError) or troubles == MOST_TROUBLES:
                raise
            time.sleep(min(1.0, task.lease / 10))
        else:
            troubles = 0
            done += table.complete(trial, value, measured)
            _say(task, trial, f"{value:.4f} in {measured['seconds']:.1f} s")


def coming(task: Task, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """What the table is to be given next, as `TrialTable.add` takes it.

    Promotions come first, then one more setting, and at the very end the default in full training,
    if the search did not bring it there by itself.
    """
    fidelity, space = task.fidelity, task.space
    setting_of = {trial.number: trial.values for trial in trials}
    promoted = due(fidelity, trials)
    if promoted:
        return [_entry(task, number, setting_of[number], rung) for number, rung in promoted]
    number = len({trial.number for trial in trials})
    if number < fidelity.settings:
        rung = fidelity.brackets[fidelity.bracket_of(number)].first
        setting = propose(task.sampler, space, trials, number, rung, task.seed)
        return [_entry(task, number, setting, rung)]
    if any(trial.state in ("waiting", "running") for trial in trials):
        return []
    number_of = {trial.setting: trial.number for trial in trials}
    number = number_of.get(setting_key(space.default), fidelity.settings)
    if (number, fidelity.top) in {(trial.number, trial.rung) for trial in trials}:
        return []
    return [_entry(task, number, space.default, fidelity.top)]


def _entry(task: Task, number: int, setting: Setting, rung: int) -> dict[str, Any]:
    fidelity = task.fidelity.rungs[rung]
    epochs = min(setting.get("epochs", task.space.epochs), fidelity.epochs)
    return {
        "number": number,
        "setting": setting_key(setting),
        "rung": rung,
        "work": setting_key({**setting, "epochs": epochs, "share": fidelity.share}),
    }


def train(objective: Objective, task: Task, trial: Trial) -> tuple[float, dict[str, Any]]:
    """Train a trial and return its value with what was spent on it.

    Counted is what the runs' own logs say, without what they took over from shorter ones, so that
    it is the same whoever trained them, and when.
    """
    rung = task.fidelity.rungs[trial.rung]
    recipe = shortened(task.space.recipe(trial.values), rung.epochs)
    runs: list[Run] = []
    images: list[int] = []
    for rows, held_out in objective.parts:
        part, measured = objective.faces[rows], objective.faces[held_out]
        if rung.share < 1:
            part = part[subset_of(part, rung.share)]
        run = fit(
            recipe,
            part,
            measured,
            runs=task.runs,
            records=task.records,
            device=task.device,
            progress=task.progress,
            prefix=_prefix(task, recipe, rung, part, measured),
            keep_checkpoint=task.prefixes,
        )
        runs.append(run)
        images.append(len(part))
    own = [run.log[run.info.get("prefix", {}).get("epochs", 0) :] for run in runs]
    return sum(map(objective.value, runs)) / len(runs), {
        "runs": [run.name for run in runs],
        "epochs": len(runs[0].log),
        "images": sum(images),
        "epoch_images": sum(len(log) * n for log, n in zip(own, images, strict=True)),
        "seconds": round(sum(row["seconds"] for log in own for row in log), 3),
    }


def _prefix(task: Task, recipe: Recipe, rung: Rung, part: FaceSet, measured: FaceSet) -> Run | None:
    """The longest training of a lower rung that this one goes on from."""
    if not task.prefixes or rung.share < 1:
        return None
    whole = {lower.epochs for lower in task.fidelity.rungs if lower.share == 1}
    for epochs in sorted(whole, reverse=True):
        if recipe.warmup <= epochs < recipe.epochs:
            path = Path(task.runs) / run_name(recipe.but(epochs=epochs), part, measured)
            if (path / "checkpoint.pt").exists():
                run = Run.open(path)
                if run.finished:
                    return run
    return None


def _say(task: Task, trial: Trial, what: str) -> None:
    values = ", ".join(f"{name} {value}" for name, value in trial.values.items())
    rung = task.fidelity.rungs[trial.rung]
    print(f"{task.name}: trial {trial.number} ({values}), {rung}: {what}", file=sys.stderr)
