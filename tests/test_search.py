from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien
from mien.balance.gan.training import Disordered
from mien.data import FaceSet, draw_faces
from mien.errors import DataError, MienError, OutOfMemory, RecipeError, RunError
from mien.executors.local import START
from mien.metrics import wilson_interval
from mien.report.searches import cost
from mien.runs.run import Run
from mien.search import Range, Search, Space, tune, worker
from mien.search.fidelity import Bracket, Fidelity, Rung
from mien.search.importance import importance
from mien.search.objective import Fold, Objective, create_objective
from mien.search.space import setting_key
from mien.search.trials import Trial, TrialTable
from mien.training import fit, predict_probabilities

PROCESSES = multiprocessing.get_context(START)
BASE = {
    "width": 0.05, "image_size": 16, "stride": 8, "batch_size": 16, "epochs": 4,
    "schedule": "constant", "optimiser": "sgd", "lr": 0.01,
}  # fmt: skip
SPACE = Space("small", BASE, {"lr": [0.05, 0.01], "l2": [0.0, 0.01]})


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def faces() -> FaceSet:
    return draw_faces(70, size=16)


def tuned(folder: Path, space: Space = SPACE, **settings: Any) -> Search:
    given = {"storage": f"sqlite:///{folder}/trials.db", "runs": folder / "runs", **settings}
    return tune(space, faces(), **given)


def test_a_search_does_not_go_on_with_another_teacher_under_the_same_path(tmp_path: Path) -> None:
    def teach(seed: int) -> None:
        recipe = mien.Recipe.from_dict({**BASE, "epochs": 1, "seed": seed}, "the teacher")
        parts = faces()["train"], faces()["validation"]
        run = fit(recipe, *parts, runs=tmp_path / "teachers", device="cpu", progress="none")
        shutil.rmtree(tmp_path / "teacher", ignore_errors=True)
        run.path.rename(tmp_path / "teacher")

    base = {**BASE, "epochs": 1, "distil": 0.5, "teacher": [str(tmp_path / "teacher")]}
    space = Space("taught", base, {"lr": [0.05, 0.01]})
    teach(0)
    first = tuned(tmp_path, space, fidelity="full")
    assert tuned(tmp_path, space, fidelity="full").to_dict() == first.to_dict()
    teach(1)
    with pytest.raises(RunError, match="another content of teacher, weights or generator"):
        tuned(tmp_path, space, fidelity="full")


def pairs(search: Search) -> list[tuple[int, int]]:
    return [(trial.number, trial.rung) for trial in search.trials]


# The objective


def test_what_is_measured_stands_in_no_image_of_training_and_no_test() -> None:
    set_ = faces()
    train = np.flatnonzero(set_.split == "train")
    twins = np.flatnonzero(set_.split == "validation")[:3]
    images = set_.images.copy()
    images[twins] = images[train[:3]]
    found = create_objective(replace(set_, images=images, groups=None))
    ((trained, measured),) = found.parts
    assert len(found.faces) == len(trained) + len(measured)
    assert found.images == len(trained) == len(train)
    assert found.measured == (set_.split == "validation").sum() - 3
    assert set(found.faces.split) == {"train", "validation"}
    assert not found.faces[measured].stands_in(found.faces[trained]).any()
    assert (found.faces[trained].labels == set_["train"].labels).all()


def test_inner_folds_divide_the_training_split_alone() -> None:
    n = int((faces().split == "train").sum())
    folds = [_fold(np.arange(0, n, 2), n), _fold(np.arange(1, n, 2), n)]
    found = create_objective(faces(), folds=folds)
    assert set(found.faces.split) == {"train"}
    assert found.images == found.measured == n
    assert "2 inner folds" in found.text
    other = create_objective(faces(), folds=folds[::-1])
    assert found.fingerprint != other.fingerprint


class _Rows:
    def __init__(self, train: np.ndarray, held_out: np.ndarray) -> None:
        self.train, self.held_out = train, held_out


def _fold(held_out: np.ndarray, n: int) -> Fold:
    return _Rows(np.setdiff1d(np.arange(n), held_out), held_out)


