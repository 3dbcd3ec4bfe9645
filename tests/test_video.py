"""Videos: frames and times, tracks, smoothing, rows, the drawn copy, the summary, bad input."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mien
from mien.errors import DataError, RunError
from mien.inference import capture, footage, recording, timeline
from mien.inference.capture import for_ffmpeg, open_capture
from mien.inference.classifier import Face
from mien.inference.footage import Footage
from mien.inference.tracks import Tracked, Tracks, overlaps
from mien.inference.video import Watched, predict_video
from mien.plots.timeline import steps

CLASSES = ("dark", "bright")
Box = tuple[int, int, int, int]


def watch(source: Path | int, classifier: Any, **settings: Any) -> Watched:
    """`predict_video` with one of the stand-ins for a classifier below."""
    return predict_video(source, classifier, **settings)


def face(box: Box = (0, 0, 10, 10), bright: float = 0.5) -> Face:
    label = CLASSES[int(bright > 0.5)]
    return Face(box, label, {"dark": 1 - bright, "bright": bright})


class Brightness:
    """Says of a picture, as a whole one face, 'bright' with its mean as the probability."""

    classes, threshold = CLASSES, 0.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, images: Sequence[np.ndarray], **_: Any) -> list[list[Face]]:
        self.batches.append(len(images))
        return [
            [face((0, 0, image.shape[1], image.shape[0]), float(image.mean()) / 255)]
            for image in images
        ]


class Square:
    """Finds the bright square on a dark ground, if there is one."""

    classes, threshold = CLASSES, 0.0

    def predict(self, images: Sequence[np.ndarray], **_: Any) -> list[list[Face]]:
        found: list[list[Face]] = []
        for image in images:
            ys, xs = np.nonzero(image.mean(2) > 128)
            if not len(xs):
                found.append([])
                continue
            left, top, width, height = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
            found.append([face((int(left), int(top), int(width), int(height)), 0.9)])
        return found


def written(
    path: Path, frames: Sequence[np.ndarray], rate: float = 25, codec: str = "mp4v"
) -> Path:
    """A video of BGR frames; skips where this OpenCV has no encoder."""
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter.fourcc(*codec)
    with capture.quiet():
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, rate, (width, height))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV has no encoder for {codec}")
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def levels(values: Sequence[int], size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    return [np.full((*size, 3), value, np.uint8) for value in values]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def boxes_edited(content: bytes, kind: bytes, new: bytes) -> bytes:
    """An MP4 whose one box of a kind below the sample table holds something else."""
    start = content.index(kind) - 4
    (size,) = struct.unpack(">I", content[start : start + 4])
    edited = bytearray(content[:start] + struct.pack(">I", 8 + len(new)) + kind + new)
    edited += content[start + size :]
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = edited.index(parent) - 4
        (old,) = struct.unpack(">I", edited[place : place + 4])
        edited[place : place + 4] = struct.pack(">I", old + 8 + len(new) - size)
    return bytes(edited)


def alone(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a process of its own, where `mean` is as good as a `Brightness`."""
    before = """
import contextlib, os
from pathlib import Path
from types import SimpleNamespace
from mien.errors import DataError
from mien.inference import Face
from mien.inference.video import predict_video
def predict(images, **_): return [[Face((0, 0, 9, 9), "a", {"a": x.mean() / 255})] for x in images]
mean = SimpleNamespace(classes=("a",), threshold=0.0, predict=predict)
"""
    return subprocess.run([sys.executable, "-c", before + code], capture_output=True, check=False)


