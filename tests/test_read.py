"""Folders, zips and tables read as the same set; bad input named."""

from __future__ import annotations

import csv
import io
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.data import CLASSES, FaceSet, layout, read
from mien.data.layout import natural
from mien.data.official import COUNTS
from mien.data.read import read_to_store
from mien.errors import DataError


def pixels(number: int, size: int = 48) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size, size), np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def kaggle(root: Path) -> Path:
    """A small folder in the layout of the Kaggle release, with lossless files."""
    number = 0
    for split, folder in (("Training", "train"), ("PublicTest", "test"), ("PrivateTest", "test")):
        for name in CLASSES:
            for _ in range(2):
                write(root / folder / name / f"{split}_{number}.png", pixels(number))
                number += 1
    return root


def classes(root: Path, names=("happy", "sad"), per_class: int = 3, size: int = 48) -> Path:
    for number, name in enumerate(names):
        for image in range(per_class):
            write(root / name / f"{image}.png", pixels(100 * number + image, size))
    return root


def zipped(folder: Path, top: str = "") -> Path:
    path = folder.with_name(f"{folder.name}-{top.replace('/', '-')}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._x.png", b"junk")
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, Path(top) / file.relative_to(folder))
    return path


def table(path: Path, faces: FaceSet, header=("emotion", "pixels", "Usage")) -> Path:
    cells = {
        "emotion": [str(label) for label in faces.labels],
        "pixels": [" ".join(map(str, image.ravel())) for image in faces.images],
        "usage": list(faces.split),
    }
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(header)
        out.writerows(zip(*(cells[name.strip().lower()] for name in header), strict=True))
    return path


def edit_row(path: Path, number: int, **cells: str) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[number].update(cells)
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, rows[0].keys())
        out.writeheader()
        out.writerows(rows)


def same(one: FaceSet, other: FaceSet) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.split, other.split)
    np.testing.assert_array_equal(one.groups, other.groups)
    assert one.classes == other.classes
    assert one.fingerprint == other.fingerprint


def test_the_kaggle_folder_is_told_apart_by_file_names(tmp_path):
    faces = read(kaggle(tmp_path / "fer"))
    assert faces.splits == ("Training", "PublicTest", "PrivateTest")
    assert faces.classes == CLASSES
    assert faces.images.shape == (42, 48, 48)
    for split in faces.splits:
        np.testing.assert_array_equal(faces[split].counts(), [2] * 7)
    for image, name, label in zip(faces.images, faces.names, faces.labels, strict=True):
        number = int(name.split("_")[1].split(".")[0])
        np.testing.assert_array_equal(image, pixels(number))
        assert label == number % 14 // 2


def test_folder_zip_and_both_tables_give_the_same_set(tmp_path):
    folder = kaggle(tmp_path / "fer")
    faces = read(folder)
    same(read(zipped(folder)), faces)
    same(read(zipped(folder, top="archive/fer2013")), faces)
    same(read(table(tmp_path / "fer2013.csv", faces)), faces)
    stray = table(tmp_path / "icml_face_data.csv", faces, ("emotion", " Usage", " pixels"))
    same(read(stray), faces)
    np.testing.assert_array_equal(read(zipped(folder)).names, faces.names)


def test_a_folder_that_holds_only_the_table_is_the_table(tmp_path):
    faces = read(kaggle(tmp_path / "fer"))
    (tmp_path / "unpacked").mkdir()
    table(tmp_path / "unpacked" / "fer2013.csv", faces)
    same(read(tmp_path / "unpacked"), faces)


def test_a_flat_folder_of_private_images_is_a_split_without_labels(tmp_path):
    root = kaggle(tmp_path / "fer")
    (root / "private").mkdir()
    for path in list((root / "test").rglob("PrivateTest_*")):
        shutil.move(path, root / "private" / path.name)
    faces = read(root)
    assert faces.splits == ("Training", "PublicTest", "PrivateTest")
    assert (faces["PrivateTest"].labels == -1).all()
    assert len(faces["PrivateTest"]) == 14
    assert any("PrivateTest: 14 images are without labels" in note for note in faces.notes)
    alone = read(root / "private")
    assert alone.splits == ("PrivateTest",)
    assert alone.classes == CLASSES