def test_the_papers_protocol_wants_a_labelled_test_and_no_folds() -> None:
    with pytest.raises(DataError, match=r"unknown protocol 'papers'.*did you mean 'paper'"):
        create_objective(faces(), "papers")
    with pytest.raises(DataError, match="give no folds"):
        create_objective(faces(), "paper", [_fold(np.arange(3), 49)])
    hidden = replace(faces(), labels=np.where(faces().split == "test", -1, faces().labels))
    with pytest.raises(DataError, match=r"no labels for 'test'; use the clean protocol"):
        create_objective(hidden, "paper")
    with pytest.raises(DataError, match="no test split"):
        create_objective(faces()[faces().split != "test"], "paper")


# A search


def test_a_search_trains_what_fit_trains_and_compares_the_best_with_the_default(
    tmp_path: Path,
) -> None:
    search = tuned(tmp_path, fidelity="full")
    assert {t.setting for t in search.trials} == {setting_key(s) for s in SPACE.grid()}
    for trial in search.trials:
        recipe = SPACE.recipe(trial.values)
        run = fit(recipe, faces()["train"], faces()["validation"], runs=tmp_path / "alone")
        assert trial.value == pytest.approx(run.log[-1]["validation_accuracy"])
        assert trial.measured is not None
        assert trial.measured["runs"] == [run.name]
        assert trial.measured["epochs"] == 4
        assert trial.measured["epoch_images"] == 4 * 49
    assert search.best.value == max(t.value or 0 for t in search.trials)
    assert search.default.values == {"lr": 0.01, "l2": 0.0}
    cost = search.cost()
    assert cost["share"] == 1
    assert cost["seconds"] == pytest.approx(cost["exhaustive"]["seconds"])


def test_a_search_is_plain_json_and_asked_again_trains_nothing(tmp_path: Path) -> None:
    search = tuned(tmp_path, eta=2)
    content = search.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["protocol"] == "clean"
    assert [r["epochs"] for r in content["fidelity"]["rungs"]] == [1, 2, 4]
    top = [row for row in content["trials"] if row["rung"] == 2]
    assert content["best"] == max(top, key=lambda row: (row["value"], -row["number"]))
    n = content["data"]["measured"]
    assert content["best"]["interval"] == list(
        wilson_interval(round(content["best"]["value"] * n), n)
    )
    assert list(content["default"]["setting"]) == ["lr", "l2"]
    trained = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/run.json")}
    assert tuned(tmp_path, eta=2).to_dict() == content
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/run.json")} == trained


def test_settings_that_differ_in_epochs_not_yet_reached_are_one_run(tmp_path: Path) -> None:
    space = Space("epochs", BASE, {"epochs": [2, 4], "lr": [0.05, 0.01]})
    search = tuned(tmp_path, space, eta=2)
    assert [r.epochs for r in search.fidelity.rungs] == [1, 2, 4]
    low = [t for t in search.trials if t.rung == 0]
    assert len(low) == 4
    assert len({t.measured["runs"][0] for t in low if t.measured}) == 2
    runs = {t.work: t.measured for t in search.trials if t.measured}
    assert len(runs) == len(list(tmp_path.glob("runs/*/run.json")))
    assert search.cost()["epoch_images"] == sum(m["epoch_images"] for m in runs.values())
    assert search.cost()["exhaustive"]["epoch_images"] == 2 * (2 + 4) * 49
    for trial in search.trials:
        assert trial.measured is not None
        assert trial.measured["epochs"] <= trial.values["epochs"]


def test_equal_epochs_of_settings_whose_warmups_differ_are_two_trainings(tmp_path: Path) -> None:
    base = {**BASE, "schedule": "cosine", "warmup": 1.0}
    search = tuned(tmp_path, Space("warmups", base, {"epochs": [2, 4], "lr": [0.05, 0.01]}), eta=2)
    low = [t.measured for t in search.trials if t.rung == 0 and t.measured]
    assert len({measured["runs"][0] for measured in low}) == 4
    runs = {t.measured["runs"][0]: t.measured for t in search.trials if t.measured}
    assert search.cost()["epoch_images"] == sum(m["epoch_images"] for m in runs.values())


