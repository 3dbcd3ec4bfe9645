"""The base install's model: pictures in, faces with probabilities out."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import mien
from mien.detection import MAPPINGS, Found, Mapping
from mien.errors import DataError, RunError
from mien.inference import Classifier
from mien.packaged import PACKAGED


def brightness(channels: int = 1, attends: bool = False, **more: str) -> bytes:
    """A model that says 'bright' with the mean of an image of 4 x 4 pixels as its probability.

    With `attends` it also gives each pixel's brightness as its attention.
    """
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
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])]
    if attends:
        nodes.append(helper.make_node("Div", ["pixels", "full"], ["attention"]))
        outputs.append(helper.make_tensor_value_info("attention", TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        outputs,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {"classes": '["dark", "bright"]', "size": "4", "channels": str(channels)} | more
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


def test_a_truncated_pillow_image_is_named_as_such(model: Classifier) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)).save(
        stream, "PNG"
    )
    cut = Image.open(io.BytesIO(stream.getvalue()[:4000]))
    with pytest.raises(DataError, match="truncated or damaged"):
        model.predict(cut)


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
    model = mien.load(detector="none")
    assert set(model.classes) == set(mien.CLASSES)
    (face,) = model.predict(mien.draw_faces(21).images[0])
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_the_packaged_model_sees_a_face_and_its_mirror_image() -> None:
    one, two = (mien.load(views=views, detector="none") for views in (1, 2))
    assert two.name == mien.load().name
    assert (one.name[-5:], two.name[-13:]) == (" fp16", " fp16 2 views")
    images = mien.draw_faces(21).images
    mirrored = images[:, :, ::-1]
    for model, alike in ((one, False), (two, True)):
        apart = np.abs(model.predict_proba(mirrored) - model.predict_proba(images)).max()
        assert (apart < 1e-3) == alike


def test_other_views_than_there_are_is_an_error(tmp_path: Path) -> None:
    for views in (0, 3):
        with pytest.raises(DataError, match=f"views = {views}: the packaged model has 2 or 1"):
            mien.load(views=views)
    file = tmp_path / "own.onnx"
    file.write_bytes(brightness())
    with pytest.raises(DataError, match=r"own.onnx has its own; `mien export --views` sets them"):
        mien.load(file, views=1)


def test_a_model_in_memory_is_loaded_and_lists_and_iterators_are_taken() -> None:
    model = mien.load(brightness(), detector="none")
    white = np.full((4, 4), 255, np.uint8)
    assert model.predict_proba([white]).tolist() == model.predict_proba(white[None]).tolist()  # type: ignore[arg-type]
    (face,) = model.predict(white, boxes=(box for box in [(0, 0, 2, 2)]))
    assert face.box == (0, 0, 2, 2)
    faces = model.predict([white, white], boxes=iter([[(0, 0, 2, 2)], []]))
    assert [len(found) for found in faces] == [1, 0]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="picture 0: is an image of 0x5 pixels"):
        model.predict(Image.new("RGB", (0, 5)))
    with pytest.raises(DataError, match="the model of these bytes has its own"):
        mien.load(brightness(), views=1)


def test_a_pickled_model_opens_its_file_again_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(brightness())
    image = np.full((4, 4), 204, np.uint8)
    for source, detector in ((brightness(), "cascade"), ("model.onnx", "none")):
        monkeypatch.chdir(tmp_path)
        pickled = pickle.dumps(mien.load(source, detector=detector, threads=1))
        monkeypatch.chdir("/")
        model = pickle.loads(pickled)
        assert model.predict(image, boxes=[(0, 0, 4, 4)])[0].label == "bright"
        assert getattr(model.detector, "name", "none") == detector
        assert model._threads == 1
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"model\.onnx: No such file"):
        pickle.loads(pickled)


def test_the_packaged_model_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, mien; mien.load().predict(numpy.zeros((48, 48), numpy.uint8));"
        "print([m for m in ('torch', 'matplotlib', 'scipy', 'onnx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Points:
    """A detector that has been told where the faces are."""

    def __init__(self, *found: Found, name: str = "points") -> None:
        self.found, self.name = list(found), name

    def __call__(self, picture: np.ndarray) -> list[Found]:
        return self.found


def two_faces() -> np.ndarray:
    picture = np.zeros((40, 60), np.uint8)
    picture[10:20, 30:40] = 255
    return picture


def test_faces_are_found_by_the_detector_and_none_is_an_empty_list() -> None:
    finds = Points(Found((0, 0, 20, 20), 0.7, None), Found((30, 10, 10, 10), 0.9, None))
    model = Classifier(brightness(), detector=finds)
    dark, bright = model.predict(two_faces())
    assert (dark.label, dark.box, dark.detection) == ("dark", (0, 0, 20, 20), 0.7)
    assert (bright.label, bright.box, bright.detection) == ("bright", (30, 10, 10, 10), 0.9)
    assert model.predict(two_faces(), largest=True) == [dark]
    assert model.predict(two_faces(), boxes=[(30, 10, 10, 10)])[0].detection is None
    finds.found = []
    assert model.predict(two_faces()) == []
    assert model.predict([two_faces()] * 2) == [[], []]


def test_a_detectors_box_becomes_the_crop_that_training_images_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MAPPINGS, "cascade", Mapping(side=2.0, right=0.0, down=0.5))
    finds = Points(Found((30, 0, 10, 10), 1.0, None), name="cascade")
    model = Classifier(brightness(), detector=finds)
    (face,) = model.predict(two_faces())
    assert face.box == (25, 0, 20, 20)  # the middle (35, 10)
    assert face.probabilities["bright"] == pytest.approx(0.25, abs=1e-3)
    # What is said of the box by itself is the same.
    assert model.predict(two_faces(), boxes=[face.box])[0].probabilities == face.probabilities
    finds.found = [Found((30, 25, 20, 10), 1.0, None)]
    assert model.predict(two_faces())[0].box == (30, 25, 20, 15)  # cut at the border


def test_a_tilted_face_is_turned_by_its_eyes() -> None:
    picture = np.zeros((60, 60), np.uint8)
    picture[:, 28:32] = 255  # an upright bar, seen by a model that wants it to lie
    bar = Found((20, 20, 20, 20), 1.0, ((30.0, 20.0), (30.0, 40.0)))
    model = Classifier(brightness(attends=True), detector=Points(bar))
    seen: list[np.ndarray] = []
    model.predict_proba = lambda crops: seen.append(crops) or np.ones((len(crops), 2))  # type: ignore[method-assign,func-returns-value]
    (face,) = model.predict(picture)
    assert face.tilt == 90
    rows, columns = seen[0][0].mean(1), seen[0][0].mean(0)
    assert rows[1:3].min() > 100 > rows[[0, 3]].max()
    assert np.ptp(columns) < 20


def test_an_answer_below_the_threshold_is_not_known() -> None:
    model = Classifier(brightness(threshold="0.75"))
    assert model.threshold == 0.75
    surer, unsure = (np.full((4, 4), level, np.uint8) for level in (204, 178))
    assert model.predict(surer)[0].known
    assert not model.predict(unsure)[0].known
    assert model.predict(unsure, min_probability=0.69)[0].known
    assert not model.predict(surer, min_probability=0.9)[0].known
    assert Classifier(brightness()).predict(unsure)[0].known


def test_attention_is_the_files_own_map_or_none(model: Classifier) -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 4, 4)).astype(np.uint8)
    found = Classifier(brightness(attends=True)).attention(images)
    assert found is not None
    np.testing.assert_allclose(found, images / 255, atol=1e-6)
    assert model.attention(images) is None


def test_a_model_is_called_by_its_run_or_its_bytes() -> None:
    assert Classifier(brightness(run="plain-1", precision="fp16")).name == "plain-1 fp16"
    names = {Classifier(brightness(channels)).name for channels in (1, 1, 3)}
    assert len(names) == 2


def test_load_takes_a_detector_by_name_or_as_it_is_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    finds = Points()
    assert mien.load(detector=finds).detector is finds
    assert mien.load(detector="none").detector is None
    automatic = mien.load().detector
    assert automatic is not None
    assert automatic.name == "cascade"
    with pytest.raises(DataError, match="no detector 'nine'"):
        mien.load(detector="nine")


def test_a_bomb_of_an_image_is_refused_before_it_is_decoded(
    model: Classifier, tmp_path: Path
) -> None:
    side = 30_000  # 900 million pixels in under a megabyte
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    for picture in (bomb, tmp_path / "bomb.png"):
        with pytest.raises(DataError, match="million pixels"):
            model.predict(picture)


def test_a_photo_taken_sideways_is_turned_upright_first() -> None:
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left half becomes the upper one
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    model = Classifier(brightness())
    upper, lower = model.predict(stream.getvalue(), boxes=[(0, 0, 20, 20), (0, 20, 20, 20)])
    assert (upper.label, lower.label) == ("bright", "dark")


@pytest.mark.real
@pytest.mark.parametrize(("views", "accuracy"), [(2, 0.7133), (1, 0.6930)])
def test_the_packaged_model_is_as_accurate_as_it_is_said_to_be(
    fer2013: Path, views: int, accuracy: float
) -> None:
    faces = mien.read(fer2013)["PublicTest"]
    called = mien.load(views=views, detector="none").predict_proba(faces.images).argmax(1)
    assert (called == faces.labels).mean() == pytest.approx(accuracy, abs=5e-4)
    card = PACKAGED.with_suffix(".md").read_text()
    assert views == 1 or f"{100 * accuracy:.1f} %" in card


@pytest.mark.parametrize("out", ["faces.csv", "copies", "film.csv"])
def test_the_base_install_predicts_pictures_and_films(tmp_path: Path, out: str) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "f.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 64))
    for _ in range(3):
        writer.write(np.full((64, 64, 3), 90, np.uint8))
    writer.release()
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / "p.png")
    source = "f.avi" if out == "film.csv" else "p.png"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({TRAINING}));"
        f"sys.argv = ['mien', 'predict', '{source}', '--detector', 'none', '--out', '{out}'];"
        "from mien.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / out).exists()


TRAINING = ("torch", "torchvision", "timm", "scipy", "sklearn", "matplotlib", "jinja2", "onnx",
            "onnxscript", "optuna", "sqlalchemy", "safetensors")  # fmt: skip
"""What the base install has not."""
