"""What runs on an accelerator, run on a stand-in for one: devices and waits, no kernels.

These tests run in a process of their own, which `test_elsewhere.py` begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import NAME, Elsewhere
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves

import mien
from mien.balance.gan import fit_generator, generate
from mien.balance.gan import training as gan
from mien.data import FaceSet
from mien.explanation import explain
from mien.images import normalise
from mien.runs import generator_recipe
from mien.runs.generator_recipe import SMALL
from mien.runs.progress import TrainingProgress
from mien.study.balancing import balance_classes
from mien.training import muon
from mien.training.predict import pooled_features, predict_probabilities
from mien.training.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = mien.Recipe(model="plain", width=0.125, image_size=32, epochs=1, batch_size=12, ema=0.9)
GENERATOR = SMALL.but(width=8, latent=8, images=24, epochs=1, batch_size=12)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The display waits for the device once a second, whatever the steps."""
    monkeypatch.setattr(TrainingProgress, "due", lambda self: False)
    # Of so few steps no generator comes that is in order.
    monkeypatch.setattr(gan, "trouble", lambda *measured: None)
    monkeypatch.setitem(generator_recipe.GENERATORS, "tiny", GENERATOR)


@cache
def faces() -> FaceSet:
    drawn = mien.draw_faces(70)
    votes = np.eye(7, dtype=np.float32)[drawn.labels]
    votes[::5] = np.nan
    return replace(drawn, soft=votes)


def train() -> FaceSet:
    return faces()["train"][:24]