class Camera:
    """In place of cv2.VideoCapture: a camera that shows so many pictures, and then no more."""

    pictures: int = 5
    opens = True
    stop_after: int | None = None
    pause = 0.0

    def __init__(self, number: int | str, backend: int = 0) -> None:
        self.shown = 0

    def isOpened(self) -> bool:
        return self.opens

    def get(self, fact: int) -> float:
        facts = {cv2.CAP_PROP_FRAME_WIDTH: 64, cv2.CAP_PROP_FRAME_HEIGHT: 48, cv2.CAP_PROP_FPS: 30}
        return facts.get(fact, -1)

    def grab(self) -> bool:
        time.sleep(self.pause)
        self.shown += 1
        return self.shown <= self.pictures

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((48, 64, 3), self.shown % 256, np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[Camera]:
    kind = type("OneCamera", (Camera,), {})
    monkeypatch.setattr(capture.cv2, "VideoCapture", kind)
    return kind


# Frames and their times


def test_every_frame_comes_in_order_with_the_time_of_the_container(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", levels(range(0, 250, 5)), rate=10, codec="MJPG")
    out = tmp_path / "faces.csv"
    watched = watch(film, Brightness(), out=out)
    rows = rows_of(out)
    assert [int(row["frame"]) for row in rows] == list(range(50))
    np.testing.assert_allclose([float(row["time"]) for row in rows], np.arange(50) / 10, atol=1e-3)
    means = [float(row["bright"]) * 255 for row in rows]
    np.testing.assert_allclose(means, np.arange(0, 250, 5), atol=3)  # as lossy as JPEG is
    assert (watched.frames, watched.chosen, watched.faces) == (50, 50, 1)
    assert watched.seconds == pytest.approx(5)
    assert watched.notes == ()


def test_colours_are_red_green_blue_as_everywhere_else(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[:, :, 2] = 250  # OpenCV writes blue, green, red
    with Footage(written(tmp_path / "f.avi", [red] * 2, codec="MJPG")) as film:
        (batch,) = film
    assert batch[0].pixels.mean((0, 1)).argmax() == 0


def test_times_of_a_variable_frame_rate_are_kept(tmp_path: Path) -> None:
    film = written(tmp_path / "f.mp4", levels(range(0, 200, 4)))
    content = film.read_bytes()
    start = content.index(b"stts") + 8
    entries, count, delta = struct.unpack(">III", content[start : start + 12])
    assert (entries, count) == (1, 50)
    halves = struct.pack(">IIIIII", 0, 2, 25, delta // 2, 25, delta * 3 // 2)
    film.write_bytes(boxes_edited(content, b"stts", halves))
    with Footage(film) as opened:
        times = [frame.time for batch in opened for frame in batch]
    expected = [0.02 * i for i in range(25)] + [0.5 + 0.06 * i for i in range(25)]
    np.testing.assert_allclose(times, expected, atol=1e-3)


def test_a_video_that_asks_to_be_turned_is_turned(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32] = 255
    content = written(tmp_path / "f.mp4", [frame] * 5).read_bytes()
    matrix = content.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # 90 degrees clockwise
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:matrix] + quarter + content[matrix + 36 :])
    with Footage(turned) as film:
        pixels = next(iter(film))[0].pixels
    assert pixels.shape == (64, 48, 3)
    assert pixels[:30].mean() > 240  # what was left is above
    assert pixels[34:].mean() < 15


def test_clocks_that_stand_still_or_jump_back_go_on_at_the_mean_rate(
    camera: type[Camera], tmp_path: Path
) -> None:
    told = iter([0, 40, 40, 0, 200])
    facts = Camera.get
    camera.get = lambda self, fact: (  # type: ignore[method-assign]
        next(told)
        if fact == cv2.CAP_PROP_POS_MSEC
        else 25
        if fact == cv2.CAP_PROP_FPS
        else facts(self, fact)
    )
    (tmp_path / "f.h264").touch()
    with Footage(tmp_path / "f.h264") as film:
        times = [frame.time for batch in film for frame in batch]
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.12, 0.2])


def test_only_every_so_many_frames_are_looked_at(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", levels(range(0, 250, 5)), codec="MJPG")
    looking, out = Brightness(), tmp_path / "faces.jsonl"
    watched = watch(film, looking, out=out, every=7)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(0, 50, 7))
    assert sum(looking.batches) == watched.chosen == 8
    assert (watched.frames, watched.seconds) == (50, pytest.approx(2))


def test_what_the_packaged_model_says_of_a_video_is_what_it_says_of_its_frames(
    tmp_path: Path,
) -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    film = written(tmp_path / "f.avi", [np.roll(ramp, 9 * i, 1) for i in range(5)], codec="MJPG")
    classifier = mien.load(detector="none")
    watched = predict_video(film, classifier, out=tmp_path / "f.csv")
    with Footage(film) as opened:
        expected = [classifier.predict(f.pixels)[0] for batch in opened for f in batch]
    rows = rows_of(tmp_path / "f.csv")
    assert len(rows) == watched.chosen == 5
    for row, one in zip(rows, expected, strict=True):
        assert isinstance(one, Face)
        assert row["label"] == one.label
        for name, chance in one.probabilities.items():
            assert float(row[name]) == pytest.approx(chance, abs=1e-5)


def test_the_largest_face_and_the_least_probability_are_asked_of_the_classifier(
    tmp_path: Path,
) -> None:
    film, asked = written(tmp_path / "f.avi", levels([9] * 5), codec="MJPG"), []

    class Asked(Brightness):
        threshold = 0.4

        def predict(self, images: Sequence[np.ndarray], **given: Any) -> list[list[Face]]:
            asked.append(given)
            return super().predict(images)

    watch(film, Asked())
    watch(film, Asked(), largest=True, min_probability=0.9)
    assert asked == [
        {"largest": False, "min_probability": 0.4},
        {"largest": True, "min_probability": 0.9},
    ]


def test_decoding_goes_on_while_a_batch_is_looked_at_and_stays_bounded(
    camera: type[Camera], tmp_path: Path
) -> None:
    camera.pictures = 100_000
    captures: list[Camera] = []
    made = Camera.__init__
    camera.__init__ = lambda self, *a: (made(self, *a), captures.append(self))[0]  # type: ignore
    (tmp_path / "f.avi").touch()
    with Footage(tmp_path / "f.avi") as film:
        batches = iter(film)
        for _ in range(3):
            last = next(batches)[-1]
            patience = time.monotonic() + 20
            while captures[0].shown - last.number <= footage.BATCH:  # a queue full is ahead of us
                assert time.monotonic() < patience
                time.sleep(0.01)
            time.sleep(0.05)
            assert captures[0].shown - last.number - 1 <= footage.BATCH + 2
    assert not any(t.name.startswith("decoding") for t in threading.enumerate())


