"""`mien predict`: what goes in, where the answers go, and how an interrupted one goes on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from mien.cli import main
from mien.inference import Classifier, Face, answers, load, outputs, pictures, rows
from mien.inference.pictures import Picture, decoded, listed
from mien.inference.rows import Rows
from mien.runs.atomic import instead_of_earlier, write_text

CLASSES = ("calm", "glad")


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


class Terminal(io.StringIO):
    """A terminal that remembers what was shown."""

    def isatty(self) -> bool:
        return True


def predict(*words: object, stdin: bytes = b"", err: io.StringIO | None = None) -> Done:
    """Run `mien predict` in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), err or io.StringIO()
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["mien", "predict", *map(str, words)])
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        patch.undo()
    out.flush()
    return Done(int(code or 0), out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[call-overload,attr-defined]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()[:320]


@pytest.fixture
def photos(astronaut: np.ndarray) -> Path:
    """A folder with two faces, no face, and one that is no picture."""
    folder = Path("photos")
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(astronaut).save(folder / "a.png")
    Image.fromarray(np.zeros((90, 90), np.uint8)).save(folder / "b.png")
    Image.fromarray(astronaut[:, ::-1]).save(folder / "sub" / "c.png")
    (folder / "notes.txt").write_text("not asked for")
    (folder / "._a.png").write_text("what a Mac leaves behind")
    return folder


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_photo_is_answered_in_a_line_that_says_where_and_by_what(photos: Path) -> None:
    done = predict(photos / "a.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.png: happy 9")
    assert "next: mien predict" in done.stdout
    assert "detector: cascade; `mien fetch detector` brings a better one" in done.stderr


def test_a_folder_within_that_of_the_copies_is_annotated_too(photos: Path) -> None:
    done = predict(photos, "--detector", "none", "--out", ".")
    assert "3 images" in done.stdout
    assert Path("a.png").is_file()


def test_a_folder_becomes_a_table_with_a_row_a_face_and_one_where_there_is_none(
    photos: Path,
) -> None:
    done = predict(photos, "--out", "new/faces.csv")
    assert done.returncode == 0, done.stderr
    found = table("new/faces.csv")
    assert [(row["image"], row["label"], row["faces"]) for row in found] == [
        ("photos/a.png", "happy", "1"),
        ("photos/b.png", "", "0"),
        ("photos/sub/c.png", "happy", "1"),
    ]
    model = load()
    (face,) = model.predict(photos / "a.png")
    assert [int(found[0][key]) for key in ("x", "y", "width", "height")] == list(face.box)  # type: ignore[union-attr]
    for name in model.classes:
        assert float(found[0][name]) == pytest.approx(face.probabilities[name], abs=1e-4)  # type: ignore[union-attr]
    assert (found[0]["detection"], found[0]["known"]) == ("1.0000", "true")


def test_crops_are_taken_as_they_are_without_a_detector(photos: Path) -> None:
    predict(photos / "b.png", "--detector", "none", "--out", "crops.csv", "--min-probability", "1")
    (row,) = table("crops.csv")
    assert [row[key] for key in ("x", "y", "width", "height")] == ["0", "0", "90", "90"]
    assert (row["detection"], row["known"], row["faces"]) == ("", "false", "1")
    assert "crops; known from 1" in row["model"]
    assert "2 views" in row["model"]
    predict(photos / "b.png", "--detector", "none", "--out", "one.csv", "--views", "1")
    (row,) = table("one.csv")
    assert "views" not in row["model"]


def test_json_lines_come_from_standard_input_to_standard_output(photos: Path) -> None:
    done = predict("-", "--json", "--largest", stdin=(photos / "a.png").read_bytes())
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert row["image"] == "-"
    assert row["faces"][0]["label"] == "happy"
    assert sum(row["faces"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    refused = predict("-", "--json", stdin=b"no picture")
    assert (refused.returncode, refused.stdout) == (1, "")


def test_json_lines_name_a_picture_as_it_was_given_and_packaged_is_the_model(photos: Path) -> None:
    done = predict(photos / "a.png", "--json", "--run", "packaged", "--views", 1)
    row = json.loads(done.stdout)
    assert row["image"] == str(photos / "a.png")
    assert row["model"].startswith(load(views=1).name)


def test_the_same_command_again_goes_on_where_it_was(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    decode = pictures.decode

    def noted(source: Path, name: str) -> np.ndarray:
        asked.append(name)
        return decode(source, name)

    monkeypatch.setattr(pictures, "decode", noted)
    for out in ("faces.csv", "faces.jsonl"):
        assert predict(photos, "--out", out).returncode == 0
        whole = Path(out).read_bytes()
        last = whole[:-1].rindex(b"\n") + 1
        Path(out).write_bytes(whole[: last + 20])  # killed in the middle of the third picture
        asked.clear()
        again = predict(photos, "--out", out)
        assert again.returncode == 0, again.stderr
        assert asked == ["photos/sub/c.png"]
        assert "goes on after the 2 pictures" in again.stderr
        assert "20 bytes of a torn last row are cut off" in again.stderr
        assert Path(out).read_bytes() == whole
        asked.clear()
        assert "0 images" in predict(photos, "--out", out).stdout
        assert asked == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.csv", "my notes, and nobody else has them"),
        ("notes.jsonl", '{"mine": "and nobody else has them"}'),
        ("notes.jsonl", "\x00\x01"),
    ],
)
def test_a_file_that_is_somebody_elses_is_left_as_it_is(
    photos: Path, name: str, content: str
) -> None:
    Path(name).write_text(content)  # in one line that does not end
    done = predict(photos, "--out", name)
    assert done.returncode == 1
    assert "is no table of `mien predict`" in done.stderr
    assert Path(name).read_text() == content


@pytest.mark.parametrize("name", ["faces.csv", "faces.jsonl"])
def test_a_table_that_was_torn_in_its_first_line_begins_again(photos: Path, name: str) -> None:
    assert predict(photos, "--out", name).returncode == 0
    whole = Path(name).read_bytes()
    Path(name).write_bytes(whole[:7])
    assert "7 bytes of a torn last row" in predict(photos, "--out", name).stderr
    assert Path(name).read_bytes() == whole


def test_a_blank_line_costs_no_row_and_a_strange_one_is_named(photos: Path) -> None:
    assert predict(photos, "--out", "faces.csv").returncode == 0
    lines = Path("faces.csv").read_text().splitlines(keepends=True)
    (photos / "b.png").unlink()  # its row could not be made again
    Path("faces.csv").write_text("".join([*lines[:2], "\n", *lines[2:]]))
    assert "0 images" in predict(photos, "--out", "faces.csv").stdout
    assert [row["image"] for row in table("faces.csv")][1] == "photos/b.png"
    strange = "".join([*lines[:2], "a, b\n", *lines[2:]])
    Path("faces.csv").write_text(strange)
    done = predict(photos, "--out", "faces.csv")
    assert (done.returncode, "line 3 is no row of it" in done.stderr) == (1, True)
    assert Path("faces.csv").read_text() == strange


def test_pictures_of_one_name_from_two_folders_are_told_apart_in_a_table(photos: Path) -> None:
    assert predict(photos / "sub", "--out", "faces.csv").returncode == 0
    shutil.move(photos / "sub", "other")
    assert "1 images" in predict("other", "--out", "faces.csv").stdout
    assert [row["image"] for row in table("faces.csv")] == ["photos/sub/c.png", "other/c.png"]
    picture = Path("other/c.png").read_bytes()
    for _ in range(2):  # what comes by a pipe may always be another picture
        assert "1 images" in predict("-", "--out", "piped.csv", stdin=picture).stdout


def test_copies_are_no_input_and_never_take_the_place_of_each_other(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert "3 images" in predict(photos, "--out", photos / "copies").stdout
    for asked in ([f"{photos}/*"], sorted(photos.glob("*[!t]"))):  # by Mien and by a shell
        assert "3 images" in predict(*asked, "--out", photos / "copies", "--skip-bad").stdout
    monkeypatch.chdir(photos / "sub")
    shutil.copy("../a.png", "a.png")
    done = predict("../a.png", "a.png", "--out", "copies")
    assert done.returncode == 1
    assert "would be the copy of both ../a.png and a.png" in done.stderr


def test_a_terminal_is_shown_how_far_it_has_come_where_answers_do_not_say_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")  # rich draws no bar on a dumb one
    counted = "3 pictures"
    assert counted in predict(photos, "--out", tmp_path / "faces.csv", err=Terminal()).stderr
    assert counted not in predict(photos, "--out", tmp_path / "faces2.csv").stderr
    assert counted not in predict(photos, err=Terminal()).stderr


def test_rows_of_different_settings_are_not_mixed(photos: Path) -> None:
    assert predict(photos, "--out", "faces.csv").returncode == 0
    before = Path("faces.csv").read_bytes()
    refused = predict(photos, "--out", "faces.csv", "--largest")
    assert refused.returncode == 1
    assert "was made otherwise" in refused.stderr
    Path("other.csv").write_text("name,age\nA,3\n")
    assert "its columns are others" in predict(photos, "--out", "other.csv").stderr
    assert Path("faces.csv").read_bytes() == before


def test_a_bad_picture_ends_it_with_what_came_before_kept_or_is_left_out(photos: Path) -> None:
    (photos / "b2.jpg").write_text("this is no picture")
    refused = predict(photos, "--out", "faces.csv")
    assert refused.returncode == 1
    assert "error: photos/b2.jpg: not an image" in refused.stderr
    first = ["photos/a.png", "photos/b.png"]
    assert [row["image"] for row in table("faces.csv")] == first
    done = predict(photos, "--out", "faces.csv", "--skip-bad")
    assert done.returncode == 0
    assert "left out 1 unreadable files" in done.stderr
    assert [row["image"] for row in table("faces.csv")] == [*first, "photos/sub/c.png"]


def test_annotated_copies_go_into_a_folder_or_one_into_a_file(photos: Path) -> None:
    assert predict(photos, "--out", "copies").returncode == 0
    assert sorted(str(p.relative_to("copies")) for p in Path("copies").rglob("*.png")) == [
        "a.png",
        "b.png",
        "sub/c.png",
    ]
    assert predict(photos / "a.png", "--out", "one.jpg").returncode == 0
    with Image.open("one.jpg") as copy, Image.open(photos / "a.png") as original:
        assert copy.size == original.size
        assert np.abs(np.asarray(copy, int) - np.asarray(original)).max() > 100
    before = (photos / "a.png").read_bytes()
    assert "is the picture itself" in predict(photos / "a.png", "--out", photos / "a.png").stderr
    assert (photos / "a.png").read_bytes() == before
    assert "there are several" in predict(photos, "--out", "two.png").stderr
    assert not Path("two.png").exists()


def test_copies_take_the_place_of_older_copies_and_of_nothing_else(photos: Path) -> None:
    for _ in range(2):
        assert predict(photos / "a.png", "--out", "copies").returncode == 0
    mine = photos / "c.png"  # another picture than that of this name in the folder below
    mine.write_bytes((photos / "a.png").read_bytes())
    before = mine.read_bytes()
    done = predict(photos / "sub", "--out", photos)
    assert (done.returncode, "no copy of ours" in done.stderr) == (1, True)
    assert mine.read_bytes() == before


def test_copies_and_the_tables_of_a_report_in_one_folder_leave_each_other_alone(
    photos: Path,
) -> None:
    assert predict(photos / "a.png", "--out", "both").returncode == 0
    with instead_of_earlier(Path("both"), ["table.md"]):
        write_text(Path("both/table.md"), "a table")
    assert Path("both/a.png").exists()
    assert predict(photos / "a.png", "--out", "both").returncode == 0
    assert Path("both/table.md").exists()


def test_a_link_to_itself_is_left_out_like_any_bad_picture(photos: Path) -> None:
    (photos / "a0.png").symlink_to("a0.png")
    done = predict(photos, "--skip-bad", "--out", "faces.csv")
    assert done.returncode == 0
    assert "left out 1 unreadable files" in done.stderr
    assert predict(photos / "a0.png", "--out", "copies").returncode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give pictures, a video, or --camera"),
        (["a.jpg", "--camera", "0"], "only one of these"),
        (["a.mp4", "--skip-bad"], "--skip-bad is for pictures"),
        (["a.jpg", "--detector", "none", "--largest"], "leave it out with none"),
        (["photos/*.tiff"], "there is no such file"),
        (["empty"], "no picture found; a folder's end in .jpg"),
        (["photos", "--out", "-"], "without --out, answers go to standard output"),
        (["photos", "--out", "faces.xlsx"], "answers are written as"),
        (["photos", "--smooth", "3"], "are for a video or a camera"),
        (["photos", "--views", "3"], "the packaged model has 2 or 1"),
        (["photos", "--detector", "mtcnn"], "there is no detector 'mtcnn'"),
        (["photos", "--detector", "mtcnn"], "or none where each picture is a crop"),
        (["a.mp4", "photos"], "a.mp4: is a video; give each to a call of its own"),
        (["photos", "--detector-model", "x.onnx"], "say whose file this is"),
    ],
)
def test_what_cannot_be_is_one_line(photos: Path, words: list[str], told: str) -> None:
    Path("empty").mkdir()
    done = predict(*words)
    assert done.returncode == 1
    assert told in done.stderr
    assert sorted(p.name for p in Path().iterdir()) == ["empty", "photos"]


def test_a_picture_that_is_too_large_is_one_line(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    done = predict(tmp_path / "large.png")
    assert done.returncode == 1
    assert "more than the 80 million pixels" in done.stderr.splitlines()[-1]
    assert not [warning for warning in recwarn.list if "exceeds limit" in str(warning.message)]


def test_pictures_of_a_folder_are_listed_by_name_and_of_several_sources_by_path(
    photos: Path,
) -> None:
    assert [p.name for p in listed([photos])] == ["a.png", "b.png", "sub/c.png"]
    expected = [str(photos / name) for name in ("sub/c.png", "a.png", "b.png")]
    assert [p.name for p in listed([photos / "sub", photos])] == expected  # none of them twice
    assert [p.name for p in listed(["photos/**/*.png"])] == [expected[1], expected[2], expected[0]]


def test_linked_folders_are_looked_into_and_what_cannot_be_read_is_no_silent_lack(
    photos: Path,
) -> None:
    Path("else").mkdir()
    shutil.copy(photos / "b.png", "else/d.png")
    (photos / "linked").symlink_to("../else", target_is_directory=True)
    (photos / "sub" / "round").symlink_to("..", target_is_directory=True)
    expected = ["a.png", "b.png", "linked/d.png", "sub/c.png"]
    assert [p.name for p in listed([photos])] == expected
    (photos / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    done = predict(photos, "--out", "faces.csv")
    assert (done.returncode, "phone.HEIC" in done.stderr) == (1, True)
    assert "4 images" in predict(photos, "--out", "all.csv", "--skip-bad").stdout


def test_few_large_pictures_wait_decoded_and_many_small_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "BYTES", 1000)
    monkeypatch.setattr(pictures.os, "cpu_count", lambda: 1)
    sides = [10] * 30 + [20] * 30
    monkeypatch.setattr(
        pictures, "decode", lambda source, *_: np.zeros((int(source), int(source)), np.uint8)
    )
    given = 0

    def coming() -> Iterator[Picture]:
        nonlocal given
        for side in sides:
            given += 1
            yield Picture("p", str(side).encode())

    ahead = [given - n for n, _ in enumerate(decoded(coming()), 1)]
    assert max(ahead[1:25]) > 2  # small ones
    assert max(ahead[45:]) <= 2  # large ones: one a worker


def test_names_may_hold_any_line_break(tmp_path: Path) -> None:
    face = Face((1, 2, 3, 4), "glad", {"calm": 0.25, "glad": 0.75}, 0.5)
    names = ["a\rb.png", "a\r\nb.png", "a\nb.png", 'a"\r".png', "plain.png"]
    with Rows(tmp_path / "a.csv", CLASSES, "m") as kept:
        for name in names:
            kept.add(name, [face])
    again = Rows(tmp_path / "a.csv", CLASSES, "m")
    assert (again.done, again.cut) == (set(names), 0)


def test_two_that_begin_one_table_at_once_do_not_mix(tmp_path: Path) -> None:
    face = Face((1, 2, 3, 4), "glad", {"calm": 0.25, "glad": 0.75}, 0.5)
    with Rows(tmp_path / "a.csv", CLASSES, "m") as first, Rows(first.out, CLASSES, "m") as second:
        first.add("one.png", [face])
        whole = first.out.read_bytes()
        with pytest.raises(rows.RunError, match="something else writes to it"):
            second.add("two.png", [face])
        assert first.out.read_bytes() == whole


def test_a_full_disk_leaves_whole_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = Face((1, 2, 3, 4), "glad", {"calm": 0.25, "glad": 0.75}, 0.5)
    with Rows(tmp_path / "a.csv", CLASSES, "m") as kept:
        kept.add("one\nline.png", [face, face])
        whole = (tmp_path / "a.csv").read_bytes()

        write = os.write

        def until_full(file: int, content: bytes) -> int:
            if len(content) < 30:
                raise OSError(28, "No space left on device")
            return write(file, content[:-20])

        monkeypatch.setattr(rows.os, "write", until_full)
        with pytest.raises(rows.RunError, match="No space left"):
            kept.add("two.png", [face])
        monkeypatch.undo()
    assert (tmp_path / "a.csv").read_bytes() == whole
    again = Rows(tmp_path / "a.csv", CLASSES, "m")
    assert (again.done, again.cut) == ({"one\nline.png"}, 0)
    # Of two faces only the first was written: the picture is asked about again.
    (tmp_path / "a.csv").write_bytes(whole[: whole.rindex(b'"one')])
    torn = Rows(tmp_path / "a.csv", CLASSES, "m")
    assert torn.done == set()
    assert torn.cut > 0


def test_more_pictures_than_a_batch_are_answered_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BATCH", 4)
    for level in range(10):
        pixels = np.full((50, 50 + level), 20 * level, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{level}.png")
    model: Classifier = load(detector="none")
    found = list(answers.answers(listed([tmp_path]), model))
    assert [answer.faces[0].box[2] for answer in found] == list(range(50, 60))
    assert outputs.as_text(found[0]).startswith("0.png: ")