def test_an_empty_emotion_in_a_table_is_a_label_kept_back(tmp_path):
    path = table(tmp_path / "fer2013.csv", read(kaggle(tmp_path / "fer")))
    edit_row(path, 41, emotion="")
    faces = read(path)
    assert faces.labels[41] == -1
    assert (faces.labels[:41] >= 0).all()


def test_one_image_with_and_without_its_label_is_a_double(tmp_path):
    root = kaggle(tmp_path / "fer")
    file = next((root / "test" / "happy").glob("PrivateTest_*"))
    write(root / "private" / file.name, pixels(1))
    with pytest.raises(DataError, match=f"{file.name} stands twice"):
        read(root)


def test_two_official_images_of_one_name_are_named_by_their_path(tmp_path):
    # The real release has two such pairs, of different pixels and labels.
    root = kaggle(tmp_path / "fer")
    write(root / "train/sad/Training_7.png", pixels(1000))
    write(root / "train/angry/Training_7.png", pixels(1001))
    (root / "train/happy/Training_7.png").unlink()
    names = set(read(root).names)
    assert {"train/sad/Training_7.png", "train/angry/Training_7.png"} <= names
    assert len(names) == 43


@pytest.mark.parametrize(
    "names",
    [
        ("Anger", "DISGUST", "Fear", "Happiness", "Sadness", "Surprise", "Neutral"),
        ("angry", "disgusted", "afraid", "joy", "sad", "surprised", "neutral"),
        ("angry", "disgust", "fearful", "happy", "sad", "surprise", "neutral"),
        ("0", "1", "2", "3", "4", "5", "6"),
    ],
)
def test_other_names_of_the_seven_get_the_official_numbers(tmp_path, names):
    faces = read(classes(tmp_path / "set", names, per_class=1))
    assert faces.classes == CLASSES
    order = [
        int(np.flatnonzero((faces.images == pixels(100 * n)).all((1, 2)))[0]) for n in range(7)
    ]
    np.testing.assert_array_equal(faces.labels[order], np.arange(7))


def test_some_of_the_seven_keep_their_official_order_and_are_all_the_classes(tmp_path):
    faces = read(classes(tmp_path / "set", ("sadness", "happiness")))
    assert faces.classes == ("happy", "sad")
    absent = "angry, disgust, fear, surprise, neutral"
    assert f"no image of {absent}: these are no classes of the set" in faces.notes
    np.testing.assert_array_equal(faces.counts(), [3, 3])
    np.testing.assert_array_equal(faces.images[:3], [pixels(100 + n) for n in range(3)])


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("7", "2", "3", "1", "5", "6", "4"), "1234567"),  # RAF-DB
        (("10", "9", "2"), ("2", "9", "10")),
        (("happy", "contempt", "sad"), ("contempt", "happy", "sad")),
    ],
)
def test_other_classes_keep_names_and_natural_order(tmp_path, names, order):
    faces = read(classes(tmp_path / "set", names, per_class=1))
    assert faces.classes == tuple(order)
    assert any("not those of FER-2013" in note for note in faces.notes)
    for number, name in enumerate(names):
        at = int(np.flatnonzero((faces.images == pixels(100 * number)).all((1, 2)))[0])
        assert faces.classes[faces.labels[at]] == name


def test_splits_of_a_general_folder_keep_their_names(tmp_path):
    for split in ("test", "valid", "train"):
        classes(tmp_path / "set" / split)
    faces = read(tmp_path / "set")
    assert faces.splits == ("train", "valid", "test")
    assert len(set(faces.names)) == 18
    assert faces.names[0] == "train/happy/0.png"


