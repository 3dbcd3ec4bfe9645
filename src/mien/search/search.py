"""A search: `tune` finds the best setting of a space, and says what finding it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from mien.data.faceset import FaceSet
from mien.errors import MienError, RecipeError, RunError, unknown
from mien.executors import Executor, Local
from mien.metrics import wilson_interval
from mien.runs.environment import cores
from mien.runs.run import TRAINING_CODE, named_content
from mien.search.fidelity import FIDELITIES, Fidelity, merit, subset_of
from mien.search.importance import importance
from mien.search.objective import Fold, Objective, create_objective
from mien.search.samplers import check_sampler
from mien.search.space import Range, Space, setting_key
from mien.search.trials import Trial, TrialTable
from mien.search.worker import Task, work
from mien.training.earlier import check_beginning
from mien.training.prefix import check_shareable
from mien.training.teacher import check_teachers


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found.

    Attributes
    ----------
    name, space, sampler, seed, fidelity, objective : what it was
    trials : every trial, by number of the setting and by rung
    """

    name: str
    space: Space
    sampler: str
    seed: int
    fidelity: Fidelity
    objective: Objective
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The best of the trials in full training.

        Raises
        ------
        RunError
            if none came to an end.
        """
        complete = [t for t in self._top if t.value is not None]
        if complete:
            return min(complete, key=merit)
        reasons = [trial.reason for trial in self.trials if trial.reason]
        raise RunError(
            f"search '{self.name}': no setting was trained in full. "
            f"{len(reasons)} of {len(self.trials)} trials failed"
            + (f", the first: {reasons[0]}" if reasons else "")
            + "; what failed is not tried again: mend it and give the search another name"
        )

    @property
    def default(self) -> Trial:
        """The space's default in full training, whether it came to an end or not."""
        key = setting_key(self.space.default)
        return next(trial for trial in self._top if trial.setting == key)

    @property
    def _top(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.rung == self.fidelity.top]

    def cost(self) -> dict[str, Any]:
        """What was spent, beside what training every setting of the space in full takes.

        Trials that came to one and the same training are counted once. The seconds of the whole
        grid follow from those of each setting's own longest training, or the mean of the others'
        where it has none. Of trials that failed it is not known what they did before.

        Returns
        -------
        dict
            ``seconds`` of the device and ``epoch_images`` (images times epochs), the same for
            ``exhaustive`` (None for a continuous space), and ``share``, the one over the other in
            epoch-images.
        """
        runs = {tuple(t.measured["runs"]): t.measured for t in self.trials if t.measured}
        spent = {
            key: sum(measured[key] for measured in runs.values())
            for key in ("seconds", "epoch_images")
        }
        if self.space.size is None:
            return {**spent, "exhaustive": None, "share": None}
        pace_of = {
            trial.setting: trial.measured["seconds"] / trial.measured["epoch_images"]
            for trial in self.trials  # of one setting the highest rung comes last
            if trial.measured and trial.measured["epoch_images"]
        }
        usual = fmean(pace_of.values()) if pace_of else 0.0
        whole = {"seconds": 0.0, "epoch_images": 0}
        for setting in self.space.grid():
            try:
                work = self.space.recipe(setting).epochs * self.objective.images
            except RecipeError:  # its values contradict each other: nobody could train it
                continue
            whole["epoch_images"] += work
            whole["seconds"] += work * pace_of.get(setting_key(setting), usual)
        share = spent["epoch_images"] / whole["epoch_images"]
        return {**spent, "exhaustive": whole, "share": share}

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON and for the report."""
        objective = self.objective
        space = {**self.space.to_dict(), "size": self.space.size}
        return {
            "name": self.name,
            "protocol": objective.protocol,
            "objective": objective.text,
            "sampler": self.sampler,
            "seed": self.seed,
            "space": space,
            "fidelity": self.fidelity.to_dict(),
            "data": {
                "name": objective.faces.name,
                "fingerprint": objective.fingerprint,
                "images": objective.images,
                "measured": objective.measured,
                "trainings": len(objective.parts),
            },
            "best": self._row(self.best),
            "default": self._row(self.default),
            "trials": [self._row(trial) for trial in self.trials],
            "failed": sum(trial.state == "failed" for trial in self.trials),
            "cost": self.cost(),
            "importance": importance(self.space, self.fidelity, self.trials),
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What a reader has to know before quoting the best value."""
        notes = [
            f"The best of {self.fidelity.settings} settings on the images it was chosen on: its "
            "accuracy there is optimistic."
        ]
        if self.objective.protocol == "paper":
            notes.append("By the paper's protocol, settings were chosen on the test images.")
        return notes

    def _row(self, trial: Trial) -> dict[str, Any]:
        rung = self.fidelity.rungs[trial.rung]
        interval = None
        if trial.value is not None:
            n = self.objective.measured
            interval = list(wilson_interval(round(trial.value * n), n))
        entered = trial.number < self.fidelity.settings
        return {
            "number": trial.number,
            "bracket": self.fidelity.bracket_of(trial.number) if entered else None,
            "rung": trial.rung,
            "share": rung.share,
            "setting": {name: trial.values[name] for name in self.space.parameters},
            "state": trial.state,
            "value": trial.value,
            "interval": interval,
            **{
                key: (trial.measured or {}).get(key)
                for key in ("epochs", "images", "epoch_images", "seconds", "runs")
            },
            "worker": trial.worker,
            "lost": trial.lost,
            "reason": trial.reason,
        }