def test_a_training_that_diverges_is_a_failed_trial_with_its_reason(tmp_path: Path) -> None:
    space = Space("wild", {**BASE, "lr": 0.01, "epochs": 1}, {"lr": [1e3, 0.01], "momentum": [0.9]})
    search = tuned(tmp_path, space, fidelity="full")
    failed, done = sorted(search.trials, key=lambda trial: trial.state == "done")
    assert (failed.state, failed.value, failed.values["lr"]) == ("failed", None, 1e3)
    assert "loss is nan" in (failed.reason or "")
    assert search.best == search.default == done
    told = cost(search.to_dict() | {"key": "wild", "title": "Wild"}, "").notes
    assert told[-1] == "What failed trials (1) trained before that is not counted."
    hopeless = Space("hopeless", {**BASE, "epochs": 1}, {"momentum": [0.9]})
    with pytest.raises(RunError, match=r"no setting was trained in full.*1 of 1.*resnot"):
        tuned(tmp_path, replace(hopeless, base={**BASE, "model": "resnot"}))


@pytest.mark.parametrize("kind", [OutOfMemory, DataError, Disordered])
def test_a_setting_that_memory_or_images_do_not_allow_is_a_failed_trial(
    kind: type[MienError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not one that every worker takes up again."""

    def train(objective: Objective, task: worker.Task, trial: Trial) -> tuple[float, dict]:
        if trial.values["batch_size"] == 64:
            raise kind("the device's memory does not hold this training")
        return 0.5, {"runs": [], "seconds": 1.0, "epoch_images": 49, "epochs": 1, "images": 49}

    monkeypatch.setattr(worker, "train", train)
    search = tuned(tmp_path, Space("sizes", BASE, {"batch_size": [64, 16]}), fidelity="full")
    assert sorted(trial.state for trial in search.trials) == ["done", "failed"]


def test_prefixes_change_the_cost_and_nothing_else(tmp_path: Path) -> None:
    plain = tuned(tmp_path / "a", eta=2)
    shared = tuned(tmp_path / "b", eta=2, prefixes=True)
    values = [[(t.number, t.rung, t.value) for t in s.trials] for s in (plain, shared)]
    assert values[0] == values[1]
    assert plain.cost()["epoch_images"] == (4 * 1 + 2 * 2 + len(_top(plain)) * 4) * 49
    promoted = {t.number for t in shared.trials if t.rung == 1}
    longest = sum(4 - (2 if t.number in promoted else 1) for t in _top(shared))
    assert shared.cost()["epoch_images"] == (4 * 1 + 2 * 1 + longest) * 49
    assert not list(tmp_path.glob("b/runs/*/checkpoint.pt"))
    for trial in _top(plain):
        assert trial.measured is not None
        name = trial.measured["runs"][0]
        weights = [tmp_path / s / "runs" / name / "weights.safetensors" for s in ("a", "b")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def _top(search: Search) -> list[Trial]:
    return [trial for trial in search.trials if trial.rung == search.fidelity.top]


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        ({"schedule": "onecycle"}, {"lr": [0.1]}),
        ({}, {"schedule": ["constant", "cosine"]}),
        ({"patience": 3}, {"lr": [0.1]}),
        ({}, {"patience": Range(0, 3)}),
        ({}, {"start_size": [0, 16]}),
    ],
)
def test_prefixes_are_refused_where_the_schedule_knows_its_horizon(
    base: dict[str, Any], parameters: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="from the start"):
        tuned(tmp_path, Space("s", {**BASE, **base}, parameters), prefixes=True)
    assert list(tmp_path.iterdir()) == []


def test_inner_folds_are_averaged_and_low_rungs_see_a_part_of_each(tmp_path: Path) -> None:
    n = int((faces().split == "train").sum())
    folds = [_fold(np.arange(0, n, 2), n), _fold(np.arange(1, n, 2), n)]
    space = Space("folds", {**BASE, "epochs": 1}, {"lr": [0.05, 0.01]})
    search = tuned(tmp_path, space, folds=folds, eta=2)
    assert [rung.share for rung in search.fidelity.rungs] == [0.5, 1]
    low, high = search.trials[0], search.best
    assert low.measured is not None
    assert high.measured is not None
    assert n / 2 <= low.measured["images"] <= n / 2 + 2 * 7
    assert high.measured["images"] == n
    runs = [Run.open(tmp_path / "runs" / name) for name in high.measured["runs"]]
    assert len(runs) == 2
    assert high.value == pytest.approx(np.mean([r.log[-1]["validation_accuracy"] for r in runs]))


def test_the_papers_protocol_measures_on_its_twenty_per_cent_and_says_so(tmp_path: Path) -> None:
    space = Space("paper", {**BASE, "epochs": 2}, {"lr": [0.05]})
    search = tuned(tmp_path, space, protocol="paper")
    assert search.best.measured is not None
    run = Run.open(tmp_path / "runs" / search.best.measured["runs"][0])
    watched = faces()[np.isin(faces().split, ["validation", "test"])]
    right = predict_probabilities(run, watched).argmax(1) == watched.labels
    assert search.best.value == pytest.approx(right.mean())
    content = search.to_dict()
    assert content["protocol"] == "paper"
    assert content["data"]["measured"] == len(watched)
    assert any("test images" in note for note in content["notes"])
    with pytest.raises(RunError, match="begun with another data and another objective"):
        tuned(tmp_path, space)


# Stopped, killed, in trouble


def test_ctrl_c_says_how_to_go_on_and_the_same_call_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stop(*arguments: Any, **settings: Any) -> Run:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **settings)

    monkeypatch.setattr(worker, "fit", stop)
    space = replace(SPACE, base={**BASE, "epochs": 1})
    with pytest.raises(KeyboardInterrupt, match=r"trials\.db.*the same command goes on"):
        tuned(tmp_path, space, fidelity="full")
    search = tuned(tmp_path, space, fidelity="full")
    assert [t.state for t in search.trials] == ["done"] * 4
    assert calls == 3 + 2, "what was done is not done again"
    assert sum(t.lost for t in search.trials) == 0


def test_an_error_that_is_not_the_trials_own_gives_it_back_and_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **settings: Any) -> Run:
        raise RunError("runs/x: cannot be written (No space left on device)")

    monkeypatch.setattr(worker, "fit", full)
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: None)
    with pytest.raises(RunError, match="No space left"):
        tuned(tmp_path, fidelity="full")
    monkeypatch.undo()
    search = tuned(tmp_path, fidelity="full")
    assert [t.state for t in search.trials] == ["done"] * 4


def fake_training(seconds: float) -> Any:
    """In place of a training: a while, and a value that tells the setting and the rung."""

    def train(objective: Objective, task: worker.Task, trial: Trial) -> tuple[float, dict]:
        time.sleep(seconds)
        value = trial.values["lr"] / 2 + trial.rung / 100
        spent = {"epoch_images": 1, "seconds": seconds, "epochs": 1, "images": 1}
        return value, {**spent, "runs": [trial.work]}

    return train


def take_part(folder: Path, space: Space, settings: dict[str, Any], together: Barrier) -> None:
    """A search in a process of its own, which begins when the others do."""
    worker.train = fake_training(0.1)
    together.wait(200)
    tuned(folder, space, **settings)


def test_three_searches_at_once_share_the_work_and_one_may_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space("many", BASE, {"lr": [i / 20 for i in range(1, 10)], "flip": [0, 0.5]})
    monkeypatch.setattr(worker, "train", fake_training(0))
    alone = tuned(tmp_path / "alone", space, sampler="random", fidelity="hyperband")

    (tmp_path / "many").mkdir()
    settings: dict[str, Any] = {"sampler": "random", "fidelity": "hyperband", "lease": 2}
    given = tmp_path / "many", space, settings, PROCESSES.Barrier(3)
    crew = [PROCESSES.Process(target=take_part, args=given) for _ in range(3)]
    for process in crew:
        process.start()
    victim = crew[1]
    storage = f"sqlite:///{tmp_path}/many/trials.db"
    end = time.monotonic() + 200
    while not _running(storage, str(victim.pid)):
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(victim.pid or 0, signal.SIGKILL)
    for process in crew:
        process.join(60)
    assert [process.exitcode for process in crew] == [0, -signal.SIGKILL, 0]
    search = tuned(tmp_path / "many", space, **settings)
    assert all(t.state == "done" for t in search.trials)
    assert sum(t.lost for t in search.trials) <= 1
    assert len(pairs(search)) == len(set(pairs(search)))
    assert search.best.setting == alone.best.setting
    both = [{(t.setting, t.rung, t.value) for t in s.trials} for s in (search, alone)]
    assert both[0] == both[1]
    assert len({t.worker for t in search.trials}) >= 2


def test_the_benchmark_judges_each_pick_by_the_other_seeds_of_the_whole_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import halving

    def train(objective: Objective, task: worker.Task, trial: Trial) -> tuple[float, dict]:
        chosen, seed = trial.values, task.space.base["seed"]
        value = 0.5 + chosen["lr"] + 0.01 * seed * (chosen["optimiser"] == "adam")
        epochs = task.fidelity.rungs[trial.rung].epochs * task.fidelity.rungs[trial.rung].share
        spent = {"epoch_images": epochs * 49, "seconds": epochs, "epochs": 1, "images": 49}
        return value, {**spent, "runs": [trial.work]}

    monkeypatch.setattr(worker, "train", train)
    levels = {name: halving.PARAMETERS[name] for name in ("lr", "optimiser", "l2")}
    monkeypatch.setattr(halving, "PARAMETERS", levels)
    asked = ["--data", "drawn:70", "--device", "cpu", "--epochs", "27", "--seeds", "2"]
    text = halving.main([*asked, "--runs", str(tmp_path)])
    lines = [[c.strip() for c in row.split("|")] for row in text.splitlines() if row[:1] == "|"]
    picks = lines[2:8]
    assert [row[1] for row in picks] == ["0"] * 3 + ["1"] * 3
    assert all("lr 0.1" in row[3] for row in picks)
    for row in picks[3:]:  # with seed 1 adam reaches 61 %, and with the other seed 60
        assert "optimiser adam" in row[3]
        assert row[4] == "60.0"
    for row in picks[1:3] + picks[4:]:
        gap = float(row[4]) - float(picks[0 if row[1] == "0" else 3][4])
        assert float(row[5].replace("−", "-")) == pytest.approx(gap, abs=0.01)
        assert row[6] in ("the same", "within it", "below it")
    assert all(row[6] != "below it" for row in picks[4:])
    grid, halved = lines[10:12]
    assert (grid[3], grid[5]) == ("27", "100.0")
    # Four rungs of 27 epochs each, and the default, which is not promoted.
    assert float(halved[5]) == pytest.approx(100 * (4 * 27 + 27) / (27 * 27), abs=0.1)


def _running(storage: str, pid: str) -> bool:
    try:
        import sqlalchemy as sa

        with sa.create_engine(storage, poolclass=sa.NullPool).connect() as connection:
            found = connection.execute(
                sa.text("SELECT worker FROM mien_trials WHERE state = 'running'")
            )
            return any(f"-{pid}-" in worker for (worker,) in found)
    except sa.exc.DBAPIError:  # not made yet, or written to in this moment
        return False


# What is made of the trials


def made_up(trials: list[Trial], space: Space = SPACE) -> Search:
    plan = Fidelity("halving", (Rung(1), Rung(3)), (Bracket(4),))
    return Search("s", space, "grid", 0, plan, create_objective(faces()), tuple(trials))


def trial(number: int, rung: int, value: float | None, setting: dict, **measured: Any) -> Trial:
    spent = {"seconds": 0.0, "epoch_images": 0, "epochs": 1, "images": 49}
    state = "done" if value is not None else "failed"
    return Trial(
        0, number, setting_key(setting), rung, f"{number}/{rung}", state, value=value,
        measured={**spent, "runs": [f"{number}/{rung}"], **measured} if value is not None else None,
    )  # fmt: skip


def test_the_best_is_chosen_among_those_in_full_training_alone() -> None:
    grid = SPACE.grid()
    early = [trial(i, 0, value, grid[i]) for i, value in enumerate([0.9, 0.2, 0.3, 0.1])]
    late = [trial(2, 1, 0.4, grid[2]), trial(0, 1, 0.4, grid[0])]
    assert made_up([*early, *late]).best.number == 0, "of equals the one that entered first"
    with pytest.raises(RunError, match="no setting was trained in full"):
        _ = made_up(early).best


def test_the_cost_is_that_of_each_training_once_beside_the_whole_grids() -> None:
    grid = SPACE.grid()
    low = [trial(i, 0, 0.1, grid[i], seconds=1.0, epoch_images=49) for i in range(3)]
    low.append(replace(low[0], number=3, setting=setting_key(grid[3])))  # came to the same training
    high = trial(0, 1, 0.2, grid[0], seconds=9.0, epoch_images=147)
    cost = made_up([low[0], high, *low[1:]]).cost()
    assert cost["seconds"] == 3 * 1 + 9
    assert cost["epoch_images"] == 3 * 49 + 147
    assert cost["exhaustive"]["epoch_images"] == 4 * 4 * 49
    # Setting 0 was seen at 3 seconds an epoch, the others at 1.
    assert cost["exhaustive"]["seconds"] == pytest.approx(4 * (3 + 1 + 1 + 1))
    assert cost["share"] == pytest.approx(6 / 16)
    wide = Space("wide", BASE, {"lr": Range(0.01, 0.1), "l2": [0, 0.01]})
    assert made_up([high], wide).cost()["exhaustive"] is None


def test_settings_that_contradict_each_other_cost_nothing() -> None:
    base = BASE | {"optimiser": "adamw"}
    space = Space("s", base, {"optimiser": ["sgd", "adamw"], "weight_decay": [0.0, 0.01]})
    done = trial(0, 1, 0.5, space.grid()[0], runs=["a"], seconds=1.0, epoch_images=196)
    whole = made_up([done], space).cost()["exhaustive"]
    assert whole["epoch_images"] == 3 * 4 * made_up([done], space).objective.images


def test_the_parameter_that_decides_has_the_importance() -> None:
    space = Space("s", BASE, {"lr": [0.1, 0.2, 0.3, 0.4], "flip": [0, 0.5, 1], "seed": [0]})
    grid = space.grid()
    plan = Fidelity("halving", (Rung(1), Rung(3)), (Bracket(12),))
    low = [trial(i, 0, s["lr"] + s["flip"] / 50, s) for i, s in enumerate(grid)]
    found = importance(space, plan, low)
    assert found["values"]["lr"] > 0.9
    assert found["values"]["seed"] == pytest.approx(0)
    assert (found["rung"], found["settings"]) == (0, 12)
    assert "measured at 1 epoch" in found["note"]
    plan = Fidelity("full", (Rung(3),), (Bracket(12),))
    full = low
    assert importance(space, plan, full)["note"] == ""
    few = importance(space, plan, full[:11])
    assert few["values"] is None
    assert "too few" in few["note"]
    flat = importance(space, plan, [replace(t, value=0.5) for t in full])
    assert flat["values"] is None
    assert "same accuracy" in flat["note"]
    outside = trial(12, 0, 0.9, {"lr": 0.7, "flip": None, "seed": 0})  # a default may be
    assert importance(space, plan, [*full, outside]) == importance(space, plan, full)


def test_importance_is_not_read_from_those_that_were_promoted() -> None:
    """They share the level that decided, so that another would seem to."""
    levels = {"lr": [0.1, 0.2, 0.3], "flip": [0, 0.5, 1], "seed": [0, 1, 2, 3]}
    space = Space("s", BASE, levels)
    plan = Fidelity("halving", (Rung(1), Rung(3)), (Bracket(36),))
    low = [trial(i, 0, s["lr"] + s["flip"] / 50, s) for i, s in enumerate(space.grid())]
    promoted = [replace(t, rung=1) for t in low if t.values["lr"] == 0.3]
    found = importance(space, plan, [*low, *promoted])
    assert (found["rung"], found["settings"]) == (0, 36)
    assert found["values"]["lr"] > 0.9


def test_what_parameters_explain_only_together_is_in_no_share() -> None:
    space = Space("s", BASE, {"lr": [0.1, 0.2, 0.3, 0.4], "flip": [0, 1]})
    signs = [(-1) ** (round(10 * s["lr"]) + s["flip"]) for s in space.grid()]
    plan = Fidelity("full", (Rung(1),), (Bracket(8),))
    trials = [
        trial(i, 0, 0.5 + sign / 9, s)
        for i, (s, sign) in enumerate(zip(space.grid(), signs, strict=True))
    ]
    assert sum(importance(space, plan, trials)["values"].values()) < 0.8


def test_a_search_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"fidelity": "halfing"}, "did you mean 'halving'"),
        ({"sampler": "cmaes"}, "has levels"),
        ({"settings": 9}, "9 settings cannot be tried"),
        ({"eta": 1}, "eta = 1"),
    ]
    for settings, message in wrong:
        with pytest.raises(RecipeError, match=message):
            tuned(tmp_path / "x", **settings)
    taught = Space("s", BASE | {"teacher": ["packaged"]}, {"lr": [0.05, 0.01]})
    shared = replace(faces(), name="FER-2013")  # the teacher may know these images
    with pytest.raises(RecipeError, match="may have learned"):
        tune(taught, shared, storage=f"sqlite:///{tmp_path}/x/t.db", runs=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert TrialTable(f"{tmp_path}/y.db", "s", {}).trials() == []
