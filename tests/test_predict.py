from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mien.data import FaceSet, draw_faces
from mien.errors import DataError, RunError
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit, load_model, predict_probabilities, predict_splits
from mien.training.predict import probabilities

RECIPE = Recipe(
    model="plain", width=0.125, image_size=32, stride=8, epochs=3, batch_size=32, lr=1e-2,
    enhance=("clahe",),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return draw_faces(140, size=24)


@pytest.fixture(scope="module")
def trained(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("runs")
    return fit(RECIPE, faces["train"], faces["validation"], runs=runs, progress="none")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy of the trained run that a test may damage."""
    (tmp_path / "run").mkdir()
    for file in trained.path.glob("[!.]*"):
        (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    return Run.open(tmp_path / "run")


def test_probabilities_are_the_softmax_of_the_model_by_hand(run: Run, faces: FaceSet) -> None:
    test = faces["test"]
    model = load_model(run)
    assert not model.training
    # CLAHE, enlarging and normalising, each without the package.
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4))
    train = np.stack([clahe.apply(image) for image in faces["train"].images]) / 255
    pixels = torch.from_numpy(np.stack([clahe.apply(image) for image in test.images])).float() / 255
    pixels = torch.nn.functional.interpolate(pixels[:, None], (32, 32), mode="bilinear")
    with torch.no_grad():
        logits = model((pixels - train.mean()) / train.std()).numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = predict_probabilities(run, test)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, shares, atol=1e-4)


def test_a_model_loaded_again_gives_what_training_kept(run: Run, faces: FaceSet) -> None:
    again = predict_probabilities(run, faces["validation"])
    kept = run.predictions("validation").probabilities
    np.testing.assert_allclose(again, kept, atol=1e-6)
    assert len(np.unique(again.argmax(1))) > 1


def test_splits_are_predicted_once(run: Run, faces: FaceSet) -> None:
    unlabelled = replace(faces, labels=np.where(faces.split == "test", -1, faces.labels))
    predict_splits(run, unlabelled, ["test", "validation"])
    found = Run.open(run.path).predictions("test")
    assert found.names.tolist() == faces["test"].names.tolist()
    assert (found.labels == -1).all()
    np.testing.assert_allclose(found.probabilities, predict_probabilities(run, faces["test"]))
    run.weights_path.unlink()
    predict_splits(run, unlabelled, ["test", "validation"])  # nothing to do, so no model either
    with pytest.raises(RunError, match="has no weights"):
        predict_splits(run, unlabelled, ["train"])


def test_predicting_leaves_the_mode_of_the_model_and_does_not_depend_on_batches(
    run: Run, faces: FaceSet
) -> None:
    model = load_model(run)
    images = torch.from_numpy(faces["test"].images)[:, None]
    norm = Normalisation.from_dict(run.info["normalisation"])
    whole = probabilities(model, images, norm, 32)
    model.train()
    parts = probabilities(model, images, norm, 32, batch_size=4)
    assert model.training
    torch.testing.assert_close(parts, whole)
    half = probabilities(model, images, norm, 32, precision="bf16")
    assert half.dtype == torch.float32
    assert 0 < float((half - whole).abs().max()) < 0.1


def test_faces_with_other_channels_are_refused(run: Run, faces: FaceSet) -> None:
    colour = replace(faces, images=np.repeat(faces.images[..., None], 3, 3))
    with pytest.raises(DataError, match=r"has 3 channels and the run .* was trained on 1; read"):
        predict_probabilities(run, colour)


def test_a_run_without_weights_says_why(run: Run, tmp_path: Path) -> None:
    record = Run.open(run.write_record(tmp_path / "records"))
    with pytest.raises(RunError, match="a record keeps no weights"):
        load_model(record)
    run.weights_path.unlink()
    run.info["state"] = "training"
    with pytest.raises(RunError, match="it is not finished"):
        load_model(run)


def test_damaged_weights_are_refused_by_name(run: Run, faces: FaceSet, tmp_path: Path) -> None:
    whole = run.weights_path.read_bytes()
    other = fit(
        RECIPE.but(width=0.25, epochs=1), faces["train"], runs=tmp_path / "o", progress="none"
    )
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    others = other.weights_path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", bytes(100), others, flipped):
        run.weights_path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"weights\.safetensors: is damaged or of another"):
            load_model(run)


def test_a_device_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(RunError, match="device 'gpu' cannot be used here"):
        load_model(run, "gpu")


def test_other_faces_of_the_same_names_and_labels_are_predicted_anew(tmp_path: Path) -> None:
    recipe = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=16)
    faces, others = draw_faces(70, size=24), draw_faces(70, size=24, seed=1)
    run = fit(recipe, faces["train"], faces["validation"], runs=tmp_path, progress="none")
    predict_splits(run, others, ["validation"])
    expected = predict_probabilities(run, others["validation"])
    np.testing.assert_array_equal(run.predictions("validation").probabilities, expected)


def test_predictions_of_several_splits_are_kept_under_a_name_that_is_known(tmp_path: Path) -> None:
    recipe = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=16)
    faces = draw_faces(140, size=24)
    both = faces[np.isin(faces.split, ["validation", "test"])]
    both = replace(both, split=np.where(np.arange(len(both)) < 9, "z", "a"))
    run = fit(recipe, faces["train"], both, runs=tmp_path, progress="none")
    assert run.validation_split == "z"
    assert len(run.predictions(run.validation_split).labels) == len(both)