def test_fewer_frames_of_a_large_video_are_held(camera: type[Camera], tmp_path: Path) -> None:
    side = {cv2.CAP_PROP_FRAME_WIDTH: 3840, cv2.CAP_PROP_FRAME_HEIGHT: 2160}
    camera.get = lambda self, fact: side.get(fact, 25)  # type: ignore[method-assign]
    camera.pictures = 10
    (tmp_path / "f.avi").touch()
    with Footage(tmp_path / "f.avi") as film:
        assert [len(batch) for batch in film] == [2] * 5  # 24.9 MB each


def test_an_error_in_the_decoding_thread_reaches_the_reader(
    camera: type[Camera], tmp_path: Path
) -> None:
    def broken(self: Camera) -> tuple[bool, np.ndarray]:
        raise MemoryError("no room for the picture")

    camera.retrieve = broken  # type: ignore[method-assign]
    (tmp_path / "f.avi").touch()
    with pytest.raises(MemoryError, match="no room"):
        watch(tmp_path / "f.avi", Brightness())


# Tracks and smoothing


def test_overlap_is_intersection_over_union() -> None:
    found = overlaps([(0, 0, 10, 10)], [(0, 0, 10, 10), (5, 0, 10, 10), (20, 0, 5, 5)])
    np.testing.assert_allclose(found, [[1, 50 / 150, 0]])


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2), max_size=4))
def test_overlap_agrees_with_counting_pixels(boxes: list[Box]) -> None:
    masks = np.zeros((len(boxes), 40, 40), bool)
    for mask, (x, y, width, height) in zip(masks, boxes, strict=True):
        mask[y : y + height, x : x + width] = True
    counted = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_allclose(overlaps(boxes, boxes), np.reshape(counted, (len(boxes),) * 2))


def test_faces_keep_their_numbers_also_when_their_order_changes() -> None:
    tracks = Tracks()
    left, right = face((0, 0, 20, 20)), face((100, 0, 20, 20))
    assert [t.track for t in tracks.follow([left, right], 0.0)] == [1, 2]
    assert [t.track for t in tracks.follow([face((103, 2, 20, 20)), left], 0.1)] == [2, 1]
    assert [t.track for t in tracks.follow([face((106, 4, 20, 20))], 0.2)] == [2]
    assert [t.track for t in tracks.follow([left, face((50, 50, 20, 20))], 0.9)] == [1, 3]


def test_two_faces_on_one_place_are_two_tracks() -> None:
    tracks = Tracks()
    tracks.follow([face((0, 0, 20, 20))], 0)
    assert [t.track for t in tracks.follow([face((6, 0, 20, 20)), face((1, 0, 20, 20))], 0.1)] == [
        2,
        1,
    ]


def test_a_face_away_for_long_comes_back_as_another() -> None:
    tracks = Tracks()
    tracks.follow([face()], 0.0)
    tracks.follow([], 0.5)
    assert tracks.follow([face()], 0.9)[0].track == 1
    tracks.follow([], 2.0)
    assert tracks.follow([face()], 2.1)[0].track == 2


def test_frames_that_lie_far_apart_are_still_linked() -> None:
    tracks = Tracks()
    assert [tracks.follow([face()], 10.0 * i)[0].track for i in range(3)] == [1, 1, 1]


def test_smoothing_answers_a_step_as_an_exponential_of_time_at_any_rate() -> None:
    for times in (np.arange(0, 2, 0.04), np.array([0, 0.3, 0.31, 1.2, 1.9])):
        tracks = Tracks(smooth=0.5)
        tracks.follow([face(bright=0.0)], -0.04)
        tracks.follow([face(bright=0.0)], 0)
        for time_ in times[1:]:
            (seen,) = tracks.follow([face(bright=1.0)], time_)
            expected = 1 - np.exp(-time_ / 0.5)
            assert seen.face.probabilities["bright"] == pytest.approx(expected)
            assert sum(seen.face.probabilities.values()) == pytest.approx(1)
            assert seen.face.label == ("bright" if expected > 0.5 else "dark")


def test_each_track_is_smoothed_for_itself_and_not_before_its_second_frame() -> None:
    tracks = Tracks(smooth=10)
    tracks.follow([face((0, 0, 9, 9), 0.0)], 0)
    old, new = tracks.follow([face((0, 0, 9, 9), 0.0), face((50, 0, 9, 9), 1.0)], 0.1)
    assert old.face.probabilities["bright"] == 0
    assert new.face.probabilities["bright"] == 1


def test_without_smoothing_the_faces_are_those_of_the_classifier() -> None:
    one = face(bright=0.7)
    tracks = Tracks()
    tracks.follow([face(bright=0.1)], 0)
    assert tracks.follow([one], 0.1)[0].face is one


# Rows


