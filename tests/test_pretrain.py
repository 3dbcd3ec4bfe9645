from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mien.cli.app import app
from mien.data import FaceSet, draw_faces
from mien.errors import DataError, RecipeError, RunError
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.runs.seed import random_seed
from mien.training import fit, pretrain
from mien.training.batches import Batches
from mien.training.predict import build_model
from mien.training.pretrain import nt_xent, two_views

TINY = Recipe(
    model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=32, flip=0.5,
    shift=0.1, brightness=0.3,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def train() -> FaceSet:
    return draw_faces(140, size=24)["train"]


def pretrained(out: Path, epochs: int = 3, **changes: Any) -> Path:
    return pretrain.pretrain(
        TINY.but(**changes), train(), out, epochs=epochs, device="cpu", progress="none"
    )


def test_the_loss_is_what_summing_over_pairs_gives() -> None:
    vectors = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    losses = []
    for i in range(10):
        similar = np.exp(unit @ unit[i] / 0.5)
        losses.append(-np.log(similar[(i + 5) % 10] / (similar.sum() - similar[i])))
    assert float(nt_xent(vectors)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_vectors_that_tell_all_images_apart_cost_least() -> None:
    apart = torch.eye(4).repeat(2, 1)
    # Each has its other view at 1 and six views of others at 0.
    assert float(nt_xent(apart)) == pytest.approx(-np.log(np.exp(2) / (np.exp(2) + 6)), rel=1e-5)
    assert float(nt_xent(torch.ones(8, 4))) == pytest.approx(np.log(7), rel=1e-5)


def test_an_epoch_has_each_image_at_most_once_and_each_of_its_views_changed_on_its_own() -> None:
    blank = replace(train(), images=np.arange(98, dtype=np.uint8)[:, None, None] + np.zeros(
        (98, 24, 24), np.uint8))  # fmt: skip
    unit = Normalisation((0.0,), (1.0,))
    still = Batches(blank, TINY.but(flip=0.0, shift=0.0, brightness=0.0), unit, torch.device("cpu"))
    seen = [views for views in two_views(still, 0)]
    assert [views.shape for views in seen] == [(64, 1, 24, 24)] * 3
    first, second = (torch.cat([v[half] for v in seen])[:, 0, 0, 0] for half in (
        slice(32), slice(32, None)))  # fmt: skip
    assert torch.equal(first, second)
    assert len(set(first.tolist())) == 96
    moving = Batches(train(), TINY, unit, torch.device("cpu"))
    views = next(two_views(moving, 0))
    assert (views[:32] != views[32:]).flatten(1).any(1).all()
    assert not torch.equal(next(two_views(moving, 1)), views)
    assert torch.equal(next(two_views(moving, 0)), views)


def test_it_learns_to_tell_faces_apart_and_a_training_begins_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "start.safetensors"
    pretrain.pretrain(TINY, train(), out, epochs=6, device="cpu", progress="lines")
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["start.safetensors"]
    state = load_file(out)
    torch.manual_seed(random_seed(0, "weights"))
    fresh = build_model(TINY, 7, 1).state_dict()
    assert state.keys() == fresh.keys()
    assert torch.equal(state["fc.weight"], fresh["fc.weight"])
    assert not torch.equal(state["stage1.conv1.weight"], fresh["stage1.conv1.weight"])
    run = fit(TINY.but(weights=str(out), lr=1e-12), train(), runs=tmp_path, progress="none")
    end = load_file(run.weights_path)
    torch.testing.assert_close(end["stage1.conv1.weight"], state["stage1.conv1.weight"])


def test_labels_are_not_looked_at(tmp_path: Path) -> None:
    known = pretrained(tmp_path / "known.safetensors", 1)
    unlabelled = replace(train(), labels=np.full(98, -1))
    other = tmp_path / "unknown.safetensors"
    pretrain.pretrain(TINY, unlabelled, other, epochs=1, device="cpu", progress="none")
    for name, tensor in load_file(known).items():
        assert torch.equal(load_file(other)[name], tensor), name


def test_a_stopped_one_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrained(tmp_path / "whole.safetensors")
    epoch = pretrain._epoch

    def stopping(both: Any, optimiser: Any, batches: Any, number: int, shown: Any) -> float:
        if number == 2:
            raise KeyboardInterrupt
        return epoch(both, optimiser, batches, number, shown)

    half = tmp_path / "half.safetensors"
    monkeypatch.setattr(pretrain, "_epoch", stopping)
    with pytest.raises(KeyboardInterrupt, match=r"finished epochs are kept in .*half-plain"):
        pretrained(half)
    assert not half.exists()
    done = []

    def counting(*arguments: Any) -> float:
        done.append(arguments[3])
        return epoch(*arguments)

    monkeypatch.setattr(pretrain, "_epoch", counting)
    pretrained(half)
    assert done == [2]
    assert pretrained(half) == half  # done already
    assert done == [2]
    for name, tensor in load_file(whole).items():
        assert torch.equal(load_file(half)[name], tensor), name
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_must_not_be_learned_from_or_written_over_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "start.safetensors"
    test = replace(train(), split=np.full(98, "PrivateTest"))
    with pytest.raises(DataError, match="'PrivateTest' is a final test split"):
        pretrain.pretrain(TINY, test, out, epochs=1)
    with pytest.raises(DataError, match="one face cannot be told apart"):
        pretrain.pretrain(TINY, train()[:1], out, epochs=1)
    with pytest.raises(RecipeError, match="the packaged model has learned from labels"):
        pretrained(out, weights="packaged")
    for content in (b"something", pretrained(tmp_path / "other.safetensors", 1).read_bytes()):
        out.write_bytes(content)
        with pytest.raises(RunError, match="holds something else"):
            pretrained(out, 2)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_loss_that_is_no_number_stops_and_keeps_the_epochs_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(pretrained(tmp_path / "whole.safetensors"))
    loss, steps = pretrain.nt_xent, iter(range(9))
    monkeypatch.setattr(
        pretrain, "nt_xent", lambda v: loss(v) * (float("nan") if next(steps) == 4 else 1)
    )
    out = tmp_path / "start.safetensors"
    with pytest.raises(RunError, match="the loss is nan in epoch 2; the epochs before are kept"):
        pretrained(out)
    monkeypatch.undo()
    for name, tensor in load_file(pretrained(out)).items():
        assert torch.equal(whole[name], tensor), name


def test_the_command_leaves_weights_that_a_training_takes(tmp_path: Path) -> None:
    out = tmp_path / "start.safetensors"
    small = [f"{n}={getattr(TINY, n)}" for n in ("width", "image_size", "stride", "batch_size")]
    settings = [word for change in small for word in ("--set", change)]
    command = ["--data", "drawn:140", "--recipe", "plain", *settings, "--device", "cpu"]
    done = CliRunner().invoke(app, ["pretrain", *command, "--epochs", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"weights: {out}" in done.output
    assert f"--set weights={out}" in done.output.replace("\n", "")
    recipe = TINY.but(weights=str(out), flip=0.0)
    assert fit(recipe, train(), runs=tmp_path, progress="none").finished


def test_what_a_file_learned_before_is_not_lost_by_pretraining(tmp_path: Path) -> None:
    known, own = tmp_path / "known.safetensors", pretrained(tmp_path / "own.safetensors", 1)
    with safe_open(own, "pt") as file:
        said = file.metadata()
    assert list(said) == ["trained_on"]  # of several the order, and so the digest, is by chance
    assert json.loads(said["trained_on"])["alone"]
    save_file(load_file(own), known, {"trained_on": json.dumps({"fingerprint": "x"})})
    with pytest.raises(RecipeError, match="has learned from labels or from other images"):
        pretrained(tmp_path / "out.safetensors", weights=str(known))
    pretrained(tmp_path / "more.safetensors", weights=str(own))  # from the same images alone
