"""Trainings that begin from others: what arrives, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_teacher import TINY

import mien
from mien.data import FaceSet, draw_faces
from mien.errors import RecipeError, RunError
from mien.evaluation.trained import open_all
from mien.images import Normalisation
from mien.inference import load
from mien.packaged import PACKAGED, sketched
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name
from mien.training import fit, predict_probabilities
from mien.training.earlier import Earlier, begin, check_beginning
from mien.training.predict import build_model
from mien.training.teacher import answers, load_teachers

pytestmark = pytest.mark.usefixtures("one_thread")

STILL = {"epochs": 1, "lr": 1e-12, "dropout": 0.0}
"""Settings of a training that leaves its initial weights as they were, but for rounding."""


@cache
def faces() -> FaceSet:
    return draw_faces(140, size=24)


def elsewhere(name: str = "other faces") -> FaceSet:
    return replace(draw_faces(70, size=24, seed=5), name=name)


def trained(recipe: Recipe, runs: Path, of: FaceSet, **parts: FaceSet | None) -> Run:
    given = {"train": of["train"], "validation": of["validation"], **parts}
    return fit(recipe, **given, runs=runs, device="cpu", progress="none")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(TINY.but(epochs=8, lr=1e-2), tmp_path_factory.mktemp("first"), faces())


@pytest.mark.parametrize("file", ["", "weights.safetensors"])
def test_a_training_begins_where_a_run_ended(first: Run, tmp_path: Path, file: str) -> None:
    run = trained(TINY.but(weights=str(first.path / file), **STILL), tmp_path, faces())
    fresh = trained(TINY.but(**STILL), tmp_path, faces())
    assert run.info["parameters_started_afresh"] == []
    # Batch norm's averages follow the epoch, so that answers are near and not equal.
    known, ours, others = (
        predict_probabilities(r, faces()["validation"]) for r in (first, run, fresh)
    )
    assert np.abs(ours - known).mean() < 0.5 * np.abs(others - known).mean()


def test_the_packaged_model_goes_on_as_it_is() -> None:
    recipe = mien.Recipe(weights="packaged", width=1.5)
    classes = load().classes
    model = build_model(recipe, len(classes), 1).eval()
    assert begin(model, recipe, classes) == []
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48), dtype=np.uint8)
    mean, std = 0.5077081468046578, 0.2552934515210429
    with torch.no_grad():
        pixels = torch.from_numpy((images[:, None] / 255 - mean) / std).float()
        logits, mirrored = model(pixels), model(pixels.flip(-1))
    temperature = float(load().metadata["temperature"])
    both = ((logits.softmax(1) + mirrored.softmax(1)) / 2) ** (1 / temperature)
    expected = load(detector="none").predict_proba(images)
    np.testing.assert_allclose((both / both.sum(1, keepdim=True)).numpy(), expected, atol=2e-3)
    # As a teacher it brings its own normalisation.
    teachers = load_teachers(recipe.but(teacher="packaged"), torch.device("cpu"))
    students = Normalisation((0.3,), (0.2,))
    pixels = torch.from_numpy(images[:, None]).float() / 255
    found = answers(teachers, students.apply(pixels), students, temperature)
    np.testing.assert_allclose(found, (logits / temperature).softmax(1), atol=2e-3)


def test_the_packaged_model_teaches_what_it_does_not_know(tmp_path: Path) -> None:
    own, recipe = elsewhere(), TINY.but(teacher="packaged", epochs=1)
    run = trained(recipe, tmp_path, own)
    assert run.info["data"]["train"]["alone"] is False
    assert run.name != run_name(recipe.but(teacher=[]), own["train"], own["validation"])
    known = replace(draw_faces(70, size=24, seed=9), name="FER-2013")
    with pytest.raises(RecipeError, match="teacher: the packaged model may have learned from"):
        trained(recipe, tmp_path, known)
    # Nor does what it knows come back by way of a run on other images.
    for role in ("teacher", "weights"):
        second_hand = TINY.but(**{role: str(run.path)}, epochs=1)
        with pytest.raises(RecipeError, match=f"{role}: .* may have learned from"):
            trained(second_hand, tmp_path, known)


def test_the_packaged_model_begins_a_training_on_other_classes(tmp_path: Path) -> None:
    own = replace(elsewhere(), classes=tuple("abcdefg"))
    recipe = mien.Recipe(weights="packaged", width=1.5, epochs=1, batch_size=16)
    run = trained(recipe, tmp_path, own)
    assert run.info["parameters_started_afresh"] == ["fc.weight", "fc.bias"]
    assert run.info["data"]["train"]["alone"] is False
    with pytest.raises(
        RunError, match=r"model, plain \(w1.5\), does not fit plain: .*Build the model"
    ):
        trained(recipe.but(width=0.5), tmp_path, own)


def test_a_name_stands_for_the_weights_and_not_for_where_they_lie(
    first: Run, tmp_path: Path
) -> None:
    def name(weights: Path | str) -> str:
        return run_name(TINY.but(weights=str(weights)), faces()["train"], None)

    moved = shutil.copytree(first.path, tmp_path / "moved")
    assert name(moved) == name(first.path) == name(moved / "weights.safetensors")
    assert name(shutil.copy(PACKAGED, tmp_path)) == name("packaged")
    run = trained(TINY.but(weights=str(first.path), epochs=1), tmp_path, faces())
    written = run.weights_path.stat().st_mtime_ns
    again = trained(TINY.but(weights=str(moved), epochs=1), tmp_path, faces())
    assert again.path == run.path
    assert again.weights_path.stat().st_mtime_ns == written  # was not trained again


def test_weights_that_may_know_the_validation_part_are_refused(first: Run, tmp_path: Path) -> None:
    train, validation = faces()["train"], faces()["validation"]
    half = np.arange(len(train)) % 2 == 0
    recipe = TINY.but(weights=str(first.path), epochs=1)
    with pytest.raises(RecipeError, match=r"weights: .* may have learned from images of the valid"):
        trained(recipe, tmp_path, faces(), train=train[half], validation=train[~half])
    assert not list(tmp_path.iterdir())
    # The same training part, the same validation part, or another data set: it may begin.
    check_beginning(recipe, train, validation[:10])
    check_beginning(recipe, train[half], validation)
    check_beginning(recipe, train[half], None)
    check_beginning(recipe, elsewhere()["train"], elsewhere()["validation"])
    same = elsewhere(faces().name)
    with pytest.raises(RecipeError, match="give one that was trained on the same"):
        check_beginning(recipe, same["train"], same["validation"])


def test_a_set_of_another_name_that_holds_the_same_images_is_recognised(
    first: Run, tmp_path: Path
) -> None:
    train, validation = faces()["train"], faces()["validation"]
    half = np.arange(len(train)) % 2 == 0
    lifted = replace(faces(), name="lifted")  # as `mien balance` names its sets
    run = trained(TINY.but(epochs=1), tmp_path, lifted)
    for weights in (run.path, shutil.copy(run.weights_path, tmp_path / "moved.safetensors")):
        recipe = TINY.but(weights=str(weights), epochs=1)
        with pytest.raises(RecipeError, match=r"weights: .* images of the validation part"):
            check_beginning(recipe, train[half], train[~half])
        check_beginning(recipe, train[half], validation)
        check_beginning(recipe, train[half], None)
        check_beginning(recipe, elsewhere()["train"], elsewhere()["validation"])
    with pytest.raises(RecipeError, match=r"teacher: .* may have learned"):
        Earlier.of_run(run.path, "teacher").check("teacher", train[half], train[~half])


def test_the_packaged_model_has_digests_of_what_it_was_trained_on() -> None:
    assert len(Earlier.packaged().data["train"]["sketch"].split()) > 900
    (model,) = open_all([Path("packaged")])
    assert model.trained_on["sketch"] == Earlier.packaged().data["train"]["sketch"]
    assert "sketch" not in sketched({"name": "FER-2013", "fingerprint": "of other faces"})


def test_faces_of_fer2013_under_another_name_are_known_to_the_packaged_model(
    fer2013: Path,
) -> None:
    packaged = Earlier.packaged()
    training = mien.read(fer2013)["Training"]
    assert packaged.data["train"]["fingerprint"] == training.fingerprint
    assert packaged.data["train"]["sketch"] == training.sketch
    anew = replace(training[np.arange(2000)], name="my faces", split=np.repeat(["a", "b"], 1000))
    with pytest.raises(RecipeError, match="may have learned from images of the validation part"):
        packaged.check("teacher", anew["a"], anew["b"])


def test_a_file_that_does_not_say_what_it_knows_is_taken(first: Run, tmp_path: Path) -> None:
    train = faces()["train"]
    recipe = TINY.but(weights=str(tmp_path / "silent.safetensors"), epochs=1)
    other = {"trained_on": '["ImageNet"]'}  # another program's word
    for said in (None, other):
        save_file(load_file(first.weights_path), tmp_path / "silent.safetensors", said)
        check_beginning(recipe, train[:30], train[30:])
    assert not trained(recipe, tmp_path, faces()).info["data"]["train"]["alone"]


def test_what_a_run_knows_is_handed_on(first: Run, tmp_path: Path) -> None:
    train, inner = faces()["train"], faces()["train"][:30]
    recipe = TINY.but(epochs=1)
    same = trained(recipe.but(weights=str(first.path)), tmp_path, faces(), validation=None)
    assert Earlier.of_run(same.path, "weights").alone
    check_beginning(recipe.but(weights=str(same.path)), train, faces()["validation"])
    part = trained(recipe.but(weights=str(first.path)), tmp_path, faces(), train=inner)
    assert not Earlier.of_run(part.path, "weights").alone
    with pytest.raises(RecipeError, match="may have learned"):
        check_beginning(recipe.but(weights=str(part.path)), inner, train[30:])


def test_a_run_that_notes_nothing_of_it_knows_more_if_it_began_somewhere(
    first: Run, tmp_path: Path
) -> None:
    run = trained(TINY.but(weights=str(first.path), epochs=1), tmp_path, faces())
    info = json.loads((run.path / "run.json").read_text())
    del info["data"]["train"]["alone"]
    (run.path / "run.json").write_text(json.dumps(info))
    assert not Earlier.of_run(run.path, "weights").alone
    assert Earlier.of_run(first.path, "weights").alone


def test_a_damaged_or_unfinished_run_is_named(first: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"weights: nowhere cannot be read .*'packaged'"):
        trained(TINY.but(weights="nowhere"), tmp_path / "runs", faces())
    record = first.write_record(tmp_path / "records")
    with pytest.raises(RunError, match="a record keeps no weights"):
        trained(TINY.but(weights=str(record)), tmp_path / "runs", faces())
    info = json.loads((record / "run.json").read_text())
    (record / "run.json").write_text(json.dumps(info | {"state": "training"}))
    with pytest.raises(RecipeError, match=r"weights: .* is not finished"):
        trained(TINY.but(weights=str(record)), tmp_path / "runs", faces())
    assert not (tmp_path / "runs").exists()


def test_a_file_that_began_from_what_may_know_more_is_refused(first: Run, tmp_path: Path) -> None:
    both = faces()[faces().split != "test"]
    everything = trained(TINY, tmp_path, faces(), train=both, validation=None)
    after = trained(TINY.but(weights=str(everything.path)), tmp_path, faces(), validation=None)
    lone = tmp_path / "lone.safetensors"
    for run, taken in ((first, True), (after, False)):
        shutil.copy(run.weights_path, lone)
        recipe = TINY.but(weights=str(lone))
        if taken:
            check_beginning(recipe, faces()["train"], faces()["validation"])
        else:
            with pytest.raises(RecipeError, match="or may have been"):
                check_beginning(recipe, faces()["train"], faces()["validation"])