def moving(n: int = 30) -> list[np.ndarray]:
    """A bright square that moves right, and is gone from the 20th frame on."""
    frames = levels([0] * n, (96, 128))
    for i, frame in enumerate(frames[:20]):
        frame[32:64, 16 + i : 48 + i] = 255
    return frames


def test_a_row_has_frame_time_track_box_label_and_probabilities(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")
    stream, table = io.StringIO(), tmp_path / "faces.csv"
    watch(film, Square(), out=stream)
    watch(film, Square(), out=table)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 20  # where there is no face there is no row
    for i, (line, row) in enumerate(zip(lines, rows_of(table), strict=True)):
        assert (line["frame"], line["face"], line["label"]) == (i, 1, "bright")
        np.testing.assert_allclose(line["box"], [16 + i, 32, 32, 32], atol=1)
        assert (line["detection"], line["known"]) == (None, True)
        assert line["probabilities"] == {"dark": 0.1, "bright": 0.9}
        assert list(row.values()) == [
            *(str(i), f"{i / 25:.3f}", "1", *map(str, line["box"])),
            *("bright", "0.100000", "0.900000", "", "true"),
        ]


def test_a_video_without_a_face_gives_an_empty_table_and_no_error(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", levels([0] * 10), codec="MJPG")
    watched = watch(film, Square(), out=tmp_path / "f.csv", summary=tmp_path / "s")
    assert (tmp_path / "f.csv").read_text() == (
        "frame,time,face,x,y,width,height,label,dark,bright,detection,known\n"
    )
    assert watched.faces == 0
    assert watched.notes == ("no timeline was drawn: there was no face",)


class Interrupting(Brightness):
    """Is interrupted, or fails, at its third batch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def predict(self, images: Sequence[np.ndarray], **_: Any) -> list[list[Face]]:
        if len(self.batches) == 2:
            raise self.error
        return super().predict(images)

    def stop(self, *_: Any, **__: Any) -> list[list[Face]]:
        raise self.error


def test_an_older_file_is_not_written_over(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", levels([9]), codec="MJPG")
    for name in ("faces.csv", "copy.mp4"):
        (tmp_path / name).write_text("of yesterday\n")
        with pytest.raises(DataError, match="is there already"):
            watch(film, Brightness(), out=tmp_path / name)
        assert (tmp_path / name).read_text() == "of yesterday\n"


@pytest.mark.parametrize("kind", ["csv", "mp4"])
def test_what_a_kill_left_is_not_written_over(tmp_path: Path, kind: str) -> None:
    film = written(tmp_path / "f.mp4", levels([9, 90]))
    left = tmp_path / f"faces.part.{kind}"
    left.write_text("of a camera\n")
    with pytest.raises(RunError, match=rf"faces\.part\.{kind}: is of a recording that was stopped"):
        watch(film, Brightness(), out=tmp_path / f"faces.{kind}")
    assert left.read_text() == "of a camera\n"


def test_names_that_ffmpeg_takes_for_something_else_are_read_or_refused(tmp_path: Path) -> None:
    film = written(tmp_path / "f.mp4", levels([9, 90])).rename(tmp_path / "10:30.mp4")
    with contextlib.chdir(tmp_path):
        open_capture(Path(film.name)).release()
    with pytest.raises(DataError, match="UTF-8"):
        for_ffmpeg(tmp_path / os.fsdecode(b"f\xe9.mp4"))


def test_the_film_itself_is_not_written_over_though_it_has_the_name_of_a_part(
    tmp_path: Path,
) -> None:
    film = written(tmp_path / "f.part.mp4", levels([9, 90]))
    before = film.read_bytes()
    with pytest.raises(DataError, match=r"f\.part\.mp4: is the video itself"):
        watch(film, Brightness(), out=tmp_path / "f.mp4")
    assert film.read_bytes() == before


def test_ctrl_c_leaves_whole_rows(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", levels([9] * 100), codec="MJPG")
    out = tmp_path / "faces.csv"
    with pytest.raises(KeyboardInterrupt, match=r"second 2\.56.*faces\.part\.csv"):
        watch(film, Interrupting(KeyboardInterrupt()), out=out)
    assert not out.exists()
    assert len(rows_of(tmp_path / "faces.part.csv")) == 64


def test_a_killed_process_leaves_whole_rows(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", levels([9] * 100), codec="MJPG")
    done = alone(
        f"predict_video(Path({str(film)!r}), mean, out=Path({str(tmp_path / 'f.csv')!r}),\n"
        "    progress=lambda now, _: os.kill(os.getpid(), 9) if now > 2 else None)"
    )
    assert done.returncode == -9
    assert not (tmp_path / "f.csv").exists()
    text = (tmp_path / "f.part.csv").read_text()
    assert text.endswith("\n")
    assert len(rows_of(tmp_path / "f.part.csv")) == 64


@pytest.mark.parametrize("room", [10, 3000])
def test_a_full_disk_leaves_whole_rows_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    film = written(tmp_path / "f.avi", levels([9] * 100), codec="MJPG")
    left, write = room, recording.os.write

    def until_full(file: int, content: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(28, "No space left on device")
        done = write(file, content[:left])
        left -= done
        return done

    monkeypatch.setattr(recording.os, "write", until_full)
    with pytest.raises(RunError, match=r"No space left.*f\.part\.csv"):
        watch(film, Brightness(), out=tmp_path / "f.csv")
    text = (tmp_path / "f.part.csv").read_text()
    assert text == "" or text.endswith("\n")
    assert len(rows_of(tmp_path / "f.part.csv")) in ((0,) if room == 10 else (32, 64))


# The copy with the faces drawn


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands in for the drawing: a picture as red as there are faces; says how many it drew."""
    written(tmp_path / "there is an encoder.mp4", levels([0]))
    calls: list[int] = []

    def annotate(image: np.ndarray, faces: Sequence[Face], *, widen: bool) -> np.ndarray:
        calls.append(len(faces))
        image = image.copy()
        image[:, :, 0] = 200 * len(faces)  # red
        return image

    module = ModuleType("mien.inference.annotate")
    module.annotate = annotate  # type: ignore[attr-defined]
    module.fills = lambda *_: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mien.inference.annotate", module)
    return calls


def test_the_drawn_copy_has_every_frame_and_keeps_faces_between_those_looked_at(
    tmp_path: Path, drawn: list[int]
) -> None:
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")
    out = tmp_path / "copy.mp4"
    watched = watch(film, Square(), out=out, every=8)
    assert drawn == [1] * 24 + [0] * 6  # looked at: frames 0, 8, 16 with the face, 24 without
    assert watched.files == (out,)
    with Footage(out) as copy:
        frames = [frame for batch in copy for frame in batch]
    assert len(frames) == 30
    assert frames[0].pixels.shape == (96, 128, 3)
    reds = [frame.pixels[:20, :, 0].mean() for frame in frames]
    assert min(reds[:24]) > 150
    assert max(reds[24:]) < 50


def test_boxes_and_bars_are_drawn_where_there_is_a_face(tmp_path: Path) -> None:
    film = written(tmp_path / "f.mp4", moving())
    watch(film, Square(), out=tmp_path / "copy.mp4")
    with Footage(film) as before, Footage(tmp_path / "copy.mp4") as after:
        pairs = zip(
            (f.pixels for batch in before for f in batch),
            (f.pixels for batch in after for f in batch),
            strict=True,
        )
        apart = [
            np.abs(cv2.resize(old, new.shape[1::-1]).astype(int) - new).mean() for old, new in pairs
        ]
    assert min(apart[:20]) > 5 * max(apart[21:])


def test_a_camera_stopped_before_its_first_picture_was_drawn_is_said(
    camera: type[Camera], tmp_path: Path, drawn: list[int]
) -> None:
    stopping = Brightness()
    stopping.predict = Interrupting(KeyboardInterrupt()).stop  # type: ignore[method-assign]
    with pytest.raises(RunError, match="before there was a frame"):
        watch(0, stopping, out=tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.part.mp4").exists()


def test_the_drawn_copy_of_a_variable_rate_keeps_the_times(
    tmp_path: Path, drawn: list[int]
) -> None:
    pictures = levels([0, 80, 160, 240])
    out = tmp_path / "copy.mp4"
    with recording.film(out, 10.0) as record:
        for number, (at, pixels) in enumerate(zip((0, 0.1, 0.5, 0.52), pictures, strict=True)):
            record([recording.Seen(footage.Frame(number, at, pixels, True), [])])
    with Footage(out) as copy:
        shown = [frame.pixels[:, :, 1].mean() for batch in copy for frame in batch]
    np.testing.assert_allclose(shown, [0, 80, 80, 80, 80, 240], atol=4)


@pytest.mark.parametrize("rate", [118.347, 66.667, 239.76])
def test_a_fast_film_of_an_odd_rate_is_drawn(tmp_path: Path, drawn: list[int], rate: float) -> None:
    out = tmp_path / "copy.mp4"
    with recording.film(out, rate) as record:
        for number, pixels in enumerate(levels([0, 200])):
            record([recording.Seen(footage.Frame(number, number / rate, pixels, True), [])])
    with Footage(out) as copy:
        assert sum(len(batch) for batch in copy) == 2


def test_a_stream_that_changes_its_size_is_drawn_at_its_first(
    tmp_path: Path, drawn: list[int]
) -> None:
    out = tmp_path / "copy.mp4"
    with recording.film(out, 10.0) as record:
        for number, size in enumerate(((48, 64), (24, 32))):
            (pixels,) = levels([200], size)
            record([recording.Seen(footage.Frame(number, number / 10, pixels, True), [])])
    with Footage(out) as copy:
        assert [f.pixels.shape for batch in copy for f in batch] == [(48, 64, 3)] * 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_face_that_fills_some_frames_stretches_none(tmp_path: Path, order: int) -> None:
    written(tmp_path / "there is an encoder.mp4", levels([0]))
    out = tmp_path / "copy.mp4"
    white = np.full((240, 240, 3), 255, np.uint8)
    boxes: list[Box] = [(0, 0, 240, 240), (80, 80, 80, 80)]
    with recording.film(out, 10.0) as record:
        for number, box in enumerate(boxes[::order]):
            faces = [Tracked(1, face(box))]
            record([recording.Seen(footage.Frame(number, number / 10, white, True), faces)])
    with Footage(out) as copy:
        frames = [frame.pixels for batch in copy for frame in batch]
    assert frames[0].shape == frames[1].shape
    for frame in frames:  # white as high as wide, whatever stands beside it
        columns = (frame > 200).all(2).mean(0) > 0.3
        assert columns.sum() == pytest.approx(frame.shape[0], rel=0.1)


def test_a_copy_that_is_not_whole_is_refused(
    tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")

    class Full:
        """Takes frames and keeps none."""

        fourcc = cv2.VideoWriter.fourcc

        opened = False

        def open(self, path: str, *_: Any) -> bool:
            Path(path).write_bytes(b"\x00\x00\x00\x18ftypmp42")
            self.opened = True
            return True

        def isOpened(self) -> bool:
            return self.opened

        def write(self, image: np.ndarray) -> None:
            pass

        def release(self) -> None:
            pass

    monkeypatch.setattr(recording.cv2, "VideoWriter", Full)
    with pytest.raises(RunError, match=r"copy\.mp4: cannot be written whole"):
        watch(film, Square(), out=tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()


def test_without_an_encoder_the_error_names_another_way(
    tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")

    class NoEncoder:
        fourcc = cv2.VideoWriter.fourcc

        def open(self, *_: Any) -> bool:
            return False

        def isOpened(self) -> bool:
            return False

        def release(self) -> None:
            pass

    monkeypatch.setattr(recording.cv2, "VideoWriter", NoEncoder)
    with pytest.raises(RunError, match=r"no encoder for MPEG-4; write a \.csv"):
        watch(film, Square(), out=tmp_path / "copy.mp4")


# The summary


def timed(labels: str, times: Sequence[float]) -> timeline.Timeline:
    """A timeline of one face, a letter a frame: b for bright, d for dark, - for none."""
    found = timeline.Timeline(CLASSES)
    for letter, at in zip(labels, times, strict=True):
        faces = [] if letter == "-" else [Tracked(1, face(bright=float(letter == "b")))]
        found.add(at, faces)
    return found


def test_shares_are_of_time_not_of_frames() -> None:
    found = timed("bbd-b", [0, 1, 2, 5, 6])
    found.end(7)
    (row,) = found.shares()
    assert row == {
        "face": 1, "first": 0, "last": 7, "seconds": 6, "frames": 4,
        "dark": pytest.approx(3 / 6), "bright": pytest.approx(3 / 6), "unknown": 0,
    }  # fmt: skip


def test_time_in_which_no_class_was_likely_enough_is_its_own_share() -> None:
    tracks, found = Tracks(smooth=1.0, least=0.8), timeline.Timeline(CLASSES)
    for at, bright in ((0, 1.0), (1, 0.0), (3, 0.0)):
        found.add(at, tracks.follow([face(bright=bright)], at))
    found.end(10)
    (row,) = found.shares()  # at second 1 'dark' has 1 - 1/e, which is not enough
    assert (row["bright"], row["dark"], row["unknown"]) == (0.1, 0.7, 0.2)


def test_a_curve_has_the_mean_of_each_part_and_its_gaps() -> None:
    found = timed("bd-bb", [0.0, 0.04, 0.08, 0.5, 0.58])
    found.end(0.6)
    spans, means = found.curve(1)
    np.testing.assert_allclose(spans, [(0, 0.08), (0.5, 0.6)])
    np.testing.assert_allclose(means, [(0.5, 0.5), (0, 1)])


def test_long_videos_are_summed_in_as_many_parts_as_short_ones() -> None:
    found, rng = timeline.Timeline(CLASSES), np.random.default_rng(0)
    values = rng.random(20_000)
    times = np.arange(20_000) * 0.18  # an hour
    most = 0
    for at, value in zip(times, values, strict=True):
        found.add(at, [Tracked(1, face(bright=float(value)))])
        most = max(most, len(found._tracks[1].parts)) if found._tracks else 0
    found.end(3600)
    assert most <= timeline.BINS
    spans, means = found.curve(1)
    assert timeline.BINS / 2 <= len(spans) <= timeline.BINS
    np.testing.assert_allclose(spans[1:, 0], spans[:-1, 1])  # nothing is missing in between
    lengths = np.diff(spans)[:, 0]
    assert lengths @ means[:, 1] / 3600 == pytest.approx(values.mean())
    first = values[times < spans[0, 1] - 1e-9]
    assert means[0, 1] == pytest.approx(first.mean())


def test_the_summary_is_written_as_tables_and_plot(tmp_path: Path) -> None:
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")
    watched = watch(film, Square(), summary=tmp_path / "summary")
    (row,) = rows_of(tmp_path / "summary" / "summary.csv")
    assert row == {
        "face": "1", "first": "0.000", "last": "0.800", "seconds": "0.800", "frames": "20",
        "dark": "0.000", "bright": "1.000", "unknown": "0.000",
    }  # fmt: skip
    parts = rows_of(tmp_path / "summary" / "timeline.csv")
    assert (float(parts[0]["start"]), float(parts[-1]["end"])) == (0, 0.8)
    assert {part["bright"] for part in parts} == {"0.900"}
    assert [file.name for file in watched.files] == [
        *("summary.csv", "timeline.csv", "timeline.svg", "timeline.pdf")
    ]
    drawing = (tmp_path / "summary" / "timeline.svg").read_text()
    assert all(word in drawing for word in ("face 1", "bright", "seconds"))


def test_without_matplotlib_the_tables_are_written_and_the_lack_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    watched = watch(film, Square(), summary=tmp_path / "s")
    assert [file.name for file in watched.files] == ["summary.csv", "timeline.csv"]
    assert watched.notes[0].startswith("no timeline was drawn: figures need matplotlib")
    assert "mien[train]" in watched.notes[0]


def test_the_drawn_curve_is_level_in_a_span_and_falls_to_nothing_in_a_gap() -> None:
    spans, heights = np.array([(0, 1), (1, 2), (5, 6.0)]), np.array([[0.2], [0.4], [0.6]])
    times, corners = steps(spans, heights)
    np.testing.assert_allclose(times, [0, 1, 1, 2, 2, 5, 5, 6])
    np.testing.assert_allclose(corners[:, 0], [0.2, 0.2, 0.4, 0.4, 0, 0, 0.6, 0.6])


# Bad input


def test_a_truncated_video_is_used_as_far_as_it_goes_and_says_where_it_ends(
    tmp_path: Path,
) -> None:
    film = written(tmp_path / "f.avi", levels(range(0, 200, 2)), codec="MJPG")
    whole = film.read_bytes()
    film.write_bytes(whole[: len(whole) // 2])
    watched = watch(film, Brightness(), out=tmp_path / "f.csv")
    rows = rows_of(tmp_path / "f.csv")
    assert 30 < len(rows) < 60
    (note,) = watched.notes
    assert f"ended at second {len(rows) / 25:.2f}" in note
    assert "promises 4.00 s" in note


def test_matroska_that_begins_late_is_not_taken_for_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What OpenCV tells of `ffmpeg -c copy -output_ts_offset 10`: 10 seconds more of both."""
    film = written(tmp_path / "f.mkv", levels(range(0, 200, 2)))
    opened = footage.open_capture

    class Late:
        def __init__(self, source: Path) -> None:
            self.capture = opened(source)

        def get(self, fact: int) -> float:
            late = fact in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_PTS)
            return self.capture.get(fact) + (250 if late else 0)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.capture, name)

    monkeypatch.setattr(footage, "open_capture", Late)
    with Footage(film) as late:
        assert sum(len(batch) for batch in late) == 100
        assert late.cut() is None
        assert late.promised == pytest.approx(4, abs=0.1)


def test_an_mp4_cut_before_its_index_says_so(tmp_path: Path) -> None:
    film = written(tmp_path / "f.mp4", levels([9] * 50))
    content = film.read_bytes()
    film.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(DataError, match=r"f\.mp4: is an MP4 without its index"):
        watch(film, Brightness())
    film.write_bytes(content[:-400])  # half of the index is there
    with pytest.raises(DataError, match=r"promises 2\.00 s, but not one frame can be decoded"):
        watch(film, Brightness())


def no_codec(path: Path) -> Path:
    film = written(path, levels([9] * 5), codec="MJPG")
    film.write_bytes(film.read_bytes().replace(b"MJPG", b"ZZZZ"))
    return film


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "there is no such file"),
        (lambda path: path.mkdir() or path, "is not a file"),
        (lambda path: os.mkfifo(path) or path, "is not a file"),
        (lambda path: (path.write_bytes(b"") and None) or path, "is empty"),
        (lambda path: path.write_bytes(b"\x00\x01abc" * 999) and path, "is no video"),
        (no_codec, "of codec 'ZZZZ', but OpenCV lacks its codec; convert"),
    ],
    ids=["missing", "folder", "pipe", "empty", "noise", "codec"],
)
def test_what_is_no_video_is_named_with_the_reason(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        watch(make(tmp_path / "f.avi"), Brightness(), out=tmp_path / "f.csv")
    assert "f.avi" in str(raised.value)
    assert not (tmp_path / "f.csv").exists()


def test_text_is_no_video_although_ffmpeg_draws_it(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("a dull day\n" * 999)
    with pytest.raises(DataError, match="is text, not a video"):
        watch(tmp_path / "f.txt", Brightness())


def test_a_video_without_a_frame_is_named_as_such(camera: type[Camera], tmp_path: Path) -> None:
    camera.pictures = 0
    (tmp_path / "f.avi").touch()
    with pytest.raises(DataError, match=r"f\.avi: .* not one frame can be decoded"):
        watch(tmp_path / "f.avi", Brightness(), out=tmp_path / "f.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["f.avi"], "no part without a row"


def test_paths_may_be_text_and_a_summary_that_cannot_be_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = str(written(tmp_path / "f.mp4", levels([9] * 5)))
    out, summary = str(tmp_path / "f.csv"), tmp_path / "summary"
    summary.touch()
    for place in (summary, summary / "below"):
        with pytest.raises(RunError, match="summary is a file; name another"):
            watch(film, Brightness(), out=out, summary=str(place))
    summary.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        with pytest.raises(RunError, match="cannot be written"):
            watch(film, Brightness(), out=out, summary=str(summary))
    assert not Path(out).exists()
    watched = watch(film, Brightness(), out=out, summary=str(summary))
    assert Path(out) in watched.files
    assert (summary / "summary.csv").is_file()


def test_a_video_of_enormous_frames_is_refused_before_they_are_decoded(
    camera: type[Camera], tmp_path: Path
) -> None:
    camera.get = lambda self, fact: 20_000  # type: ignore[method-assign]
    (tmp_path / "f.avi").touch()
    with pytest.raises(DataError, match="20000x20000 pixels are more than"):
        watch(tmp_path / "f.avi", Brightness())


def test_opencv_and_ffmpeg_say_nothing_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "f.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(99))
    film = written(tmp_path / "f.avi", moving(), codec="MJPG")
    film.write_bytes(film.read_bytes()[:-9999])
    done = alone(
        f"for source in (Path({str(tmp_path / 'f.mp4')!r}), Path({str(film)!r}), 99):\n"
        "  with contextlib.suppress(DataError): predict_video(source, mean)"
    )
    assert done.returncode == 0
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 0}, "every 0 frames"),
        ({"smooth": -1.0}, r"smoothing over -1\.0 seconds"),
        ({"smooth": float("nan")}, "smoothing over nan seconds"),
        ({"out": Path("faces.xlsx")}, r"faces\.xlsx: .*\.csv, \.jsonl"),
        ({"out": Path("film.mp4")}, "is the video itself"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_read(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        watch(Path("film.mp4"), Brightness(), **given)


# The camera, which is a fake one: no real one could be tried


def test_a_camera_is_watched_until_it_gives_no_more(camera: type[Camera], tmp_path: Path) -> None:
    camera.pause = 0.02
    watched = watch(0, Brightness(), out=tmp_path / "f.csv")
    rows = rows_of(tmp_path / "f.csv")
    assert [int(row["frame"]) for row in rows] == list(range(5))
    times = [float(row["time"]) for row in rows]
    assert times[0] == 0
    assert (np.diff(times) >= 0.019).all()  # of the clock: a camera has no container
    (note,) = watched.notes
    assert note.startswith("camera 0: gave no more pictures after second")


def test_ctrl_c_ends_a_camera_and_everything_is_complete(
    camera: type[Camera], tmp_path: Path
) -> None:
    camera.pictures, camera.pause = 10**9, 0.001
    watched = watch(
        0, Interrupting(KeyboardInterrupt()), out=tmp_path / "f.csv", summary=tmp_path / "s"
    )
    assert len(rows_of(tmp_path / "f.csv")) == watched.chosen > 0
    (row,) = rows_of(tmp_path / "s" / "summary.csv")
    assert int(row["frames"]) == watched.chosen
    assert not any("gave no more" in note for note in watched.notes)


def test_a_camera_that_is_faster_than_the_model_loses_its_oldest_pictures(
    camera: type[Camera], tmp_path: Path
) -> None:
    camera.pictures = 500

    class Slow(Brightness):
        def predict(self, images: Sequence[np.ndarray], **_: Any) -> list[list[Face]]:
            time.sleep(0.3)
            return super().predict(images)

    watched = watch(0, Slow(), out=tmp_path / "f.csv")
    numbers = [int(row["frame"]) for row in rows_of(tmp_path / "f.csv")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 499
    assert watched.dropped == 500 - len(numbers) > 0
    assert any(f"{watched.dropped} of 500 pictures" in note for note in watched.notes)


def test_a_camera_in_use_is_named_as_such(camera: type[Camera]) -> None:
    camera.pictures = 0
    with pytest.raises(DataError, match="camera 2: is there and gives no picture: another program"):
        watch(2, Brightness())


@pytest.mark.parametrize("number", [-1, 99999999999])
def test_a_number_that_no_camera_has_is_refused(number: int) -> None:
    with pytest.raises(DataError, match="give 0 to 99"):
        watch(number, Brightness())


def test_a_camera_that_is_not_there_is_named(camera: type[Camera]) -> None:
    camera.opens = False
    with pytest.raises(DataError, match=r"camera 77: .*there is none"):
        watch(77, Brightness())


def test_a_grey_camera_is_watched_too(camera: type[Camera]) -> None:
    camera.retrieve = lambda self: (True, np.full((48, 64), 9, np.uint8))  # type: ignore
    assert watch(0, Brightness()).chosen > 0
