from __future__ import annotations

import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mien.data import FaceSet, draw_faces
from mien.errors import RecipeError
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name
from mien.training import fit, loop

ALL_ON = Recipe(
    width=0.05, image_size=16, stride=8, batch_size=16, epochs=4, schedule="constant", warmup=1.0,
    optimiser="sgd", lr=0.05, l2=1e-4, ema=0.9, dropout=0.3, flip=0.5, shift=0.1, mixup=0.4,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def faces() -> FaceSet:
    return draw_faces(70, size=16)


def trained(recipe: Recipe, runs: Path, **settings: Any) -> Run:
    parts = faces()["train"], faces()["validation"]
    return fit(recipe, *parts, runs=runs, progress="none", **settings)


def outcome(run: Run) -> tuple[bytes, list[dict[str, Any]]]:
    """Weights and log, without times."""
    log = Run.open(run.path).log
    log = [{k: v for k, v in row.items() if "second" not in k} for row in log]
    return run.weights_path.read_bytes(), log


def test_a_training_that_goes_on_from_a_shorter_one_ends_as_in_one_go(tmp_path: Path) -> None:
    whole = trained(ALL_ON, tmp_path / "whole")
    short = trained(ALL_ON.but(epochs=2), tmp_path / "parts", keep_checkpoint=True)
    left = outcome(short)
    assert left == outcome(trained(ALL_ON.but(epochs=2), tmp_path / "whole"))
    longer = trained(ALL_ON, tmp_path / "parts", prefix=short)
    assert longer.name == whole.name
    assert outcome(longer) == outcome(whole)
    assert longer.info["prefix"] == {"run": short.name, "epochs": 2}
    assert outcome(Run.open(short.path)) == left
    assert not longer.checkpoint_path.exists()
    assert short.checkpoint_path.exists()


def test_a_training_with_a_prefix_can_be_stopped_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(ALL_ON, tmp_path / "whole")
    short = trained(ALL_ON.but(epochs=1), tmp_path / "parts", keep_checkpoint=True)
    steps = 49 // 16
    rate = loop.learning_rate
    for stop in (1 * steps, 3 * steps + 1):  # before the first own epoch ends, and after

        def learning_rate(recipe: Recipe, step: int, steps: int, stop: int = stop) -> float:
            if step == stop:
                signal.raise_signal(signal.SIGINT)
            return rate(recipe, step, steps)

        monkeypatch.setattr(loop, "learning_rate", learning_rate)
        with pytest.raises(KeyboardInterrupt):
            trained(ALL_ON, tmp_path / "parts", prefix=short)
    monkeypatch.undo()
    assert outcome(trained(ALL_ON, tmp_path / "parts", prefix=short)) == outcome(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine"}, "schedule = 'cosine' sets every rate by the number of epochs"),
        ({"schedule": "step"}, "schedule = 'step'"),
        ({"schedule": "onecycle", "warmup": 0}, "schedule = 'onecycle'"),
        ({"patience": 2}, "patience = 2"),
        ({"start_size": 16}, "start_size = 16 sets the size of the images"),
        ({"lr": 0.1, "flip": 0.0}, r"has other settings than this training \(lr, flip\)"),
        ({"epochs": 2}, "has 2 epochs, so a training of 2 does not go on from it"),
    ],
)
def test_what_is_not_the_beginning_of_a_training_is_refused(
    short: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        trained(ALL_ON.but(**changes), tmp_path, prefix=short)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(ALL_ON.but(epochs=2), tmp_path_factory.mktemp("short"), keep_checkpoint=True)


def test_other_images_are_refused(short: Run, tmp_path: Path) -> None:
    train, validation = faces()["train"], faces()["validation"]
    for parts in ((train[:-1], validation), (train, validation[:-1]), (train, None)):
        with pytest.raises(RecipeError, match="was trained on other images"):
            fit(ALL_ON, *parts, runs=tmp_path, progress="none", prefix=short)


def test_a_run_without_its_last_checkpoint_is_refused(tmp_path: Path) -> None:
    short = trained(ALL_ON.but(epochs=1), tmp_path)
    with pytest.raises(RecipeError, match=r"no last checkpoint.*keep_checkpoint"):
        trained(ALL_ON, tmp_path, prefix=short)
    assert not (tmp_path / run_name(ALL_ON, faces()["train"], faces()["validation"])).exists()
