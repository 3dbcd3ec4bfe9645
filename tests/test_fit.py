from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mien.data import FaceSet, draw_faces
from mien.errors import DataError, OutOfMemory, RecipeError, RunError, RunInUseError
from mien.images import Normalisation
from mien.metrics import evaluate
from mien.models.attention import CBAM
from mien.runs.environment import choose_device
from mien.runs.lock import locked
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name
from mien.runs.seed import random_seed
from mien.training import fit, loop, objective, predict_splits
from mien.training.batches import side_of
from mien.training.loop import Training
from mien.training.predict import build_model, load_model, probabilities

TINY = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=3, batch_size=32)
ALL_ON = TINY.but(
    dropout=0.3, ema=0.9, flip=0.5, shift=0.1, rotate=10.0, zoom=0.1, brightness=0.2, contrast=0.2,
    erase=0.3, mixup=0.4, cutmix=1.0, label_smoothing=0.1, class_weights="balanced", clip=5.0,
    weight_decay=0.01,
)  # fmt: skip
SGD = ALL_ON.but(
    optimiser="sgd", weight_decay=0.0, l1=1e-5, l2=1e-4, lr=0.05, schedule="cosine", warmup=1.0
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is kept, however long that takes beside so short a one."""
    monkeypatch.setattr(loop, "KEEPING_SHARE", 1e9)


@cache
def faces() -> FaceSet:
    return draw_faces(140, size=24)


@cache
def train() -> FaceSet:
    return faces()["train"]


@cache
def valid() -> FaceSet:
    return faces()["validation"]


def trained(recipe: Recipe, runs: Path, **settings: Any) -> Run:
    return fit(recipe, train(), valid(), runs=runs, **{"progress": "none", **settings})


def weights(run: Run) -> bytes:
    return run.weights_path.read_bytes()


def test_an_epoch_is_validated_at_the_size_it_was_trained_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("loop", "batches"):  # the last epoch would be at full size
        monkeypatch.setattr(f"mien.training.{module}.side_of", lambda recipe, epoch: 16)
    run = trained(TINY.but(epochs=1, start_size=16), tmp_path)
    images = torch.from_numpy(valid().images)[:, None]
    how = Normalisation.from_dict(run.info["normalisation"])
    losses = {}
    for size in (16, 24):
        found = probabilities(load_model(run), images, how, size).numpy()
        losses[size] = -np.log(found[np.arange(len(found)), valid().labels]).mean()
    assert run.log[0]["validation_loss"] == pytest.approx(losses[16], rel=1e-5)
    assert losses[16] != pytest.approx(losses[24], rel=1e-3)
    kept = run.predictions("validation").probabilities
    whole = -np.log(kept[np.arange(len(kept)), valid().labels]).mean()
    assert whole == pytest.approx(losses[24], rel=1e-5), "what a run leaves is at its full size"


def timeless(run: Run) -> list[dict[str, Any]]:
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in Run.open(run.path).log]


def stop_at(monkeypatch: pytest.MonkeyPatch, stop: int, act: Callable[[], None]) -> None:
    """Let `act` happen in the middle of the training, before its step `stop` (from 0)."""
    rate = loop.learning_rate

    def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
        if step == stop:
            act()
        return rate(recipe, step, steps)

    monkeypatch.setattr(loop, "learning_rate", learning_rate)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


# What a finished run is


def test_a_training_learns_and_leaves_a_whole_run(tmp_path: Path) -> None:
    recipe = TINY.but(width=0.25, epochs=12, ema=0.9, dropout=0.0)
    run = trained(recipe, tmp_path)
    assert run.finished
    assert run.path == tmp_path / run_name(recipe, train(), valid())
    files = ["log.jsonl", "predictions.npz", "recipe.toml", "run.json", "weights.safetensors"]
    assert sorted(file.name for file in run.path.glob("[!.]*")) == files
    log = Run.open(run.path).log
    assert [row["epoch"] for row in log] == list(range(1, 13))
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert log[-1]["accuracy"] > 0.8
    found = run.predictions("validation")
    assert found.names.tolist() == valid().names.tolist()
    metrics = evaluate(found.probabilities, found.labels, run.classes)
    assert metrics.accuracy > 2 / 7  # twice what chance would give
    assert metrics.accuracy == pytest.approx(log[-1]["validation_accuracy"])
    assert metrics.log_loss == pytest.approx(log[-1]["validation_loss"], rel=1e-4)
    assert run.info["data"]["train"]["images"] == 98
    assert run.info["epochs"] == 12
    assert run.info["train_seconds"] > 0


def test_the_same_recipe_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    first = trained(ALL_ON, tmp_path / "1")
    torch.rand(17)  # whatever else has happened in this process
    second = trained(ALL_ON, tmp_path / "2")
    assert weights(first) == weights(second)
    assert timeless(first) == timeless(second)
    assert weights(trained(ALL_ON.but(seed=1), tmp_path / "1")) != weights(first)


def test_asking_again_returns_the_finished_run_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(TINY, tmp_path)
    kept = weights(first)
    monkeypatch.setattr(loop.Training, "_train_epoch", None)
    again = trained(TINY, tmp_path)
    assert again == first
    assert weights(again) == kept
    record = first.write_record(tmp_path / "records")
    assert trained(TINY, tmp_path / "other", records=tmp_path / "records").path == record


def test_a_run_that_another_process_finished_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = loop.build_model

    def while_the_other_trains(*arguments: Any) -> Any:
        monkeypatch.undo()
        trained(TINY, tmp_path)
        monkeypatch.setattr(loop.Training, "_train_epoch", None)
        return build(*arguments)

    monkeypatch.setattr(loop, "build_model", while_the_other_trains)
    assert trained(TINY, tmp_path).finished


def test_a_training_needs_no_validation_part(tmp_path: Path) -> None:
    run = fit(TINY, train(), runs=tmp_path, progress="none")
    assert run.finished
    assert run.predicted == ()
    assert "validation_loss" not in run.log[0]
    assert run.write_record(tmp_path / "records").exists()


def test_names_with_umlauts_do_not_lose_a_training(tmp_path: Path) -> None:
    named = replace(valid(), names=np.array([f"grün/{i}.jpg" for i in range(len(valid()))]))
    run = fit(TINY, train(), named, runs=tmp_path, progress="none")
    assert run.predictions("validation").names[0] == "grün/0.jpg"


# Stopped and taken up again

KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
import torch._dynamo  # or each child would, in its first step, for as long as torch itself takes
from mien.data import draw_faces
from mien.runs.recipe import Recipe
from mien.training import fit

torch.set_num_threads(1)
runs, recipe = Path(sys.argv[1]), Recipe.from_toml(sys.argv[2])
faces, rng = draw_faces(140, size=24), random.Random(sys.argv[3])
signals = []
for epochs in (1, 3, 5, None):
    child = os.fork()
    if child == 0:
        fit(recipe, faces["train"], faces["validation"], runs=runs, progress="none")
        os._exit(0)
    if epochs is not None:
        rows = []
        while len(rows) < epochs:
            time.sleep(0.002)
            logs = list(runs.glob("*/log.jsonl"))
            rows = [json.loads(line) for line in logs[0].open()] if logs else []
        time.sleep(rng.uniform(0, 1.5) * rows[-1]["seconds"])
        os.kill(child, signal.SIGKILL)
    signals.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(signals))
"""


@pytest.mark.parametrize("recipe", [ALL_ON, SGD], ids=["adamw", "sgd"])
def test_a_run_killed_three_times_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, recipe: Recipe
) -> None:
    recipe = recipe.but(epochs=9)
    whole = trained(recipe, tmp_path / "whole")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    seed = os.urandom(4).hex()
    command = [sys.executable, "-c", KILLED, tmp_path / "killed", tmp_path / "recipe.toml", seed]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=250)
    assert json.loads(done.stdout) == [-signal.SIGKILL] * 3 + [0], seed
    killed = Run.open(tmp_path / "killed" / whole.name)
    assert weights(killed) == weights(whole), seed
    assert timeless(killed) == timeless(whole), seed
    assert len(killed.log) == 9
    np.testing.assert_array_equal(
        killed.predictions("validation").probabilities,
        whole.predictions("validation").probabilities,
    )
    assert not list(killed.path.glob(".*.tmp"))


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_ctrl_c_says_how_to_go_on_and_going_on_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str
) -> None:
    recipe = ALL_ON.but(optimiser=optimiser, weight_decay=0.0)
    whole = trained(recipe, tmp_path / "whole")
    stop_at(monkeypatch, 7, interrupt)  # the second of the three steps of epoch 3
    with pytest.raises(KeyboardInterrupt, match=r"stopped after 2 of 3 epochs, .* goes on from"):
        trained(recipe, tmp_path)
    monkeypatch.undo()
    half = Run.open(tmp_path / whole.name)
    assert not half.finished
    assert len(half.log) == 2
    assert half.checkpoint_path.exists()
    again = trained(recipe, tmp_path)
    assert weights(again) == weights(whole)
    assert timeless(again) == timeless(whole)
    assert not again.checkpoint_path.exists()