def tune(
    space: Space,
    faces: FaceSet,
    *,
    storage: str,
    name: str | None = None,
    sampler: str = "grid",
    fidelity: str = "halving",
    eta: int = 3,
    settings: int | None = None,
    protocol: str = "clean",
    folds: Sequence[Fold] = (),
    prefixes: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    runs: Path | str = "runs",
    records: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: str = "none",
    lease: float = 60,
    seed: int = 0,
    before: Callable[[], object] | None = None,
) -> Search:
    """Search a space for the setting with the highest accuracy.

    The same call may be made again at any time: it goes on where it was. It may be made several
    times at once, on any number of machines that reach the `storage`: they share the work, and each
    returns when all of it is done. A worker that is killed loses its own trial, which another takes
    over after the `lease`; the epochs it had finished are kept where both have the same `runs`.

    Parameters
    ----------
    space : what is searched, and the default that the best is compared with
    faces : the data set
    storage : of the trial table: ``sqlite:///FILE``, or ``postgresql://USER@HOST/NAME``
    name : of the search in the storage; by default the space's
    sampler : ``"grid"``, ``"random"``, ``"tpe"`` or ``"cmaes"``
    fidelity, eta : ``"full"``, ``"halving"`` or ``"hyperband"`` (see `mien.search.fidelity`), and
        the ratio of two rungs
    settings : how many to try; by default all there are
    protocol, folds : what is measured (see `create_objective`)
    prefixes : let a training go on from the same one on a lower rung
    workers : trainings at a time
    executor : where they are done, by default on this machine; on several machines they need
        PostgreSQL, and a `runs` that all of them see
    runs, records, device, progress : as in `fit`
    threads : that torch may use in each worker; by default all cores are shared out
    lease : seconds after which a silent worker's trial is given to another
    seed : of the sampler; that of the trainings is a setting of the recipe
    before : called when all of this has been checked, before the first training

    Raises
    ------
    DataError, RecipeError
        if the data or the space cannot be searched this way, and for `prefixes` with schedules
        that know how long the training will be.
    RunError
        if the storage or the runs cannot be used, or no setting could be trained.
    """
    if fidelity not in FIDELITIES:
        raise RecipeError(unknown("fidelity", fidelity, FIDELITIES))
    settings = check_sampler(sampler, space, settings)
    if prefixes:
        _check_prefixes(space)
    plan = FIDELITIES[fidelity](settings, space.epochs, eta)
    objective = create_objective(faces, protocol, folds)
    _check_earlier(space, objective, min(rung.share for rung in plan.rungs))
    content = {key: value for key, value in space.to_dict().items() if key != "name"}
    description = {
        "space": content,
        "data": objective.fingerprint,
        "objective": [objective.protocol, len(objective.parts)],
        "sampler": [sampler, seed],
        "fidelity": plan.to_dict(),
        "version of the training code": TRAINING_CODE,
    }
    if named := _named(space):
        description["content of teacher, weights or generator"] = named
    name = name or space.name
    table = TrialTable(storage, name, description, lease)
    if before is not None:
        before()
    if executor is None:
        executor = Local(workers)
        if workers > 1 and threads is None:
            threads = max(1, cores() // workers)
    task = Task(
        space=space,
        sampler=sampler,
        seed=seed,
        fidelity=plan,
        name=name,
        storage=storage,
        lease=lease,
        description=description,
        runs=runs,
        records=records,
        device=device,
        progress=progress,
        threads=threads,
        prefixes=prefixes,
    )
    errors: list[MienError] = []

    def done(task: Task, result: int | None, error: MienError | None) -> None:
        if error is not None:
            errors.append(error)

    tasks = [replace(task, number=number) for number in range(workers)]
    try:
        executor.run(work, objective, tasks, done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; the trials that are done are kept in {table.storage}, and finished epochs "
            f"in {runs}: the same command goes on from there"
        ) from None
    if len(errors) == workers:  # one that ends without an error has seen the search complete
        raise errors[0]
    trials = tuple(table.trials())
    _remove_checkpoints(Path(runs), trials)  # also those of an earlier call with `prefixes`
    search = Search(name, space, sampler, seed, plan, objective, trials)
    assert search.best
    return search


def _check_prefixes(space: Space) -> None:
    """Refuse to share prefixes where a level gives a schedule that knows its horizon."""
    check_shareable(space.recipe({}))
    for name in ("schedule", "patience", "start_size"):
        given = space.parameters.get(name, ())
        for level in (given.low, given.high) if isinstance(given, Range) else given:
            check_shareable(space.recipe({name: level}))


def _named(space: Space) -> list[dict[str, Any]]:
    """The content of what the space's recipes name by a path, where they name any."""
    settings: list[dict[str, Any]] = [{}]
    for name in ("weights", "teacher", "generator"):
        given = space.parameters.get(name, ())
        settings += [] if isinstance(given, Range) else [{name: level} for level in given]
    found = []
    for setting in settings:
        with suppress(RecipeError):  # then its trials say so
            found.append(named_content(space.recipe(setting)))
    return list(filter(None, found))


def _check_earlier(space: Space, objective: Objective, share: float) -> None:
    """Refuse a base that begins or learns from a training which the search's parts do not allow."""
    recipe = space.recipe({})
    if not recipe.teacher and recipe.weights in ("none", "imagenet"):
        return
    for rows, held_out in objective.parts:
        part, measured = objective.faces[rows], objective.faces[held_out]
        if share < 1:
            part = part[subset_of(part, share)]
        check_beginning(recipe, part, measured)
        check_teachers(recipe, part, measured)


def _remove_checkpoints(runs: Path, trials: Sequence[Trial]) -> None:
    """Remove what was kept for longer trainings to go on from."""
    for trial in trials:
        for name in (trial.measured or {}).get("runs", ()):
            (runs / name / "checkpoint.pt").unlink(missing_ok=True)
