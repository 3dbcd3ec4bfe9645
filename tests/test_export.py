"""Exported models: they give what the run gives, and say where they come from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from mien.cli import app
from mien.data import FaceSet, draw_faces
from mien.errors import DataError, RunError
from mien.export import (
    calibrate,
    compare_precisions,
    convert_onnx,
    export_onnx,
    export_program,
    parity,
)
from mien.export.attention import attention_of, map_of
from mien.export.calibration import threshold_for
from mien.export.graph import Graph, Member
from mien.export.onnx import onnx_files, quantised
from mien.export.parity import Parity
from mien.export.source import source_of
from mien.export.temperature import fit_temperature, soften
from mien.images import Normalisation, normalise
from mien.inference import Classifier
from mien.models import create_model
from mien.models.attention import CBAM
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit, load_model, predict_probabilities
from mien.training.batches import prepared

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


Told = tuple[Path, dict[str, Any]]
"""A file and what its export said of it."""


@pytest.fixture(scope="module")
def told(run: Run, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Told:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    return path, export_onnx(run, path, faces=faces)


@pytest.fixture(scope="module")
def exported(told: Told) -> Path:
    return told[0]


@pytest.fixture(scope="module")
def answering(run: Run, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A file with an attention map and a threshold."""
    path = tmp_path_factory.mktemp("models") / "answering.onnx"
    return path, export_onnx(run, path, faces=faces, attention=True, coverage=0.5)


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


def test_weights_in_8_bits_take_a_quarter_of_the_space_and_are_computed_with_in_32(
    run: Run, exported: Path, faces: FaceSet, tmp_path: Path
) -> None:
    out = tmp_path / "quarter.onnx"
    found = export_onnx(run, out, precision="int8-weights", faces=faces)
    whole = {t.name: t for t in onnx.load(exported).graph.initializer}
    small = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    kernels = [t for t in whole.values() if len(t.dims) > 1 and np.prod(t.dims) >= 256]
    assert kernels
    for tensor in kernels:
        stored, scale = (small[f"{tensor.name}.{kind}"] for kind in ("int8", "scale"))
        assert stored.dtype == np.int8
        wrong = np.abs(stored * scale - onnx.numpy_helper.to_array(tensor))
        assert (wrong <= 0.501 * scale).all(), "each channel to half a step of its own scale"
        assert scale.size == len(stored)
    assert found["bytes"] < 0.6 * exported.stat().st_size  # of so small a file the rest is much
    assert found["same_labels"] >= 0.99


def test_int8_computes_in_8_bits(
    run: Run, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SAME_LABELS", 0.5)  # a net of three epochs is sure of little
    monkeypatch.setattr(parity, "ACCURACY_LOST", 0.5)
    found = export_onnx(run, tmp_path / "small.onnx", precision="int8", faces=faces)
    graph = onnx.load(tmp_path / "small.onnx").graph
    kernels = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims]
    largest = [int(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max()) for t in kernels]
    # 255 * 64 + 255 * 64 < 2**15: what a processor without VNNI adds in 16 bits does not overflow.
    assert largest
    assert max(largest) == 64
    assert found["largest_difference"] < 0.2


def test_any_number_of_training_images_gives_the_ranges_of_int8(
    exported: Path, faces: FaceSet, tmp_path: Path
) -> None:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(exported.read_bytes())
    onnx.checker.check_model(str(quantised(copy, faces["train"][:65])))


