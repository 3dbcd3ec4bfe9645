"""Votes as a task beside the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.data import FaceSet, draw_faces
from mien.errors import RecipeError
from mien.images import Normalisation
from mien.models import create_model
from mien.runs.recipe import Recipe
from mien.runs.run import run_name
from mien.training import fit, load_model, predict_probabilities
from mien.training.batches import Batches
from mien.training.loop import Training
from mien.training.votes import add_votes, leave_out_votes, parted

TINY = Recipe(width=0.125, image_size=24, epochs=2, auxiliary_votes=1.0, ema=0.9)
CPU = torch.device("cpu")


def faces() -> FaceSet:
    """Drawn faces whose votes name another class than their labels; every fifth has none."""
    drawn = draw_faces(140, size=24)
    soft = np.roll(np.eye(7, dtype=np.float32)[drawn.labels], 1, 1)
    soft[::5] = np.nan
    return replace(drawn, soft=soft)


@pytest.mark.parametrize("name", ["plain", "vgg19", "resnet50", "inceptionv3", "timm:resnet18"])
def test_a_network_answers_votes_in_training_alone_and_ends_as_it_was(name: str) -> None:
    width = 1.0 if name.startswith("timm:") else 0.125
    model = create_model(name, classes=7, channels=1, width=width, image_size=48)
    images = torch.rand(2, 1, 48, 48)
    before, keys = model.eval()(images), list(model.state_dict())
    add_votes(model)
    torch.testing.assert_close(model(images), before)
    labels, votes = parted(model.train()(images))
    assert votes.shape == (2, 7)
    assert isinstance(labels, tuple) == (name == "inceptionv3")
    assert all(one.shape == (2, 7) for one in (labels if isinstance(labels, tuple) else [labels]))
    leave_out_votes(model)
    assert list(model.state_dict()) == keys


def test_votes_are_mixed_as_the_targets_are() -> None:
    recipe = TINY.but(mixup=1.0, batch_size=20)
    given = replace(faces(), soft=np.eye(7, dtype=np.float32)[faces().labels])
    batch = next(Batches(given, recipe, Normalisation((0.0,), (1.0,)), CPU).epoch(0))
    assert batch.votes is not None
    assert ((batch.targets > 0).sum(1) > 1).any()
    torch.testing.assert_close(batch.votes, batch.targets)


def test_votes_change_what_is_learned_and_not_what_a_run_is(tmp_path: Path) -> None:
    given = faces()
    train, valid = given["train"], given["validation"]
    run = fit(TINY, train, valid, runs=tmp_path, progress="none")
    without = fit(TINY.but(auxiliary_votes=0), train, valid, runs=tmp_path, progress="none")
    assert run.info["parameters"] == without.info["parameters"]
    learned, other = load_model(run).state_dict(), load_model(without).state_dict()
    assert list(learned) == list(other)
    name = "stage1.conv1.weight"
    assert not torch.equal(learned[name], other[name])
    kept = run.predictions("validation").probabilities
    np.testing.assert_allclose(predict_probabilities(run, valid), kept, atol=1e-6)


def test_a_training_that_was_stopped_goes_on_with_its_second_classifier(tmp_path: Path) -> None:
    given = faces()
    train, valid = given["train"], given["validation"]
    whole = fit(TINY, train, valid, runs=tmp_path / "whole", progress="none")
    first = Training(TINY, train, valid, CPU)
    path = tmp_path / "parts" / whole.name
    first.begin(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "_out_of_patience", lambda: first.epoch == 1)
        patch.setattr(first, "_leave_results", lambda progress: None)
        first.finish("none", keep_checkpoint=True)
    resumed = fit(TINY, train, valid, runs=tmp_path / "parts", progress="none")
    assert [row["epoch"] for row in resumed.log] == [1, 2]
    both = zip(
        load_model(whole).state_dict().items(),
        load_model(resumed).state_dict().items(),
        strict=True,
    )
    for (name, a), (_, b) in both:
        assert torch.equal(a, b), name


def test_votes_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    given = replace(faces(), soft=None)
    with pytest.raises(RecipeError, match=r"auxiliary_votes needs the votes .* or set it 0"):
        fit(TINY, given["train"], given["validation"], runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_whether_votes_were_read_makes_no_other_run_and_no_other_images(tmp_path: Path) -> None:
    given = faces()
    bare = replace(given, soft=None)
    plain = TINY.but(auxiliary_votes=0, ema=0)
    first = fit(plain, bare["train"], bare["validation"], runs=tmp_path, progress="none")
    again = fit(plain, given["train"], given["validation"], runs=tmp_path, progress="none")
    assert again.path == first.path
    changed = replace(given, soft=np.roll(given.soft, 1, 1))  # type: ignore[arg-type]
    names = {run_name(TINY, part["train"], None) for part in (given, changed, bare)}
    assert len(names) == 3
    taught = TINY.but(teacher=(str(first.path),), epochs=1)
    run = fit(taught, given["train"], given["validation"], runs=tmp_path, progress="none")
    assert run.finished