def test_where_writing_takes_long_not_every_epoch_is_kept_and_the_last_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(ALL_ON, tmp_path / "whole")
    monkeypatch.setattr(loop, "KEEPING_SHARE", 0.0)
    with monkeypatch.context() as patch:
        stop_at(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt, match="stopped after 2 of 3 epochs, 1 of them kept"):
            trained(ALL_ON, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_leave_results", lambda *_: interrupt())
        with pytest.raises(KeyboardInterrupt, match="stopped after 3 of 3 epochs, which are kept"):
            trained(ALL_ON, tmp_path)
    again = trained(ALL_ON, tmp_path)
    assert weights(again) == weights(whole)
    assert timeless(again) == timeless(whole)


@pytest.mark.parametrize("place", ["_validate", "_leave_results"])
def test_ctrl_c_between_the_epochs_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    whole = trained(ALL_ON, tmp_path / "whole")
    monkeypatch.setattr(Training, place, lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt, match=r"stopped after [03] of 3 epochs"):
        trained(ALL_ON, tmp_path)
    monkeypatch.undo()
    assert weights(trained(ALL_ON, tmp_path)) == weights(whole)


def test_a_full_disk_stops_with_a_message_and_the_training_goes_on_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(ALL_ON, tmp_path / "whole")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stop_at(monkeypatch, 4, lambda: monkeypatch.setattr(os, "fsync", full))
    with pytest.raises(RunError, match=r"checkpoint\.pt: cannot be written .No space left"):
        trained(ALL_ON, tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / whole.name).glob(".*.tmp"))
    assert len(Run.open(tmp_path / whole.name).log) == 1
    assert weights(trained(ALL_ON, tmp_path)) == weights(whole)


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run of `TINY` that was stopped in its second epoch."""
    stop_at(monkeypatch, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(TINY, tmp_path)
    monkeypatch.undo()
    return tmp_path / run_name(TINY, train(), valid())


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "foreign", "no archive"])
def test_a_damaged_checkpoint_is_refused_and_without_it_the_run_begins_again(
    half: Path, damage: str
) -> None:
    file = half / "checkpoint.pt"
    whole = file.read_bytes()
    middle = len(whole) // 2
    if damage == "foreign":
        torch.save({"epoch": 1, "model": {}}, file)
    else:
        file.write_bytes(
            {
                "cut": whole[:middle],
                "emptied": b"",
                "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "no archive": b"PK" + bytes(500),
            }[damage]
        )
    with pytest.raises(RunError, match=r"checkpoint\.pt: is damaged .*; remove this file"):
        trained(TINY, half.parent)
    file.unlink()
    assert trained(TINY, half.parent).finished


def test_a_damaged_or_foreign_run_folder_is_refused(half: Path) -> None:
    known = (half / "run.json").read_text()
    (half / "run.json").write_text(known[:100])
    with pytest.raises(RunError, match="is damaged"):
        trained(TINY, half.parent)
    (half / "run.json").write_text(known.replace('"format": 1', '"format": 99'))
    with pytest.raises(RunError, match="was written in format 99, this Mien reads 1"):
        trained(TINY, half.parent)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    ],
    ids=["memory", "work space"],
)
def test_an_accelerators_memory_that_is_full_is_said_to_be_and_the_epochs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full() -> None:
        raise error

    stop_at(monkeypatch, 2, full)
    with pytest.raises(OutOfMemory, match=r"plain-.*\(CUDA .*batch_size"):
        trained(TINY, tmp_path)
    monkeypatch.undo()
    assert weights(trained(TINY, tmp_path)) == weights(trained(TINY, tmp_path / "at once"))


def test_float32_is_float32_in_an_accelerators_convolutions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    choose_device("cuda")
    assert not torch.backends.cudnn.allow_tf32


def test_a_run_that_is_being_trained_is_refused(half: Path) -> None:
    with locked(half), pytest.raises(RunInUseError, match="another process is training this run"):
        trained(TINY, half.parent)
    assert trained(TINY, half.parent).finished


def test_what_a_killed_process_left_half_written_is_removed(half: Path) -> None:
    (half / ".checkpoint.pt.a1b2c3.tmp").write_bytes(bytes(1000))
    trained(TINY, half.parent)
    assert not list(half.glob("*.tmp"))


# What goes wrong in training


def test_a_loss_that_is_no_number_stops_with_epoch_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = objective.model_loss
    calls = 0

    def broken(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        found, logits = loss(*arguments, **settings)
        return found * (float("inf") if calls == 5 else 1), logits

    monkeypatch.setattr(objective, "model_loss", broken)
    message = "the loss is inf in epoch 2, step 2 of 3; the epochs up to 1 are kept. Try a lower lr"
    with pytest.raises(RunError, match=message):
        trained(TINY, tmp_path)
    monkeypatch.undo()
    name = run_name(TINY, train(), valid())
    assert len(Run.open(tmp_path / name).log) == 1
    assert weights(trained(TINY, tmp_path)) == weights(trained(TINY, tmp_path / "whole"))


def test_a_rate_far_too_high_stops_with_a_message(tmp_path: Path) -> None:
    recipe = TINY.but(
        model="vgg19", batch_norm=False, width=0.03, optimiser="sgd", lr=1e3, schedule="constant"
    )
    # Nothing is kept of a first epoch.
    with pytest.raises(
        RunError, match=r"loss is (nan|inf) .*epoch 1[^;]*\. Try a lower lr, a warm"
    ):
        trained(recipe, tmp_path)


def test_a_collapse_is_said_after_three_epochs_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each step halves every weight, as a penalty far above the cross-entropy does.
    recipe = TINY.but(
        optimiser="sgd", momentum=0.0, schedule="constant", lr=2.5e-4, l2=1e3, epochs=8
    )
    run = trained(recipe, tmp_path, progress="lines")
    alone = run.log[-1]["collapsed_to"]
    assert alone in run.classes
    assert run.info["collapsed_to"] == alone
    assert set(run.predictions("validation").probabilities.argmax(1)) == {run.classes.index(alone)}
    assert f"almost every validation image was called '{alone}'" in capsys.readouterr().err
    assert [row["penalty"] for row in run.log] == sorted(
        (row["penalty"] for row in run.log), reverse=True
    )


def test_a_sound_training_is_not_called_collapsed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(TINY.but(epochs=6, dropout=0.0), tmp_path, progress="lines")
    assert run.info["collapsed_to"] is None
    said = capsys.readouterr().err
    assert "collapsed" not in said
    assert said.count("epoch ") == 6


@pytest.mark.parametrize(
    ("processor", "emulated"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
        ({"architecture": "aarch64", "bf16": False}, False),
    ],
)
def test_bf16_on_a_processor_without_it_is_told(
    processor: dict[str, Any],
    emulated: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    for precision, told in (("fp32", False), ("bf16", emulated)):
        trained(TINY.but(epochs=1, precision=precision), tmp_path, progress="lines")
        assert ("fp32 is faster here" in capsys.readouterr().err) == told


def test_patience_ends_a_training_that_no_longer_gets_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [3.0, 2.0, 2.5, 1.9, 1.9, 2.1, 1.0, 0.5]

    def scripted(self: Training) -> dict[str, float]:
        return {"validation_loss": losses[self.epoch], "validation_accuracy": 0.5}

    monkeypatch.setattr(Training, "_validate", scripted)
    for patience, epochs in ((1, 3), (2, 6), (3, 8), (0, 8)):
        run = trained(TINY.but(epochs=8, patience=patience), tmp_path)
        assert run.finished
        assert run.info["epochs"] == len(run.log) == epochs


def test_patience_waits_for_images_of_the_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = TINY.but(epochs=20, patience=2, start_size=16)
    first = [side_of(recipe, epoch) for epoch in range(20)].index(24)
    assert 3 < first < 15
    losses = [1.0, *[2.0] * (first - 1), 3.0, 2.5, 2.6, 2.7, 0.0]

    def scripted(self: Training) -> dict[str, float]:
        return {"validation_loss": losses[self.epoch], "validation_accuracy": 0.5}

    monkeypatch.setattr(Training, "_validate", scripted)
    run = trained(recipe, tmp_path)
    assert len(run.log) == first + 4


def test_a_log_that_was_not_written_after_the_last_checkpoint_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Run) -> None:
        raise RunError("no space left")

    recipe = TINY.but(epochs=1)
    monkeypatch.setattr(Run, "save_log", full)
    with pytest.raises(RunError, match="no space left"):
        trained(recipe, tmp_path)
    monkeypatch.undo()
    run = trained(recipe, tmp_path)
    assert Run.open(run.path).log == run.log
    assert len(run.log) == 1


def test_a_batch_that_batch_norm_cannot_take_is_named(tmp_path: Path) -> None:
    recipe = TINY.but(model="resnet50", width=0.1, stride=32, image_size=32, batch_size=1)
    with pytest.raises(RecipeError, match=r"batch_size = 1: .* at least two images"):
        trained(recipe, tmp_path)


# What is trained on, and what must not be


def part(original: FaceSet, **columns: Any) -> FaceSet:
    return replace(original, **columns)


@pytest.mark.parametrize("split", ["test", "Test", "PrivateTest"])
def test_a_final_test_split_is_refused_whatever_its_role(tmp_path: Path, split: str) -> None:
    test = part(valid(), split=np.full(len(valid()), split))
    for given in ((test, valid()), (train(), test)):
        with pytest.raises(DataError, match=f"'{split}' is a final test split"):
            fit(TINY, *given, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_images_without_label_are_refused(tmp_path: Path) -> None:
    labels = valid().labels.copy()
    labels[3:5] = -1
    for role, given in (
        ("train", (part(valid(), labels=labels), train())),
        ("validation", (train(), part(valid(), labels=labels))),
    ):
        with pytest.raises(DataError, match=f"{role}: 2 images have no label"):
            fit(TINY, *given, runs=tmp_path)


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    few = train()[np.flatnonzero(~np.isin(train().labels, (1, 4)))]
    with pytest.raises(DataError, match="train: no image of disgust, sad"):
        fit(TINY, few, valid(), runs=tmp_path)


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    nothing = valid()[:0]
    other = part(valid(), classes=tuple("abcdefg"))
    colour = part(valid(), images=np.repeat(valid().images[..., None], 3, 3))
    copies = part(train()[:9], split=np.full(9, "validation"))
    for given, message in (
        (nothing, "validation: has no images"),
        (other, "validation: other classes"),
        (colour, "validation: 3 channels and train 1"),
        (copies, "validation: every image stands in train too"),
    ):
        with pytest.raises(DataError, match=message):
            fit(TINY, train(), given, runs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "validation", "message"),
    [
        ({"model": "plane"}, True, "did you mean.* 'plain'"),
        ({"model": "inceptionv3"}, True, "image_size 24 is too small"),
        (
            {"model": "timm:vit_tiny_patch16_224", "width": 1.0, "stride": 16, "start_size": 16},
            True,
            "start_size = 16 beside",
        ),
        ({"patience": 2}, False, "patience watches the validation loss"),
        ({"soft_labels": True}, True, "soft_labels needs the votes"),
    ],
)
def test_a_recipe_that_does_not_fit_leaves_no_folder_behind(
    tmp_path: Path, changes: dict[str, Any], validation: bool, message: str
) -> None:
    recipe = TINY.but(**changes)
    with pytest.raises(RecipeError, match=message):
        fit(recipe, train(), valid() if validation else None, runs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(RunError, match=f"device '{device}' cannot be used here"):
        trained(TINY, tmp_path, device=device)


def test_validation_leaves_out_copies_of_training_images(tmp_path: Path) -> None:
    chosen = np.concatenate(
        [np.flatnonzero(faces().split == "validation"), np.flatnonzero(faces().split == "train")]
    )[: len(valid()) + 40]
    mixed = part(faces()[chosen], split=np.full(len(chosen), "validation"))
    mixed.labels[len(valid()) :] += 1
    mixed.labels[:] %= 7  # copies with wrong labels: a model that knows them gets them all wrong
    run = fit(TINY.but(epochs=8), train(), mixed, runs=tmp_path, progress="none")
    found = run.predictions("validation")
    right = found.probabilities.argmax(1) == found.labels
    assert run.log[-1]["validation_accuracy"] == pytest.approx(right[: len(valid())].mean())
    assert len(right) == len(valid()) + 40
    assert right.mean() < right[: len(valid())].mean()
    assert found.seen is not None
    assert np.flatnonzero(found.seen).tolist() == list(range(len(valid()), len(right)))


def test_predictions_note_which_images_stand_in_the_training_part(tmp_path: Path) -> None:
    run = trained(TINY.but(epochs=1), tmp_path)
    copied = part(faces(), images=faces().images.copy(), groups=None)
    copied.images[np.flatnonzero(copied.split == "test")[[1, 4]]] = train().images[[0, 9]]
    without_training_part = copied[copied.split != "train"]
    without_training_part.split[:] = "unknown"
    predict_splits(run, without_training_part, ["unknown"])
    predict_splits(run, copied, ["test"])
    assert run.predictions("unknown").seen is None
    seen = run.predictions("test").seen
    assert seen is not None
    assert np.flatnonzero(seen).tolist() == [1, 4]


# What single settings do


def test_clipping_bounds_what_a_step_can_change(tmp_path: Path) -> None:
    recipe = TINY.but(
        optimiser="sgd", momentum=0.0, schedule="constant", lr=1.0, clip=1e-3, l2=0.1, epochs=1
    )
    run = trained(recipe, tmp_path)
    torch.manual_seed(random_seed(0, "weights"))
    start = dict(build_model(recipe, 7, 1).named_parameters())
    end = load_file(run.weights_path)
    moved = torch.cat([(end[name] - p.detach()).flatten() for name, p in start.items()]).norm()
    assert 0 < float(moved) <= 3 * 1e-3 * 1.001  # three steps


def test_averaged_weights_are_the_ones_that_are_kept(tmp_path: Path) -> None:
    live, averaged = trained(TINY, tmp_path), trained(TINY.but(ema=0.9), tmp_path)
    # Averaging reads the training and does not touch it.
    for a, b in zip(live.log, averaged.log, strict=True):
        assert a["loss"] == b["loss"]
        assert a["validation_loss"] != b["validation_loss"]
    assert weights(live) != weights(averaged)


def test_bf16_trains_near_to_single_precision(tmp_path: Path) -> None:
    half, single = trained(TINY.but(precision="bf16"), tmp_path), trained(TINY, tmp_path)
    assert [row["loss"] for row in half.log] != [row["loss"] for row in single.log]
    assert weights(half) != weights(single)
    for a, b in zip(half.log, single.log, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.1)
    assert all(t.dtype != torch.bfloat16 for t in load_file(half.weights_path).values())


def test_the_compiled_model_is_the_one_that_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def compile(model: torch.nn.Module, device: torch.device) -> Any:
        return lambda images: steps.append(len(images)) or model(images)

    monkeypatch.setattr(loop, "compiled", compile)
    run = trained(TINY.but(compile=True), tmp_path)
    assert steps == [32] * 9
    assert weights(run) == weights(trained(TINY, tmp_path))


def test_an_accelerator_compiles_all_and_a_cpu_attention_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = []

    def compile(what: Any, **settings: Any) -> Any:  # the real one takes half a minute
        compiled.append((what, settings))
        return what

    monkeypatch.setattr(torch, "compile", compile)
    checked: list[torch.device] = []
    monkeypatch.setattr(loop, "check_compiler", checked.append)
    model = build_model(TINY.but(attention="cbam"), 7, 1)
    # Each size of image for itself: kernels for any size are slower.
    assert loop.compiled(model, torch.device("cuda")) is model
    assert compiled == [(model, {"dynamic": False})]
    assert checked == [torch.device("cuda")]
    assert torch._dynamo.config.recompile_limit >= 64  # as many sizes as images grow through
    assert not any(module.compiled for module in model.modules() if isinstance(module, CBAM))
    assert loop.compiled(model, torch.device("cpu")) is model
    assert compiled[1:] == [(torch.neg, {})]  # to see whether it can be done
    assert all(module.compiled for module in model.modules() if isinstance(module, CBAM))


def test_an_auxiliary_classifier_is_trained_and_can_be_switched_off(tmp_path: Path) -> None:
    recipe = TINY.but(model="inceptionv3", image_size=32, width=0.05, epochs=1)
    with_it, without = trained(recipe, tmp_path), trained(recipe.but(auxiliary=0.0), tmp_path)
    assert with_it.log[0]["loss"] > without.log[0]["loss"] + 0.4
    torch.manual_seed(random_seed(0, "weights"))
    start = dict(build_model(recipe, 7, 1).named_parameters())
    name = next(n for n in start if "aux" in n.lower() and n.endswith("fc.weight"))
    assert not torch.equal(load_file(with_it.weights_path)[name], start[name])
    assert torch.equal(load_file(without.weights_path)[name], start[name])


def test_weights_that_the_last_step_broke_are_not_left_behind(tmp_path: Path) -> None:
    wild = TINY.but(
        optimiser="sgd", momentum=0.0, lr=1e3, l2=1e3, schedule="constant", batch_size=1000
    )
    with pytest.raises(RunError, match=r"the weight .* is inf after the last step"):
        fit(wild, train(), None, runs=tmp_path, progress="none")
    assert not list(tmp_path.glob("*/weights.safetensors"))