@pytest.mark.parametrize("precision", ["fp16", "int8-weights", "int8"])
def test_a_file_is_converted_to_what_the_run_would_have_been_exported_as(
    run: Run, told: Told, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(parity, "SAME_LABELS", 0.5)
    monkeypatch.setattr(parity, "ACCURACY_LOST", 0.5)
    out, wanted = tmp_path / "converted.onnx", tmp_path / "exported.onnx"
    found = convert_onnx(told[0], out, precision=precision, faces=faces)
    expected = export_onnx(run, wanted, precision=precision, faces=faces)
    assert out.read_bytes() == wanted.read_bytes()
    assert found["bytes"] == expected["bytes"]
    assert found["accuracy"] == expected["accuracy"]
    assert found["accuracy_of_run"] == told[1]["accuracy"]


def test_of_a_file_in_half_precision_every_weight_is_kept(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    half, whole, again = (tmp_path / f"{name}.onnx" for name in ("half", "whole", "again"))
    export_onnx(run, half, precision="fp16", faces=faces)
    found = convert_onnx(half, whole, precision="fp32")
    assert found["images"] == 210, "drawn faces"
    assert found["accuracy"] is None
    assert found["largest_difference"] <= 1e-6
    assert Classifier(whole).metadata["precision"] == "fp32"
    convert_onnx(whole, again, precision="fp16")
    assert again.read_bytes() == half.read_bytes()


def test_a_conversion_that_cannot_be_is_refused(
    run: Run, exported: Path, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, eighth = tmp_path / "out.onnx", tmp_path / "eighth.onnx"
    convert_onnx(exported, eighth, precision="int8-weights")
    reversed_classes = replace(faces, classes=tuple(reversed(faces.classes)))
    for file, error, text, wishes in (
        (eighth, RunError, "have lost", {"precision": "fp16"}),
        (exported, DataError, "did you mean 'int8'", {"precision": "int4"}),
        (exported, DataError, "give a data set", {"precision": "int8"}),
        (exported, DataError, "of the same", {"precision": "fp16", "faces": reversed_classes}),
        (
            exported,
            DataError,
            "pixels a side 16, and .* has 24",
            {"precision": "int8", "faces": draw_faces(70, size=16)},
        ),
    ):
        with pytest.raises(error, match=text):
            convert_onnx(file, out, **wishes)
    before = exported.read_bytes()
    with pytest.raises(DataError, match="write it to another"):
        convert_onnx(exported, exported, precision="fp16")
    assert exported.read_bytes() == before
    monkeypatch.setattr(parity, "SAME_LABELS", 1.01)
    with pytest.raises(RunError, match=r"model\.onnx: as fp16.*too far"):
        convert_onnx(exported, out, precision="fp16")
    assert not out.exists()


def test_in_8_bits_two_networks_and_views_keep_no_weight_twice(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    twin = Run.open(shutil.copytree(run.path, tmp_path / run.name))
    twin.info["data"]["train"]["alone"] = False
    content = onnx_files(source_of([run, twin], faces, views=2), ["int8"])["int8"]
    data = json.loads(Classifier(content).metadata["data"])
    assert data["train"].pop("alone") is False, "what one of them may know"
    assert data["train"].items() <= run.info["data"]["train"].items()
    graph = onnx.load_from_string(content).graph
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    large = [(tensor.shape, tensor.tobytes()) for tensor in tensors if tensor.size >= 256]
    assert large
    assert len(set(large)) == len(large)
    # The first layer, whose 3x3 kernels see one channel, and the last stay as they are in any view.
    in_8_bits = [tuple(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert any(shape[1:] == (8, 3, 3) for shape in in_8_bits)
    assert not any(shape[1:] == (1, 3, 3) or shape[:1] == (7,) for shape in in_8_bits)


def test_a_file_that_gives_something_else_is_refused_and_not_written(
    run: Run, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", 1e-12)
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
    reversed_classes = replace(faces, classes=tuple(reversed(faces.classes)))
    same_names = replace(faces, images=255 - faces.images)
    for other in (reversed_classes, draw_faces(210, size=24), same_names):
        with pytest.raises(DataError, match="is not the data set that"):
            export_onnx(run, out, precision="fp16", faces=other)
    enhancing = Run(run.path, run.recipe.but(enhance=("clahe",)), run.info, run.log)
    with pytest.raises(RunError, match="clahe"):
        export_onnx(enhancing, out)


def test_a_low_precision_is_refused_for_its_labels_or_for_the_accuracy_it_loses() -> None:
    good = Parity(1000, 0.05, 0.995, 0.658, 0.66)
    assert good.reason("int8") is None
    assert "probabilities differ by up to 0.05" in str(good.reason("fp32"))
    assert "98.90 %" in str(Parity(1000, 0.05, 0.989, 0.66, 0.66).reason("int8"))
    assert "+0.40 points" in str(Parity(1000, 0.05, 0.995, 0.656, 0.66).reason("fp16"))
    assert Parity(210, 0.05, 0.995, None, None).reason("fp16") is None  # drawn faces have no say


def test_accuracy_is_that_on_the_validation_images_of_the_data_set(
    run: Run, told: Told, faces: FaceSet
) -> None:
    part = faces["validation"]
    right = (predict_probabilities(run, part).argmax(1) == part.labels).mean()
    assert told[1]["accuracy_of_run"] == pytest.approx(right)
    assert told[1]["accuracy"] == pytest.approx(right)
    source = source_of(run, None)
    drawn = parity.parity(source, lambda images: predict_probabilities(run, source.checked))
    assert drawn.accuracy is None


# --- ensembles ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of another network at another size, on the same images."""
    recipe = RECIPE.but(attention="none", image_size=24, normalise="unit", epochs=1, seed=1)
    runs = tmp_path_factory.mktemp("others")
    return fit(recipe, faces["train"], faces["validation"], runs=runs, progress="none")


@pytest.mark.parametrize("views", [1, 2])
def test_the_file_of_several_runs_gives_the_mean_of_their_probabilities(
    run: Run, other: Run, faces: FaceSet, tmp_path: Path, views: int
) -> None:
    found = export_onnx(
        [run, other], tmp_path / "both.onnx", faces=faces, views=views, attention=True
    )
    model, part = Classifier(tmp_path / "both.onnx"), faces["validation"]
    each = [predict_probabilities(one, part, views=views) for one in (run, other)]
    expected = soften((each[0] + each[1]) / 2, found["temperature"])
    np.testing.assert_allclose(model.predict_proba(part.images), expected, atol=1e-4)
    assert np.abs(each[0] - each[1]).max() > 0.01
    right = (expected.argmax(1) == part.labels).mean()
    assert found["accuracy_of_run"] == pytest.approx(right)
    assert model.metadata["run"] == f"{run.name} + {other.name}"
    assert model.metadata["recipe 2"] == other.recipe.to_toml()
    places = model.attention(part.images[:3])
    assert places is not None
    assert places.shape == (3, 32, 32)  # the map is the first run's


def test_an_ensemble_has_one_set_of_classes_and_of_images(
    run: Run, other: Run, faces: FaceSet, tmp_path: Path
) -> None:
    out = tmp_path / "refused.onnx"
    elsewhere = fit(other.recipe, faces["train"][:70], faces["validation"], runs=tmp_path)
    with pytest.raises(RunError, match="other images than"):
        export_onnx([run, elsewhere], out, faces=faces)
    with pytest.raises(DataError, match="give the data set"):
        export_onnx([run, other], out)
    with pytest.raises(RunError, match="no runs"):
        export_onnx([], out, faces=faces)
    renamed = Run.open(other.path)
    renamed.info = other.info | {"classes": list(reversed(other.classes))}
    with pytest.raises(RunError, match="the classes"):
        predict_probabilities([run, renamed], faces["validation"])
    assert not out.exists()


# --- torch.export -------------------------------------------------------------------------------


def test_a_program_gives_what_the_onnx_file_gives_and_says_the_same(
    run: Run, exported: Path, faces: FaceSet, tmp_path: Path
) -> None:
    found = export_program(run, tmp_path / "model.pt2", faces=faces, attention=True)
    assert found["largest_difference"] < 1e-4
    extra = {"mien.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    expected = Classifier(exported)
    for count in (1, 3, 50):
        images = faces.images[:count]
        probabilities, _, places = program(torch.from_numpy(images))
        assert not probabilities.requires_grad
        np.testing.assert_allclose(probabilities.numpy(), expected.predict_proba(images), atol=2e-4)
        assert places.shape == (count, 32, 32)
    told = json.loads(extra["mien.json"])
    assert told.pop("attention") == "mean of CBAM's spatial gates, least 0, most 1"
    assert told == expected.metadata


def test_a_program_holds_no_path_of_the_machine_it_was_made_on(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    import zipfile

    export_program(run, tmp_path / "model.pt2", faces=faces)
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for place in (Path(torch.__file__).parent, Path(parity.__file__).parent, Path.home()):
        assert str(place).encode() not in content


# --- the attention map --------------------------------------------------------------------------


def test_the_map_of_a_cbam_model_is_the_mean_of_its_gates_and_the_file_says_so(
    run: Run, exported: Path, answering: Told, faces: FaceSet
) -> None:
    network = load_model(run)
    gates = []
    for module in network.modules():
        if isinstance(module, CBAM):
            module.register_forward_pre_hook(lambda m, given: gates.append(m.maps(given[0])[1]))
    images = torch.from_numpy(faces.images[:4])[:, None]
    normalisation = Normalisation.from_dict(run.info["normalisation"])
    with torch.no_grad():
        network(prepared(images, normalisation, 32))
        sized = [F.interpolate(gate, (32, 32), mode="bilinear") for gate in gates]
        mean = torch.stack(sized).mean(0)
    low, high = (end((1, 2, 3), keepdim=True) for end in (mean.amin, mean.amax))
    expected = ((mean - low) / (high - low))[:, 0]

    model = Classifier(answering[0])
    assert model.metadata["attention"].startswith("mean of CBAM's spatial gates")
    found = model.attention(faces.images[:4])
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert Classifier(exported).attention(faces.images[:4]) is None
    assert "attention" not in Classifier(exported).metadata


@pytest.mark.parametrize("name", ["plain", "compact", "resnet50", "inceptionv3"])
def test_the_map_of_a_model_without_cbam_is_that_of_its_predicted_class(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, width=0.125, image_size=32, stride=8).eval()
    look, kind = attention_of(network, 32, 1)
    assert kind.startswith("class activation map")
    pixels = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        logits, found = look(pixels)
        found = map_of(found, logits)
        torch.testing.assert_close(logits, network(pixels))
        maps = network.forward_features(pixels)  # type: ignore[operator]
        weight: Any = network.fc.weight  # type: ignore[union-attr]
    for one, row, image in zip(found, logits, maps, strict=True):
        cam = torch.einsum("chw,c->hw", image, weight[row.argmax()]).relu()
        torch.testing.assert_close(one, cam / cam.max().clamp(min=1e-12), atol=1e-5, rtol=1e-4)


def test_the_map_of_several_views_is_that_of_the_class_they_agree_on() -> None:
    torch.manual_seed(0)
    network = create_model("plain", width=0.125, image_size=32, stride=8).eval()
    scale = Normalisation((0.5,), (0.25,))
    graph = Graph([Member(network, attention_of(network, 32, 1)[0], scale, 32, views=2)], 1.0)
    images = torch.randint(256, (64, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        pixels = prepared(images[:, None], scale, 32)
        network.fc.bias -= network(pixels).mean(0)  # type: ignore[union-attr,operator]
        _, logits, found = graph(images)
        last = network.forward_features(pixels)  # type: ignore[operator]
        answers = logits.argmax(1)
        assert (network(pixels).argmax(1) != answers).any()
        weight: Any = network.fc.weight  # type: ignore[union-attr]
        cam = torch.einsum("nkhw,nk->nhw", last, weight[answers]).relu()
    torch.testing.assert_close(found, cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-12))


def test_networks_without_a_map_are_refused_one() -> None:
    with pytest.raises(RunError, match="no CBAM, and its logits"):
        attention_of(create_model("vgg19", width=0.125, stride=16), 48, 1)
    with pytest.raises(RunError, match="a single place"):
        attention_of(create_model("plain", width=0.125, image_size=16).eval(), 16, 1)


# --- calibration --------------------------------------------------------------------------------


def sure_and_right(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes, and labels drawn from them: right as often as they say."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.5, 1, n)
    return np.stack([p, 1 - p], 1), (rng.random(n) > p).astype(int)


def test_a_threshold_for_an_accuracy_worked_by_hand() -> None:
    sure = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    labels = np.array([0, 0, 1, 0, 1])  # right, right, wrong, right, wrong
    probabilities = np.stack([sure, 1 - sure], 1)
    assert threshold_for(probabilities, labels, accuracy=0.99) == 0.9
    assert threshold_for(probabilities, labels, accuracy=0.75) == 0.7
    assert threshold_for(probabilities, labels, accuracy=0.5) == 0.6
    assert threshold_for(probabilities, labels, coverage=0.5) == 0.8
    falling = np.stack([np.linspace(1, 0.505, 100), np.linspace(0, 0.495, 100)], 1)
    least = threshold_for(falling, np.zeros(100, int), coverage=0.07)
    assert int((falling.max(1) >= least).sum()) == 7, "0.07 * 100 is a little more in floats"
    assert threshold_for(probabilities[2:3], labels[2:3], accuracy=0.99) == np.inf


def test_images_of_equal_probability_are_answered_together() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2]])
    assert threshold_for(probabilities, np.array([0, 0, 1]), accuracy=0.99) == 0.9


def test_a_threshold_buys_the_accuracy_and_the_coverage_that_the_probabilities_promise() -> None:
    """Uniform from 0.5 to 1 and right as often: above t the accuracy is (1 + t) / 2."""
    p, labels = sure_and_right(20_000)
    found = calibrate(p, labels, np.arange(len(p)), accuracy=0.9)
    assert found.threshold is not None
    assert found.threshold.value == pytest.approx(0.8, abs=0.02)
    assert found.threshold.coverage == pytest.approx(0.4, abs=0.04)
    assert found.threshold.accuracy == pytest.approx(0.9, abs=0.01)
    assert found.threshold.interval[0] < found.threshold.accuracy < found.threshold.interval[1]
    half = calibrate(p, labels, np.arange(len(p)), coverage=0.5)
    assert half.threshold is not None
    assert half.threshold.value == pytest.approx(0.75, abs=0.02)
    assert half.threshold.coverage == pytest.approx(0.5, abs=0.01)


def test_cross_fitting_repairs_what_is_too_sure() -> None:
    p, labels = sure_and_right()
    found = calibrate(soften(p, 0.4), labels, np.arange(len(p)))
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.error_before > 0.08
    assert found.error_after < 0.03
    assert (found.images, found.folds, found.threshold) == (4000, 5, None)


def test_what_is_fitted_is_measured_on_other_folds() -> None:
    """Labels without any relation to the probabilities: no threshold can keep what it promises."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(2, 5.0), 300)
    labels = rng.integers(0, 2, 300)
    found = calibrate(p, labels, np.arange(300), accuracy=0.6)
    assert found.threshold is not None
    own = soften(p, found.temperature)
    answered = own.max(1) >= found.threshold.value
    assert (own.argmax(1) == labels)[answered].mean() >= 0.6  # on the images it was fitted on
    assert found.threshold.accuracy < 0.6


def test_copies_are_never_on_both_sides() -> None:
    """Each image twice: with its copy among the others, a fold would be as sure as can be."""
    p, labels = sure_and_right(200)
    alone = calibrate(p, labels, np.arange(200), coverage=0.5)
    twice = calibrate(
        np.repeat(p, 2, 0), np.repeat(labels, 2), np.repeat(np.arange(200), 2), coverage=0.5
    )
    assert alone.threshold is not None
    assert twice.threshold is not None
    assert twice.threshold.accuracy == pytest.approx(alone.threshold.accuracy)
    assert twice.error_after == pytest.approx(alone.error_after, abs=1e-6)


def test_wishes_that_cannot_be_met_are_refused() -> None:
    p, labels = sure_and_right(50)
    groups = np.arange(50)
    with pytest.raises(DataError, match="ask for one of them"):
        calibrate(p, labels, groups, accuracy=0.9, coverage=0.5)
    with pytest.raises(DataError, match="accuracy 90 is no share"):
        calibrate(p, labels, groups, accuracy=90)
    with pytest.raises(DataError, match="too few to calibrate"):
        calibrate(p, labels, np.zeros(50))
    with pytest.raises(DataError, match="accuracy: no threshold gives 90 % on 50 images"):
        calibrate(p, p.argmin(1), groups, accuracy=0.9)


def test_the_threshold_and_what_it_buys_stand_in_the_file(exported: Path, answering: Told) -> None:
    metadata = Classifier(answering[0]).metadata
    told = json.loads(metadata["calibration"])
    assert told == json.loads(json.dumps(answering[1]["calibration"]))
    assert float(metadata["threshold"]) == told["threshold"]["value"]
    assert told["images"] == 21
    assert "threshold" not in Classifier(exported).metadata


# --- the precisions beside each other -----------------------------------------------------------


def test_precisions_are_compared_without_a_file_and_say_what_is_refused(
    run: Run, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SAME_LABELS", 1.01)
    found = {row.precision: row for row in compare_precisions(run, faces, threads=1)}
    assert list(found) == ["fp32", "fp16", "int8-weights", "int8"]
    assert found["int8-weights"].bytes < found["fp16"].bytes < found["fp32"].bytes
    assert found["fp32"].refused is None
    assert "of its labels are the same" in str(found["int8"].refused)
    assert all(row.one > 0 and row.batch > 0 for row in found.values())


def test_a_comparison_is_of_the_file_that_is_asked_for(run: Run, faces: FaceSet) -> None:
    one = compare_precisions(run, faces, threads=1)[0]
    two = compare_precisions(run, faces, threads=1, views=2, attention=True)[0]
    assert two.bytes > one.bytes
    asked = ["export", str(run.path), "--compare", "--data", "drawn:140", "--views", "3"]
    assert "views = 3" in str(CliRunner().invoke(app, asked).exception)


def test_a_network_for_colours_is_exported_in_a_process_that_did_not_train_it(
    tmp_path: Path,
) -> None:
    grey = draw_faces(105, size=24)
    colours = replace(grey, images=np.stack([grey.images, grey.images // 2, grey.images], -1))
    recipe = RECIPE.but(attention="none", epochs=1)
    run = fit(recipe, colours["train"], colours["validation"], runs=tmp_path, progress="none")
    normalise._there.cache_clear()  # as in a fresh process
    for export, name in ((export_onnx, "model.onnx"), (export_program, "model.pt2")):
        export(run, tmp_path / name)
    expected = predict_probabilities(run, colours)
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert program(torch.from_numpy(colours.images[:3]))[0].shape == (3, 7)
    found = Classifier(tmp_path / "model.onnx").predict_proba(colours.images)
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_the_command_writes_by_the_files_ending(run: Run, tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    told = invoke(app, ["export", str(run.path), "--out", str(tmp_path / "model.pt2")])
    assert told.exit_code == 0, told.output
    assert "calibration error" in told.output
    torch.export.load(tmp_path / "model.pt2")
    half = ["export", str(run.path), "--out", str(tmp_path / "m.pt2"), "--precision", "fp16"]
    assert "in fp32, not fp16" in str(invoke(app, half).exception)
    assert "give --data" in str(invoke(app, ["export", str(run.path), "--compare"]).exception)
    assert "did you mean 'onnx'" in str(
        invoke(app, ["export", str(run.path), "--format", "onx"]).exception
    )


def test_a_temperature_that_helps_nowhere_but_where_it_was_fitted_is_left_out() -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(20):  # twelve images, on which a calibrated model is as it should be
        p = soften(rng.dirichlet(np.ones(7), 12), 1.0)
        labels = (p.cumsum(1) > rng.random((12, 1))).argmax(1)
        found = calibrate(p, labels, np.arange(12))
        if found.temperature == 1:
            assert found.error_before == pytest.approx(found.error_after)
        kept.append(found.temperature == 1)
    assert sum(kept) >= 10
    p = soften(rng.dirichlet(np.ones(7), 500), 1.0)
    labels = (p.cumsum(1) > rng.random((500, 1))).argmax(1)
    assert calibrate(soften(p, 0.4), labels, np.arange(500)).temperature > 2, "where it helps"


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


def test_a_file_of_ten_views_gives_their_mean_and_a_temperature_of_its_own(
    run: Run, faces: FaceSet, exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ten.onnx"
    export_onnx(run, path, faces=faces, views=10, attention=True)
    model, one = Classifier(path), Classifier(exported)
    assert model.metadata["views"] == "10"
    assert model.name == f"{run.name} fp32 10 views"
    assert model.metadata["calibration"] != one.metadata["calibration"]
    expected = predict_probabilities(run, faces, views=10) ** (
        1 / float(model.metadata["temperature"])
    )
    expected /= expected.sum(1, keepdims=True)
    for count in (1, 3, len(faces)):
        found = model.predict_proba(faces.images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=2e-4)
    assert model.attention(faces.images[:3]) is not None
    export_program(run, tmp_path / "ten.pt2", faces=faces, views=2)
    for views, given, match in ((10, None, "give the data set"), (3, faces, "give 1, 2, 10")):
        with pytest.raises(DataError, match=match):
            export_onnx(run, path, faces=given, views=views)