def mapped(part: FaceSet, folder: Path) -> FaceSet:
    """The part with its images in a file, as those of a store are."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", part.images)
    return replace(part, images=np.load(folder / "images.npy", mmap_mode="r"))


def coloured(part: FaceSet) -> FaceSet:
    return replace(part, images=np.stack([part.images, part.images // 2, part.images // 3], 3))


def fitted(recipe: mien.Recipe, runs: Path, device: str, part: FaceSet | None = None) -> mien.Run:
    part = train() if part is None else part
    validation = faces()["validation"]
    if part.channels == 3:
        validation = coloured(validation)
    return mien.fit(recipe, part, validation, runs=runs, device=device, progress="none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, mien.Run]:
    """Finished trainings on the CPU, of a plain network and of one with CBAM."""
    folder = tmp_path_factory.mktemp("runs")
    attentions = {"plain": {}, "cbam": {"attention": "cbam", "width": 0.25}}
    return {
        name: fitted(RECIPE.but(**changes), folder, "cpu") for name, changes in attentions.items()
    }


AUGMENTED = {
    "flip": 0.5, "shift": 0.1, "rotate": 10.0, "zoom": 0.1, "brightness": 0.2, "contrast": 0.2,
    "erase": 0.5,
}  # fmt: skip

SETTINGS: list[dict[str, Any]] = [
    {"optimiser": "sgd"},
    {"optimiser": "adam", "l1": 1e-4, "l2": 1e-4},
    {"optimiser": "adamw", "clip": 1.0, "precision": "bf16"},
    {"optimiser": "rmsprop", "ema": 0.0},
    {"optimiser": "muon", "lr": 0.02, "sam": 0.05},
    {"optimiser": "muon", "lr": 0.02, "precision": "bf16"},
    AUGMENTED | {"mixup": 0.2, "cutmix": 1.0},
    {"class_weights": "balanced", "label_smoothing": 0.1},
    {"oversample": True, "loss": "gce", "start_size": 24},
    {"logit_adjustment": 1.0},
    {"auxiliary_votes": 1.0, "mixup": 0.2},
    {"degrade": 0.5, "cutmix": 1.0},
    {"loss": "sce", "conflicts": "weight", "enhance": ("clahe",)},
    {"generate": "20", "generator": "tiny"},
    {"model": "vgg19", "attention": "cbam", "place": "convolutions"},
    {"model": "vgg19", "batch_norm": False},
    {"model": "resnet50", "attention": "cbam", "gates": "identity", "drop_path": 0.1},
    {"model": "inceptionv3", "attention": "cbam", "width": 0.0625, "image_size": 48},
    {"model": "plain", "attention": "se"},
    {"model": "plain", "attention": "eca"},
    {"model": "timm:test_resnet", "width": 1.0},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(map(str, c.values())))
def test_a_training_waits_for_the_device_between_epochs_alone(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    waits = []
    for batch in (12, 24):
        with Elsewhere() as device:
            run = fitted(RECIPE.but(**changes, batch_size=batch), tmp_path / str(batch), NAME)
        waits.append(device.waits)
    assert waits[0] == waits[1]  # two steps an epoch, and one
    here = fitted(run.recipe, tmp_path / "here", "cpu")
    assert run.log[0]["loss"] == pytest.approx(here.log[0]["loss"], rel=2e-3)


@pytest.mark.parametrize("device", ["cpu", NAME])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_muon_makes_its_steps_in_half_there_alone(
    device: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, whole = [], muon.orthogonalised_in_half
    monkeypatch.setattr(muon, "orthogonalised_in_half", lambda m: (used.append(1), whole(m))[1])
    with Elsewhere():
        fitted(RECIPE.but(optimiser="muon", precision=precision), tmp_path, device)
    assert bool(used) == (device == NAME and precision == "bf16")


@pytest.mark.parametrize("kind", ["of a store", "in colour", "in colour, with a teacher"])
def test_batches_of_any_images_are_brought_there_without_waiting(kind: str, tmp_path: Path) -> None:
    part = mapped(train(), tmp_path / "store") if kind == "of a store" else coloured(train())
    recipe = RECIPE.but(normalise="dataset")
    if "teacher" in kind:
        teacher = fitted(recipe.but(seed=1), tmp_path / "teacher", "cpu", part)
        recipe = recipe.but(teacher=(str(teacher.path),))
    waits = []
    for batch in (12, 24):
        normalise._there.cache_clear()
        with Elsewhere() as device:
            run = fitted(recipe.but(batch_size=batch), tmp_path / str(batch), NAME, part)
        waits.append(device.waits)
    assert waits[0] == waits[1]
    here = fitted(run.recipe, tmp_path / "here", "cpu", part)
    assert run.log[0]["loss"] == pytest.approx(here.log[0]["loss"], rel=2e-3)


def test_a_training_that_was_stopped_goes_on_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.but(optimiser="muon", epochs=2)
    with Elsewhere():
        whole = fitted(recipe, tmp_path / "whole", NAME)
        monkeypatch.setattr(mien.runs.run.Run, "save_log", _stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(recipe, tmp_path / "stopped", NAME)
        monkeypatch.undo()
        stopped = fitted(recipe, tmp_path / "stopped", NAME)
    assert weights(stopped.weights_path) == weights(whole.weights_path)


def _stop(run: mien.Run) -> None:
    raise KeyboardInterrupt


def weights(path: Path) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in load_file(path).items()}


def test_a_training_learns_from_a_teacher_and_begins_from_weights_there(
    runs: dict[str, mien.Run], tmp_path: Path
) -> None:
    path = str(runs["plain"].path)
    recipe = RECIPE.but(seed=1, teacher=(path,), weights=path, degrade=0.5)
    with Elsewhere():
        there = fitted(recipe, tmp_path / "elsewhere", NAME)
    here = fitted(recipe, tmp_path / "here", "cpu")
    assert weights(there.weights_path) == weights(here.weights_path)


@pytest.mark.parametrize("objective", ["relativistic", "hinge", "minimax"])
def test_a_generator_waits_for_the_device_between_epochs_alone(
    objective: str, tmp_path: Path
) -> None:
    waits = []
    for batch in (12, 24):
        recipe = GENERATOR.but(objective=objective, batch_size=batch, brightness=0.2, erase=0.3)
        with Elsewhere() as device:
            run = fit_generator(recipe, train(), runs=tmp_path, device=NAME, progress="none")
        waits.append(device.waits)
    assert waits[0] == waits[1]
    assert np.isfinite(run.log[0]["loss"])


def test_a_generator_learns_from_the_images_of_a_store(tmp_path: Path) -> None:
    store = mapped(train(), tmp_path / "store")
    with Elsewhere():
        there, here = (
            fit_generator(GENERATOR, part, runs=tmp_path / name, device=NAME, progress="none")
            for name, part in (("mapped", store), ("whole", train()))
        )
    assert there.log[0]["loss"] == here.log[0]["loss"]


def test_pretraining_waits_for_the_device_between_epochs_alone(tmp_path: Path) -> None:
    waits, files = [], []
    for device, batch in ((NAME, 12), (NAME, 24), ("cpu", 24)):
        out = tmp_path / f"{device}-{batch}.safetensors"
        recipe = RECIPE.but(batch_size=batch, **AUGMENTED)
        with Elsewhere() as counted:
            pretrain(recipe, train(), out, epochs=1, device=device, progress="none")
        waits.append(counted.waits)
        files.append(weights(out))
    assert waits[0] == waits[1] > waits[2] == 0
    assert files[1] == files[2]


def _generated(runs: dict[str, mien.Run], folder: Path, device: str) -> Any:
    run = fit_generator(GENERATOR, train(), runs=folder, device="cpu", progress="none")
    return generate(run, np.full(7, 5), device=device).images


def _balanced(runs: dict[str, mien.Run], folder: Path, device: str) -> Any:
    run = fit_generator(GENERATOR, train(), runs=folder, device="cpu", progress="none")
    done, _, made = balance_classes(
        train(), faces()["validation"], run, 20, features=runs["plain"],
        runs=folder, device=device, progress="none",
    )  # fmt: skip
    return [value for value in tree_leaves(done) if isinstance(value, float)] + [made.images]


ASKED: dict[str, Callable[[dict[str, mien.Run], Path, str], Any]] = {
    "ten views": lambda runs, folder, device: predict_probabilities(
        list(runs.values()), faces()["validation"], device, views=10
    ),
    "features": lambda runs, folder, device: pooled_features(
        runs["plain"], faces()["validation"], device
    ),
    "explanations": lambda runs, folder, device: list(
        explain(runs["cbam"], faces()["validation"][:8], steps=4, device=device)[1].values()
    ),
    "generated faces": _generated,
    "balanced classes": _balanced,
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_of_a_network_there_is_what_it_says_here(
    what: str, runs: dict[str, mien.Run], tmp_path: Path
) -> None:
    here = ASKED[what](runs, tmp_path, "cpu")
    with Elsewhere():
        there = ASKED[what](runs, tmp_path, NAME)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_stand_in_tells_tensors_apart_and_counts_what_it_waits_for() -> None:
    with Elsewhere() as device:
        ones = torch.ones(3, device=NAME)
        assert ones.device.type == NAME
        twice = (ones + ones).sum()
        assert device.waits == 0
        assert (float(twice), (ones * 3).cpu().tolist()) == (6.0, [3.0] * 3)
        assert device.waits == 2
        assert ones[ones > 0].shape == (3,)
        assert device.waits == 3
        with pytest.raises(RuntimeError, match="some of its tensors are here, and some elsewhere"):
            ones + torch.ones(3)
        with pytest.raises(RuntimeError, match="a generator of the CPU"):
            torch.rand(3, device=NAME, generator=torch.Generator())
