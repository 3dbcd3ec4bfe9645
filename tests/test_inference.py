"""The base install's model: pictures in, faces with probabilities out."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import mien
from mien.errors import DataError, RunError
from mien.inference import Classifier, files
from mien.inference.classifier import PACKAGED


def brightness(channels: int = 1) -> bytes:
    """A model that says 'bright' with the mean of an image of 4 x 4 pixels as its probability."""
    shape = ["N", 4, 4] + ([3] if channels == 3 else [])
    axes = list(range(1, len(shape)))
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Unsqueeze", ["dark", "last"], ["left"]),
        helper.make_node("Unsqueeze", ["bright", "last"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {"classes": '["dark", "bright"]', "size": "4", "channels": str(channels)}
    helper.set_model_props(model, facts)
    return model.SerializeToString()


@pytest.fixture
def model() -> Classifier:
    return Classifier(brightness())


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_is_a_face_with_the_probability_of_each_class(model: Classifier) -> None:
    (face,) = model.predict(np.full((8, 8), 204, np.uint8))
    assert (face.box, face.label) == ((0, 0, 8, 8), "bright")
    assert face.probabilities == pytest.approx({"dark": 0.2, "bright": 0.8})


def test_arrays_pil_images_paths_and_bytes_give_the_same(model: Classifier, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    (tmp_path / "face.png").write_bytes(png(pixels))
    kinds = [
        pixels,
        Image.fromarray(pixels),
        tmp_path / "face.png",
        str(tmp_path / "face.png"),
        png(pixels),
    ]
    found = model.predict(kinds)
    assert all(faces == found[0] for faces in found)
    assert model.predict(kinds[1]) == found[0]


def test_boxes_cut_the_faces_out_of_a_picture(model: Classifier) -> None:
    picture = np.zeros((20, 30), np.uint8)
    picture[4:12, 10:18] = 255
    bright, dark = model.predict(picture, boxes=[(10, 4, 8, 8), (0, 0, 10, 4)])
    assert bright.box == (10, 4, 8, 8)
    assert (bright.label, dark.label) == ("bright", "dark")
    assert model.predict([picture, picture], boxes=[[], [(10, 4, 8, 8)]]) == [[], [bright]]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 11, 4), "reaches outside"),
        ((-1, 0, 4, 4), "reaches outside"),
        ((2, 2, 0, 4), "empty"),
        ((2, 2, 4), "x, y, width, height"),
        ((np.nan, 2, 4, 4), "no place"),
    ],
)
def test_a_box_that_cannot_be_is_refused(model: Classifier, box: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model.predict(np.zeros((20, 20), np.uint8), boxes=[box])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8), 3, b"no image"],
)
def test_what_is_no_picture_is_refused_by_its_number(model: Classifier, picture: object) -> None:
    with pytest.raises(DataError, match="picture 1"):
        model.predict([np.zeros((4, 4), np.uint8), picture])  # type: ignore[list-item]


def test_as_many_lists_of_boxes_as_pictures(model: Classifier) -> None:
    with pytest.raises(DataError, match="2 pictures and 1 lists"):
        model.predict([np.zeros((4, 4), np.uint8)] * 2, boxes=[[(0, 0, 4, 4)]])


def test_no_picture_is_an_empty_answer(model: Classifier) -> None:
    assert model.predict([]) == []
    assert model.predict_proba(np.zeros((0, 4, 4), np.uint8)).shape == (0, 2)


def test_more_pictures_than_a_batch_keep_their_order(model: Classifier) -> None:
    images = np.repeat(np.arange(150, dtype=np.uint8), 16).reshape(150, 4, 4)
    found = model.predict_proba(images)[:, 1]
    np.testing.assert_allclose(found, np.arange(150) / 255, atol=1e-6)


def test_more_files_than_are_decoded_at_once_keep_their_order(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "AT_ONCE", 3)
    for level in range(8):
        (tmp_path / f"{level}.png").write_bytes(png(np.full((5, 5), 30 * level, np.uint8)))
    (tmp_path / "2.png").write_text("damaged")

    def written(skip_bad: bool) -> list[dict[str, str]]:
        files.write_predictions(
            [tmp_path],
            tmp_path / "out.csv",
            model.predict_proba,
            classes=model.classes,
            size=4,
            channels=1,
            skip_bad=skip_bad,
        )
        return list(csv.DictReader((tmp_path / "out.csv").open()))

    with pytest.raises(DataError, match=r"2\.png"):
        written(skip_bad=False)
    rows = written(skip_bad=True)
    assert [row["image"] for row in rows] == [f"{level}.png" for level in (0, 1, 3, 4, 5, 6, 7)]
    found = [float(row["bright"]) for row in rows]
    assert found == pytest.approx([30 * level / 255 for level in (0, 1, 3, 4, 5, 6, 7)], abs=1e-5)


def test_a_model_of_colours_is_given_colours() -> None:
    model = Classifier(brightness(channels=3))
    (face,) = model.predict(np.full((6, 6), 255, np.uint8))  # a grey picture becomes colour
    assert face.label == "bright"
    with pytest.raises(DataError, match=r"takes uint8 \[N, 4, 4, 3\]"):
        model.predict_proba(np.zeros((2, 4, 4), np.uint8))


def test_a_file_that_is_no_model_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="check the path"):
        Classifier(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(RunError, match=r"text.onnx: is no ONNX model"):
        Classifier(tmp_path / "text.onnx")
    stranger = onnx.load_from_string(brightness())
    del stranger.metadata_props[:]
    with pytest.raises(RunError, match="does not say its classes"):
        Classifier(stranger.SerializeToString())


def test_the_packaged_model_is_small_and_knows_the_seven_expressions() -> None:
    assert PACKAGED.stat().st_size < 10 * 2**20
    model = mien.load()
    assert set(model.classes) == set(mien.CLASSES)
    (face,) = model.predict(mien.draw_faces(21).images[0])
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_the_packaged_model_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, mien; mien.load().predict(numpy.zeros((48, 48), numpy.uint8));"
        "print([m for m in ('torch', 'matplotlib', 'scipy', 'onnx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