def test_one_name_in_two_forms_of_unicode_is_one_class(tmp_path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        folder = tmp_path / split / unicodedata.normalize(form, "Très heureux")
        folder.mkdir(parents=True)
        Image.new("L", (8, 8), 9 if form == "NFC" else 90).save(folder / "1.png")
    assert read(tmp_path).classes == (unicodedata.normalize("NFC", "Très heureux"),)


def test_files_sort_as_a_person_counts():
    assert layout._classes({"b", "B", "01", "1"})[0] == ("B", "b", "01", "1"), "by no hash"
    assert sorted(["b10", "B9", "a100", "a"], key=natural) == ["a", "a100", "B9", "b10"]


def test_pictures_of_one_size_keep_it(tmp_path):
    assert read(classes(tmp_path / "set", size=30)).images.shape == (6, 30, 30)
    assert read(tmp_path / "set", size=64).images.shape == (6, 64, 64)


def test_pictures_of_mixed_sizes_get_the_median_of_their_longer_sides(tmp_path):
    root = classes(tmp_path / "set", size=60)
    write(root / "happy" / "wide.png", np.full((20, 100), 200, np.uint8))
    faces = read(root)
    assert faces.images.shape == (7, 60, 60)
    wide = faces.images[list(faces.names).index("wide.png")]
    assert (wide[24:36] == 200).all()
    assert (wide[:24] == 0).all()
    assert (wide[36:] == 0).all()
    for number, size in enumerate((900, 700, 800, 900, 800, 900, 900, 900)):
        write(root / "sad" / f"large{number}.png", np.zeros((size, 10), np.uint8))
    assert read(root).size == 224


def test_one_colour_picture_makes_a_set_colour_and_equal_channels_do_not(tmp_path):
    root = classes(tmp_path / "set")
    write(root / "happy" / "grey.png", np.repeat(pixels(5)[..., None], 3, -1))
    grey = read(root)
    assert grey.channels == 1
    write(root / "happy" / "colour.png", np.stack([pixels(6), pixels(7), pixels(8)], -1))
    colour = read(root)
    assert colour.images.shape == (8, 48, 48, 3)
    np.testing.assert_array_equal(
        colour.images[list(colour.names).index("grey.png")], np.repeat(pixels(5)[..., None], 3, -1)
    )
    assert read(root, channels=1).images.shape == (8, 48, 48)
    assert read(classes(tmp_path / "grey"), channels=3).images.shape == (6, 48, 48, 3)


def test_the_same_set_is_read_by_one_thread_and_by_several(tmp_path):
    root = classes(tmp_path / "set", per_class=4, size=200)  # noise: above the small-file bound
    assert (root / "happy/0.png").stat().st_size > 16_384
    faces = read(root)
    for image, name, label in zip(faces.images, faces.names, faces.labels, strict=True):
        number = int(name.split("/")[1][0]) + 100 * (faces.classes[label] == "sad")
        np.testing.assert_array_equal(image, pixels(number, 200))


def test_hidden_and_foreign_files_are_no_images(tmp_path):
    root = classes(tmp_path / "set")
    (root / "happy" / ".hidden.png").write_bytes(b"x")
    (root / "readme.txt").write_text("x")
    write(root / "sample.png", pixels(0))
    faces = read(root)
    assert len(faces) == 6
    assert any("left out 1 images" in note for note in faces.notes)


def test_differences_from_the_official_counts_are_notes(tmp_path):
    notes = read(kaggle(tmp_path / "fer")).notes
    training = next(note for note in notes if note.startswith("Training differs"))
    assert "7,213 fewer (2, officially 7,215) happy" in training


def test_the_official_counts_are_those_of_the_release():
    assert {split: sum(counts) for split, counts in COUNTS.items()} == {
        "Training": 28_709,
        "PublicTest": 3_589,
        "PrivateTest": 3_589,
    }


# Bad input


def damage(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "dot":
        write(path, pixels(0, 1))
    elif kind == "truncated":
        out = io.BytesIO()
        Image.fromarray(pixels(0, 200)).save(out, "JPEG")
        path.write_bytes(out.getvalue()[:5000])
    elif kind == "huge":
        from test_pixels import empty_png

        path.write_bytes(empty_png(20_000, 20_000))


@pytest.mark.parametrize("kind", ["text", "empty", "dot", "truncated", "huge"])
@pytest.mark.parametrize("name", ["0bad.png", "zbad.png"])  # first and last of its class
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_bad_file_is_named_or_skipped_and_counted(tmp_path, kind, name, form):
    root = classes(tmp_path / "set")
    damage(kind, root / "happy" / name)
    source = root if form == "folder" else zipped(root)
    with pytest.raises(DataError, match=f"happy/{name}") as error:
        read(source)
    assert "skip_bad" in str(error.value)
    faces = read(source, skip_bad=True)
    assert len(faces) == 6
    assert any("skipped 1 " in note and name in note for note in faces.notes)
    assert (faces.images.reshape(6, -1).max(1) > 0).all()


def test_bad_files_among_mixed_sizes_are_skipped_too(tmp_path):
    root = classes(tmp_path / "set")
    write(root / "happy" / "large.png", pixels(1, 96))
    damage("truncated", root / "sad" / "bad.png")
    with pytest.raises(DataError, match=r"sad/bad\.png"):
        read(root)
    faces = read(root, skip_bad=True)
    assert len(faces) == 7
    assert faces.size == 48


def test_a_folder_of_bad_files_only_is_an_error_in_any_case(tmp_path):
    (tmp_path / "set" / "happy").mkdir(parents=True)
    damage("text", tmp_path / "set" / "happy" / "a.jpg")
    with pytest.raises(DataError, match="none of its images"):
        read(tmp_path / "set", skip_bad=True)
    with pytest.raises(DataError, match="none of its images"):
        read(tmp_path / "set", size=48, channels=1, skip_bad=True)


def test_an_empty_class_folder_is_named(tmp_path):
    root = classes(tmp_path / "set")
    (root / "fear").mkdir()
    (root / "logs").mkdir()  # no class of this set
    with pytest.raises(DataError, match="no image in the class folder fear;"):
        read(root)
    assert any("fear" in note for note in read(root, skip_bad=True).notes)


def test_a_class_missing_from_one_split_is_named(tmp_path):
    classes(tmp_path / "set" / "train", ("happy", "sad", "fear"))
    classes(tmp_path / "set" / "test", ("happy", "sad"))
    with pytest.raises(DataError, match="no image of class 'fear' in split 'test'"):
        read(tmp_path / "set")
    assert len(read(tmp_path / "set", skip_bad=True)) == 15


def test_a_folder_without_images_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"no images in it; expected <split>/<class>"):
        read(tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "a.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.tar: is no folder, \.zip or \.csv"):
        read(tmp_path / "a.tar")


def test_files_below_a_class_are_refused(tmp_path):
    classes(tmp_path / "set" / "train")
    write(tmp_path / "set" / "train" / "happy" / "person1" / "a.png", pixels(0))
    with pytest.raises(DataError, match=r"person1/a\.png lies deeper"):
        read(tmp_path / "set")


def test_folders_of_people_within_classes_are_not_taken_for_classes_within_splits(tmp_path):
    for place in ("Anger/S01", "happy/S01", "happy/S02"):
        write(tmp_path / "set" / place / "a.png", pixels(0))
    with pytest.raises(DataError, match=r"Anger, happy are classes and hold folders, such as S01"):
        read(tmp_path / "set")
    for place in ("happy/angry", "happy/sad"):  # a split of any name, with classes within
        write(tmp_path / "other" / place / "a.png", pixels(0))
    assert read(tmp_path / "other").classes == ("angry", "sad")


def test_a_damaged_zip_is_named(tmp_path):
    path = zipped(classes(tmp_path / "set"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"set-\.zip: not a readable zip"):
        read(path)


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    path = zipped(classes(tmp_path / "set"))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("sad/1.png")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"sad/1\.png: cannot be unpacked"):
        read(path)
    assert len(read(path, skip_bad=True)) == 5


def test_a_zip_with_backslashes_between_its_folders_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train\\happy\\a.png", b"1")
    with pytest.raises(DataError, match=r"set\.zip: has \\ between its folders"):
        read(path)


def test_a_link_that_leads_to_itself_is_named(tmp_path):
    root = classes(tmp_path / "set")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(DataError, match=r"loop: cannot be read .*remove it"):
        read(root)


@pytest.mark.parametrize("name", ["val", "dev", "public", "zz"])
@pytest.mark.parametrize("given", ["relative", "absolute"])
def test_a_linked_split_hides_no_other(tmp_path, monkeypatch, name, given):
    for split in ("train", "test"):
        classes(tmp_path / "set" / split)
    (tmp_path / "set" / name).symlink_to("test", target_is_directory=True)
    (tmp_path / "set" / "train" / "sad" / "round").symlink_to("..", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    faces = read("set" if given == "relative" else tmp_path / "set")
    assert set(faces.splits) == {"train", "test", name}
    assert len(faces) == 18


def test_fer_2013_divided_anew_is_divided_by_its_folders(tmp_path):
    number = 0
    for split, count in (("train", 6), ("validation", 3), ("test", 3)):
        for name in CLASSES:
            for _ in range(count):
                write(tmp_path / split / name / f"Training_{number}.png", pixels(number))
                number += 1
    faces = read(tmp_path)
    assert {s: int((faces.split == s).sum()) for s in faces.splits} == {
        "train": 42, "validation": 21, "test": 21
    }  # fmt: skip
    assert len(faces.notes) == 1
    assert "the folders divide them otherwise" in faces.notes[0]


def test_one_image_astray_does_not_divide_fer_2013_anew(tmp_path):
    kaggle(tmp_path)
    (tmp_path / "train/happy").joinpath("Training_6.png").rename(
        tmp_path / "test/happy/Training_6.png"
    )
    assert set(read(tmp_path).splits) == {"Training", "PublicTest", "PrivateTest"}


def test_a_name_that_is_no_utf8_is_written_in_another_way(tmp_path):
    root = classes(tmp_path / "set")
    os.rename(root / "sad" / "1.png", os.fsencode(root / "sad") + b"/caf\xe9.png")
    assert "caf\\xe9.png" in read(root).names
    for split in (b"train", b"t\xe9st"):
        shutil.copytree(root, os.fsdecode(os.fsencode(tmp_path / "two") + b"/" + split))
        os.rename(
            *(os.fsencode(tmp_path / "two") + b"/" + split + to for to in (b"/sad", b"/\xe9"))
        )
    two = read(tmp_path / "two")
    assert two.classes == ("happy", "\\xe9")
    assert two.splits == ("train", "t\\xe9st")


def test_a_picture_beside_the_classes_is_left_out_in_an_outer_folder_too(tmp_path):
    root = classes(tmp_path / "outer" / "set")
    write(root / "cover.png", pixels(9))
    for place in (root, tmp_path / "outer"):
        faces = read(place)
        assert (len(faces), faces.labelled) == (6, True)
        assert faces.notes[0].startswith("left out 1 images")


@pytest.mark.parametrize("bad", ["0bad.png", "9bad.png"])
def test_a_damaged_picture_does_not_decide_the_size_of_the_others(tmp_path, bad):
    root = classes(tmp_path / "set", size=32)
    write(root / "happy" / bad, pixels(1, 64))
    damaged = (root / "happy" / bad).read_bytes()
    (root / "happy" / bad).write_bytes(damaged[: len(damaged) // 2])
    assert read(root, skip_bad=True).size == 32
    assert read_to_store(root, tmp_path / "store", skip_bad=True).size == 32


@pytest.mark.parametrize("place", [b"happy", b"PK\1\2"])
def test_a_zip_with_a_damaged_list_of_files_is_named(tmp_path, place):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("happy/\xe9.png", b"1")
    content = bytearray(path.read_bytes())
    if place == b"happy":
        content[content.rindex(place)] = 0xFF
    else:
        content[content.rindex(place) + 6] = 133  # the version that it takes
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set\.zip: not a readable zip"):
        read(path)


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 8, 8, 4), (2, 8)])
def test_images_of_another_shape_are_refused(shape):
    columns = np.array(["a", "b"])
    with pytest.raises(DataError, match=r"uint8 \[N, H, W\]"):
        FaceSet(np.zeros(shape, np.uint8), np.zeros(2, np.int64), ("a",), columns, columns)


def test_a_store_is_written_into_the_home_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    faces = read_to_store("drawn:14", "~/store")
    assert (tmp_path / "store").is_dir()
    np.testing.assert_array_equal(faces.images, read("~/store").images)


def test_a_home_that_nobody_has_and_a_seed_below_nothing_are_refused():
    with pytest.raises(DataError, match="~nobody-of-this-name/faces: is in no user's home"):
        read("~nobody-of-this-name/faces")
    with pytest.raises(DataError, match=r"drawn:30:-1: .*the seed 0 or more"):
        read("drawn:30:-1")


def test_a_zip_with_a_name_twice_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("happy/a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("happy/a.png", b"2")
    with pytest.raises(DataError, match=r"2 files named happy/a\.png"):
        read(path)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"pixels": "1 2 3"}, "3 pixels instead of 2,304"),
        ({"pixels": ""}, "0 pixels instead"),
        ({"pixels": " ".join(["256", *["0"] * 2303])}, "value 256 is outside 0 to 255"),
        ({"pixels": " ".join([*["0"] * 2303, "-1"])}, "value -1 is outside"),
        ({"pixels": " ".join([*["0"] * 2303, "x7"])}, "value 'x7' is not a whole number"),
        ({"pixels": " ".join(["1.5", *["0"] * 2303])}, "value '1.5' is not a whole number"),
        ({"pixels": " ".join(["٣"] * 2304)}, "is not a whole number"),
        ({"emotion": "7"}, "emotion '7' is unknown"),
        ({"emotion": "happy"}, "emotion 'happy' is unknown"),
        ({"Usage": ""}, "Usage is empty"),
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, cells, message):
    faces = read(kaggle(tmp_path / "fer"))
    path = table(tmp_path / "fer2013.csv", faces)
    edit_row(path, 3, **cells)
    with pytest.raises(DataError, match=f"line 5: .*{message}"):
        read(path)
    kept = read(path, skip_bad=True)
    keep = np.arange(42) != 3
    np.testing.assert_array_equal(kept.labels, faces.labels[keep])
    np.testing.assert_array_equal(kept.images, faces.images[keep])
    assert "fer0000003.png" not in kept.names
    assert any("skipped 1 " in note and message in note for note in kept.notes)


