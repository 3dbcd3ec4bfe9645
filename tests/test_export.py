"""Exported models: they give what the run gives, and say where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from mien.data import FaceSet, draw_faces
from mien.errors import DataError, RunError
from mien.export import export_onnx
from mien.export import onnx as exporting
from mien.export.temperature import fit_temperature
from mien.inference import Classifier
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit, predict_probabilities

pytestmark = pytest.mark.usefixtures("one_thread")

# The network takes other sides than the images have, so that the file must resize them.
RECIPE = Recipe(
    model="plain", attention="cbam", width=0.125, image_size=32, stride=8, epochs=3, batch_size=32,
    lr=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return draw_faces(140, size=24)


@pytest.fixture(scope="module")
def run(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("runs")
    return fit(RECIPE, faces["train"], faces["validation"], runs=runs, progress="none")


@pytest.fixture(scope="module")
def exported(run: Run, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    export_onnx(run, path, faces=faces)
    return path


def test_the_file_gives_the_probabilities_of_the_run_softened_by_its_temperature(
    run: Run, exported: Path, faces: FaceSet
) -> None:
    model = Classifier(exported)
    temperature = float(model.metadata["temperature"])
    expected = predict_probabilities(run, faces) ** (1 / temperature)
    expected /= expected.sum(1, keepdims=True)
    for count in (1, 3, len(faces)):  # any number at a time
        found = model.predict_proba(faces.images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=2e-4)


def test_the_file_says_where_it_comes_from(run: Run, exported: Path) -> None:
    model = Classifier(exported)
    assert model.classes == run.classes
    assert (model.size, model.channels) == (24, 1)
    assert model.metadata["run"] == run.name
    assert json.loads(model.metadata["data"]) == run.info["data"]
    assert Recipe.from_dict(exported_recipe(model)) == RECIPE
    assert "21 images of validation" in model.metadata["temperature_from"]
    assert str(Path.home()) not in exported.read_bytes().decode("latin-1")


def exported_recipe(model: Classifier) -> dict[str, object]:
    import tomllib

    return tomllib.loads(model.metadata["recipe"])


def test_half_precision_takes_half_the_space(
    run: Run, exported: Path, faces: FaceSet, tmp_path: Path
) -> None:
    found = export_onnx(run, tmp_path / "half.onnx", precision="fp16", faces=faces)
    whole = {t.name: t for t in onnx.load(exported).graph.initializer}
    half = {t.name: t for t in onnx.load(tmp_path / "half.onnx").graph.initializer}
    large = [t for t in whole.values() if np.prod(t.dims) >= 256 and t.data_type == 1]
    assert large
    for tensor in large:
        assert half[tensor.name + ".half"].data_type == onnx.TensorProto.FLOAT16
    assert found["same_labels"] >= 0.99
    assert found["largest_difference"] < 0.01


def test_int8_computes_in_8_bits(
    run: Run, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "SAME_LABELS", 0.5)  # a net of three epochs is sure of little
    found = export_onnx(run, tmp_path / "small.onnx", precision="int8", faces=faces)
    kinds = {t.data_type for t in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert found["largest_difference"] < 0.2


def test_a_file_that_gives_something_else_is_refused_and_not_written(
    run: Run, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", 1e-12)
    with pytest.raises(RunError, match="too far; nothing was written"):
        export_onnx(run, tmp_path / "model.onnx", faces=faces)
    assert not (tmp_path / "model.onnx").exists()


def test_what_cannot_be_exported_is_refused_before_any_work(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    with pytest.raises(DataError, match="did you mean 'int8'"):
        export_onnx(run, out, precision="int4")
    with pytest.raises(DataError, match="give the data set"):
        export_onnx(run, out, precision="int8")
    with pytest.raises(DataError, match="32 pixels"):
        export_onnx(run, out, faces=draw_faces(140, size=32))
    enhancing = Run(run.path, run.recipe.but(enhance=("clahe",)), run.info, run.log)
    with pytest.raises(RunError, match="clahe"):
        export_onnx(enhancing, out)


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_that_labels_were_drawn_with(truth: float) -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((20_000, 5))
    soft = np.exp(logits / truth)
    soft /= soft.sum(1, keepdims=True)
    labels = (soft.cumsum(1) > rng.random((len(soft), 1))).argmax(1)
    sure = np.exp(logits)
    sure /= sure.sum(1, keepdims=True)
    assert fit_temperature(sure, labels) == pytest.approx(truth, rel=0.05)
