"""One training in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mien.data import FaceSet, draw_faces
from mien.errors import RecipeError, RunError
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.runs.seed import random_seed
from mien.training import fit
from mien.training.batches import Batches
from mien.training.distributed import fit_distributed
from mien.training.predict import build_model
from mien.training.share import Share

CPU = torch.device("cpu")
MOVED = Recipe(
    image_size=24, batch_size=12, flip=0.5, shift=0.1, rotate=20.0, zoom=0.2, brightness=0.3,
    contrast=0.3, erase=0.5,
)  # fmt: skip
SAME_IN_SHARES = MOVED.but(
    model="vgg19", batch_norm=False, dropout=0.0, width=1 / 16, stride=8, batch_size=32, epochs=8,
    optimiser="sgd", schedule="cosine", lr=0.1, label_smoothing=0.1, class_weights="balanced",
    l1=1e-5, l2=1e-4, clip=1.0, ema=0.9,
)  # fmt: skip
"""A model without statistics of the batch and without dropout."""


pytestmark = pytest.mark.usefixtures("one_thread")


def faces() -> FaceSet:
    drawn = draw_faces(140, size=24)
    weights = np.random.default_rng(0).uniform(0.5, 2, 140).astype(np.float32)
    return replace(drawn, weights=weights)


def trained(recipe: Recipe, runs: Path, **settings: Any) -> Run:
    parts = faces()["train"], faces()["validation"]
    settings = {"runs": runs, "device": "cpu", "progress": "none", **settings}
    train = fit_distributed if "processes" in settings else fit
    return train(recipe, *parts, **settings)


def assert_equal_within_rounding(several: Run, one: Run) -> None:
    """Curves and weights agree far better than the training has moved them."""
    assert len(several.log) == len(one.log) == one.recipe.epochs
    near = {"loss": 1e-5, "validation_loss": 1e-5, "penalty": 1e-5, "lr": 0}
    near |= {"accuracy": 1.5 / 96, "validation_accuracy": 1.5 / 21}  # one image on the brink
    for row, expected in zip(Run.open(several.path).log, one.log, strict=True):
        for key, tolerance in near.items():
            assert row[key] == pytest.approx(expected[key], abs=tolerance), key
    found, expected = load_file(several.weights_path), load_file(one.weights_path)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.manual_seed(random_seed(one.recipe.seed, "weights"))
    fresh = build_model(one.recipe, len(one.classes), 1).state_dict()
    assert max(float((fresh[name] - expected[name]).abs().max()) for name in fresh) > 0.01
    np.testing.assert_allclose(
        several.predictions("validation").probabilities,
        one.predictions("validation").probabilities,
        atol=1e-5,
    )


# The shares


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(
    "mixing", [{}, {"degrade": 0.5}, {"mixup": 0.4}, {"mixup": 0.4, "cutmix": 1.0}]
)
def test_the_shares_of_a_batch_together_are_the_batch_of_one_process(
    processes: int, mixing: dict[str, float]
) -> None:
    recipe = MOVED.but(**mixing)
    half = Normalisation((0.5,), (0.25,))
    whole = Batches(faces(), recipe, half, CPU)
    shares = [
        Batches(faces(), recipe, half, CPU, Share(rank, processes)) for rank in range(processes)
    ]
    assert all(share.steps == whole.steps == 11 for share in shares)
    for batch, *parts in zip(whole.epoch(3), *(share.epoch(3) for share in shares), strict=True):
        assert all(len(part.images) == 12 // processes for part in parts)
        torch.testing.assert_close(torch.cat([p.images for p in parts]), batch.images)
        torch.testing.assert_close(torch.cat([p.targets for p in parts]), batch.targets)
        torch.testing.assert_close(torch.cat([p.weights for p in parts]), batch.weights)


@pytest.mark.parametrize(("batch_size", "batch"), [(32, 32), (500, 98)])
def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(
    tmp_path: Path, batch_size: int, batch: int
) -> None:
    message = f"a batch of {batch} images cannot be shared out evenly to 3 processes"
    with pytest.raises(RecipeError, match=message):
        trained(MOVED.but(batch_size=batch_size), tmp_path, processes=3)
    assert not list(tmp_path.iterdir())


def test_an_unknown_launcher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown launcher 'tork' .did you mean 'torch'"):
        trained(MOVED, tmp_path, processes=2, launcher="tork")


# The processes


@pytest.mark.timeout(900)  # each process imports torch, on a busy machine for minutes
def test_two_processes_one_of_them_killed_end_with_the_curve_of_one_process(
    tmp_path: Path,
) -> None:
    one = trained(SAME_IN_SHARES, tmp_path)
    killed = threading.Thread(target=kill_one_after_an_epoch, args=(tmp_path,))
    killed.start()
    with pytest.raises(RunError, match=r"process [01] of 2 died .SIGKILL.*goes on from there"):
        trained(SAME_IN_SHARES, tmp_path, processes=2)
    killed.join()
    half = Run.open(tmp_path / f"{one.name}-x2")
    assert 1 <= len(half.log) < SAME_IN_SHARES.epochs
    two = trained(SAME_IN_SHARES, tmp_path, processes=2)
    assert two.name == f"{one.name}-x2"
    assert two.finished
    assert two.info["processes"] == 2
    assert "processes" not in one.info
    assert two.log[: len(half.log)] == half.log
    assert_equal_within_rounding(two, one)
    assert not two.checkpoint_path.exists()
    before = two.weights_path.stat().st_mtime_ns
    assert trained(SAME_IN_SHARES, tmp_path, processes=2) == two
    assert two.weights_path.stat().st_mtime_ns == before


def wait_for_an_epoch(runs: Path) -> None:
    until = time.monotonic() + 200
    while not list(runs.glob("*-x2/log.jsonl")) and time.monotonic() < until:
        time.sleep(0.001)


def press_ctrl_c_after_an_epoch(runs: Path) -> None:
    wait_for_an_epoch(runs)
    os.kill(os.getpid(), signal.SIGINT)


def kill_one_after_an_epoch(runs: Path) -> None:
    wait_for_an_epoch(runs)
    for child in multiprocessing.active_children()[:1]:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)


def test_what_goes_wrong_in_a_process_is_raised_in_the_caller(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = MOVED.but(
        width=1 / 8, stride=8, batch_size=32, epochs=9, optimiser="sgd", lr=1e3, schedule="constant"
    )
    with pytest.raises(RunError, match=r"loss is (nan|inf).* epoch \d.*Try a lower lr"):
        trained(recipe, tmp_path, processes=2, progress="lines")
    said = capfd.readouterr().err
    assert said.count("takes batch norm's statistics of its own share") == 1


@pytest.mark.timeout(900)
def test_ray_train_stops_by_ctrl_c_and_gives_the_curve_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray (mien[cluster])")
    for extra in (
        "USAGE_STATS_ENABLED",
        "TRAIN_METRICS_ENABLED",
        "TRAIN_ENABLE_PREEMPTION_WATCHER",
    ):
        monkeypatch.setenv(f"RAY_{extra}", "0")
    one = trained(SAME_IN_SHARES, tmp_path)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    stopped = threading.Thread(target=press_ctrl_c_after_an_epoch, args=(tmp_path,))
    stopped.start()
    try:
        with pytest.raises(KeyboardInterrupt, match="goes on from there"):
            trained(SAME_IN_SHARES.but(epochs=9999), tmp_path, processes=2, launcher="ray")
        two = trained(SAME_IN_SHARES, tmp_path, processes=2, launcher="ray")
    finally:
        ray.shutdown()
    assert_equal_within_rounding(two, one)