def test_a_table_without_pixels_or_rows_is_refused(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column 'pixels'"):
        read(path)
    path.write_text("emotion,pixels,Usage\n")
    with pytest.raises(DataError, match="no usable row"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no column 'pixels'"):
        read(path)


def test_a_table_is_brought_to_another_size(tmp_path):
    path = table(tmp_path / "fer2013.csv", read(kaggle(tmp_path / "fer")))
    assert read(path, size=24).images.shape == (42, 24, 24)
    assert read(path, channels=3).images.shape == (42, 48, 48, 3)


def test_drawn_faces_are_asked_for_by_name():
    faces = read("drawn:14:3", size=32)
    assert (len(faces), faces.size) == (14, 32)
    assert set(faces.origin) == {"drawn"}
    assert read("drawn:14:3").fingerprint != read("drawn:14:4").fingerprint
    assert read("drawn:14", channels=3).images.shape == (14, 48, 48, 3)
    for wrong in ("drawn:x", "drawn:1:2:3", "drawn:0"):
        with pytest.raises(DataError, match=wrong):
            read(wrong)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    root = classes(tmp_path / "set")
    (root / "sad" / "1.png").chmod(0)
    with pytest.raises(DataError, match=r"sad/1\.png: cannot be read"):
        read(root)


@pytest.mark.real
def test_the_real_set_has_the_official_counts(closed):
    faces = read(closed, cache=False)
    assert faces.images.shape == (35_887, 48, 48)
    for split in ("Training", "PublicTest"):
        np.testing.assert_array_equal(faces[split].counts(), COUNTS[split])
    assert (faces["PrivateTest"].labels == -1).all()
    assert len(faces["PrivateTest"]) == 3_589
    assert faces.notes == ("PrivateTest: 3,589 images are without labels",)
    assert len(set(faces.names)) == len(faces)
    assert faces["PublicTest"].stands_in(faces["Training"]).sum() == 280
    assert faces["PrivateTest"].stands_in(faces["Training"]).sum() == 288
