"""`mien evaluate`: which images, whose classes, what is written down, and what is refused."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mien.cli import main
from mien.data import CLASSES, FaceSet, draw_faces, read, roles
from mien.data.class_map import map_classes, read_class_map
from mien.errors import DataError, RunError
from mien.evaluation.corruptions import CORRUPTIONS
from mien.evaluation.openings import read_openings, write_openings
from mien.evaluation.part import part_of
from mien.evaluation.trained import Trained, attention_pairs, open_all, remembered
from mien.export import export_onnx
from mien.inference import load
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit, predict_probabilities

PACKAGED = Path(__file__).parents[1] / "src/mien/inference/fer2013.onnx"
TINY = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=16)


def mien(*words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command in this process."""
    argv, sys.argv = sys.argv, ["mien", *map(str, words)]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = argv
    raise AssertionError("the command line always ends by exiting")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs that differ in attention alone."""
    faces, parts = roles(read("drawn:210", size=24))
    folder = tmp_path_factory.mktemp("runs")
    found = {
        attention: fit(
            TINY.but(attention=attention),
            faces[parts.train],
            faces[parts.validation],
            runs=folder,
            progress="none",
        )
        for attention in ("none", "cbam")
    }
    return {name: run.path for name, run in found.items()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_whole_evaluation_leaves_its_tables_figures_and_tests(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    validation = read("drawn:210", size=24)["validation"]
    table = tmp_path / "groups.csv"
    lines = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(validation.names[:-3])]
    table.write_text("image,device\n" + "\n".join(lines))
    out = tmp_path / "out"
    status, said, err = mien(
        "evaluate", runs["none"], runs["cbam"], "--data", "drawn:210", "--corruptions",
        "--groups", table, "--out", out,
    )  # fmt: skip
    assert status == 0, err
    assert f"groups: 3 of {len(validation)} images are not in" in said
    assert "CBAM loses less accuracy under" in said
    assert not (out / "openings.jsonl").exists()
    accuracy = rows(out / "tables" / "evaluation.csv")
    for row, name in zip(accuracy, ("none", "cbam"), strict=True):
        (model,) = open_all([runs[name]])
        expected = (model.predict_proba(validation.images).argmax(1) == validation.labels).mean()
        assert float(row["accuracy"]) == expected
        assert int(row["images"]) == len(validation)
        assert "validation" in row["context"]
    assert len(rows(out / "tables" / "corruptions.csv")) == 2 * 5 * len(CORRUPTIONS)
    tests = rows(out / "tables" / "attention.csv")
    assert [row["corruption"] for row in tests] == [kind.title for kind in CORRUPTIONS.values()]
    assert tests[0]["models"] == "plain-CBAM (w1/8) minus plain (w1/8)"
    grouped = rows(out / "tables" / "groups.csv")
    of_device = [row for row in grouped if row["grouping"] == "device"]
    assert sum(int(row["images"]) for row in of_device) == 2 * (len(validation) - 3)
    assert {row["grouping"] for row in grouped} == {
        "device", "brightness", "contrast", "sharpness", "left-right asymmetry",
    }  # fmt: skip
    for name in ("corruptions", "groups", "slices"):
        assert (out / "figures" / f"{name}.svg").stat().st_size > 1000
    kept = json.loads((out / "evaluation.json").read_text())
    assert mien("evaluate", runs["none"], "--data", "drawn:210", "--out", out)[0] == 0
    left = {file.name for file in (out / "tables").glob("*.csv")}
    assert not left & {"corruptions.csv", "attention.csv"}
    clean = kept["models"]["plain (w1/8)"]["corruptions"]["clean"]["accuracy"]
    assert clean == float(accuracy[0]["accuracy"])


def test_an_exported_file_says_what_it_is_and_gives_what_it_gives() -> None:
    (model,) = open_all([Path("packaged")])
    assert (model.title, model.single) == ("fer2013", False)  # two views
    assert (model.size, model.channels, model.classes) == (48, 1, CLASSES)
    assert model.trained_on["split"] == ["Training"]
    assert model.recipe is not None
    assert model.recipe.attention == "none"
    images = draw_faces(7).images
    np.testing.assert_array_equal(model.predict_proba(images), load(PACKAGED).predict_proba(images))


def test_what_was_predicted_once_is_taken_from_its_file(tmp_path: Path) -> None:
    faces, asked = draw_faces(7, size=24), []

    def predict_proba(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return np.full((len(images), 7), images.mean(), np.float32)

    first = replace(model(faces, "train"), predict_proba=predict_proba, digest="a")
    images = faces.images
    expected = predict_proba(images)
    for _ in range(2):
        found = remembered(first, tmp_path).predict_proba(images)
        np.testing.assert_array_equal(found, expected)
    assert len(asked) == 2
    remembered(first, tmp_path).predict_proba(images[:3])  # other images
    remembered(replace(first, digest="b"), tmp_path).predict_proba(images)  # other weights
    assert len(asked) == 4
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(remembered(first, tmp_path).predict_proba(images), expected)
    assert len(asked) == 5


def test_models_are_paired_where_cbam_is_all_that_differs() -> None:
    faces = draw_faces(210, size=24)
    bare = model(faces, "train")
    with_cbam = replace(bare, name="c", recipe=TINY.but(attention="cbam", gates="identity"))
    for other in (
        replace(bare, recipe=TINY.but(seed=1)),
        replace(bare, recipe=TINY.but(attention="se")),
        replace(bare, recipe=None),
        replace(bare, single=False),
        model(faces, "validation"),
    ):
        assert attention_pairs([with_cbam, other]) == []
        assert attention_pairs([other, with_cbam, bare]) == [(bare, with_cbam)]


def test_openings_that_are_written_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "openings.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: write_openings(path, "test", "f", [str(run)]), range(40)))
    assert {row["run"] for row in read_openings(path)} == {str(run) for run in range(40)}


def test_an_opening_of_other_images_or_another_run_is_no_second_one(tmp_path: Path) -> None:
    path = tmp_path / "openings.jsonl"
    path.write_text('{"split": "test", "run": "old", "date": "2026-01-01"}\n')  # as a study writes
    assert write_openings(path, "test", "f1", ["a", "b"]) == []
    assert write_openings(path, "test", "f2", ["a"]) == []
    assert write_openings(path, "validation", "f1", ["a"]) == []
    assert len(write_openings(path, "test", "f1", ["a", "c"])) == 1
    assert "2026-01-01" in write_openings(path, "test", "f1", ["old"])[0]
    path.write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        write_openings(path, "test", "f1", ["a"])


def model(faces: FaceSet, split: str, recipe: Recipe = TINY) -> Trained:
    """Something trained on a split of `faces`, that need not predict."""
    part = faces[split]
    noted = {"name": part.name, "split": [split], "fingerprint": part.fingerprint}
    return Trained(
        "m", "m", faces.classes, faces.size, 1, lambda images: np.empty(0), noted, recipe, ""
    )


def test_an_unlabelled_test_split_is_refused_before_anything_is_opened(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    faces = read("drawn:210", size=24)
    for split in faces.splits:
        for face, label, name in zip(
            faces[split].images, faces[split].labels, faces[split].names, strict=True
        ):
            folder = data / split / (CLASSES[label] if split != "test" else "")
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{name}.png"), face)
    status, _, err = mien(
        "evaluate", PACKAGED, "--data", data, "--split", "test", "--out", tmp_path / "out"
    )
    assert status == 1
    assert err.count("\n") == 1
    unlabelled = len(faces["test"])
    assert f"'test': {unlabelled} of {unlabelled} images have no label" in err
    assert "mien predict" in err
    assert not (tmp_path / "out").exists()


def test_images_that_stand_in_the_training_part_are_left_out_and_counted() -> None:
    faces = draw_faces(210, size=24)
    train, held_out = (np.flatnonzero(faces.split == name) for name in ("train", "validation"))
    images = faces.images.copy()
    images[held_out[:4]] = images[train[:4]]
    faces = replace(faces, images=images)
    part = part_of(faces, [model(faces, "train")])
    np.testing.assert_array_equal(part.faces.names, faces.names[held_out[4:]])
    assert (part.name, part.role, part.opened) == ("validation", "validation", None)
    assert part.notes == (
        f"left out 4 of {len(held_out)} images of 'validation', which stand pixel for pixel in a "
        "training part",
    )
    patient = part_of(faces, [model(faces, "train", TINY.but(patience=3))])
    assert patient.role == "validation (chosen on)"
    with pytest.raises(DataError, match=r"'train': all \d+ images stand in a training part"):
        part_of(faces, [model(faces, "train")], "train")
    whole = model(faces, "train")
    fold = part_of(faces, [replace(whole, trained_on={**whole.trained_on, "fingerprint": "x"})])
    assert len(fold.faces) == len(part.faces)
    assert "a part of train, or with other labels" in fold.notes[1]


def test_images_of_the_training_part_of_before_a_set_was_divided_anew_are_left_out() -> None:
    faces = draw_faces(210, size=24)
    before = faces["train"]
    trained = model(faces, "train")
    trained = replace(trained, trained_on={**trained.trained_on, "sketch": before.sketch})
    held_out = np.flatnonzero(faces.split == "validation")
    moved = np.flatnonzero(faces.split == "train")[:5]
    split = faces.split.copy()
    split[held_out[:5]], split[moved] = "train", "validation"
    part = part_of(replace(faces, split=split), [trained])
    np.testing.assert_array_equal(part.faces.names, faces.names[held_out[5:]])


def test_a_model_of_the_set_lifted_is_one_of_the_set() -> None:
    faces = draw_faces(210, size=24)
    part = faces["train"]
    lifted = {"name": "lifted", "split": ["train"], "fingerprint": "x", "images": 150}
    known = {**lifted, "images": len(part), "sketch": part.sketch}
    for noted, own in ((known, True), (lifted, False), ({**lifted, "sketch": "0" * 16}, False)):
        trained = replace(model(faces, "train"), trained_on=noted)
        notes = part_of(faces, [trained]).notes
        assert any("counts as trained on all" in note for note in notes) == own
        assert any("cannot be told" in note for note in notes) == ("sketch" not in noted)
    flat = replace(faces, name="flat", split=np.full(len(faces), "all"))
    found = part_of(flat, [replace(model(faces, "train"), trained_on=known)])
    np.testing.assert_array_equal(found.faces.names, faces.names[faces.split != "train"])
    assert f"was trained on {len(part)} of these images at least" in found.notes[1]


def test_a_model_that_may_know_more_than_its_training_part_is_named() -> None:
    faces = draw_faces(210, size=24)
    known = model(faces, "train")
    taught = replace(
        known,
        trained_on={**known.trained_on, "alone": False},
        watched=faces["validation"].fingerprint,
    )
    own = replace(taught, trained_on={**known.trained_on, "alone": True})
    other = replace(faces, images=255 - faces.images, name="other")
    for measured, split in ((faces, "test"), (faces, "all"), (other, "validation")):
        (note,) = (n for n in part_of(measured, [taught], split).notes if "began from" in n)
        assert note.startswith("m began from, or was taught by, what may know more than its own")
        assert not any("began from" in n for n in part_of(measured, [own], split).notes)
    # images that it may have learned from were refused when it was trained
    assert part_of(faces, [taught]).notes == ()


def test_all_of_a_set_with_a_test_split_opens_it_and_a_foreign_set_of_one_split_does_not() -> None:
    faces = draw_faces(210, size=24)
    stranger = replace(model(faces, "train"), trained_on={})
    everything = part_of(faces, [stranger], "all")
    assert (len(everything.faces), everything.opened) == (210, "test")
    assert everything.notes == ("m does not say what it was trained on",)
    single = replace(faces, split=np.full(210, "all"))
    whole = part_of(single, [stranger])
    assert (len(whole.faces), whole.name, whole.opened) == (210, "all", None)
    with pytest.raises(DataError, match="has no split 'dev'; it has train, validation, test"):
        part_of(faces, [stranger], "dev")
    two = replace(faces, split=np.where(faces.split == "train", "train", "test"))
    with pytest.raises(DataError, match="name one of these with --split"):
        part_of(two, [stranger])


def foreign(classes: tuple[str, ...], counts: tuple[int, ...]) -> FaceSet:
    labels = np.repeat(np.arange(len(classes)), counts)
    n = len(labels)
    images = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    names = np.array([f"{i}.png" for i in range(n)])
    return FaceSet(images, labels, classes, names, np.full(n, "all"), name="other")


def test_a_map_moves_joins_and_leaves_out_classes() -> None:
    faces = foreign(("1", "2", "3", "contempt"), (2, 3, 1, 4))
    mapping = {"1": "surprise", "2": "fear", "3": "fear", "contempt": "", "unused": "sad"}
    moved, found = map_classes(faces, CLASSES, mapping, "map.toml")
    assert [CLASSES[label] for label in moved.labels] == ["surprise"] * 2 + ["fear"] * 4
    np.testing.assert_array_equal(moved.names, faces.names[:6])
    assert [(row.theirs, row.ours, row.images) for row in found] == [
        ("1", "surprise", 2), ("2", "fear", 3), ("3", "fear", 1), ("contempt", "", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"1": "happy"}, "does not mention class 'contempt' of other, which has 2 images"),
        ({"1": "joyful", "contempt": ""}, "'1' is mapped to 'joyful', and the model has no such"),
        ({"1": "", "contempt": ""}, "leaves out every image"),
        (None, "class '1' is none of the model's"),
    ],
)
def test_a_map_with_holes_is_refused_by_the_name_of_the_class(
    mapping: dict[str, str] | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        map_classes(foreign(("1", "contempt"), (3, 2)), CLASSES, mapping, "map.toml")


def test_a_map_may_name_the_folders_that_the_reader_took_for_official_classes() -> None:
    faces = foreign(CLASSES, (1, 1, 1, 1, 1, 1, 1))
    # AffectNet counts 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 angry
    theirs = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry")
    moved, _ = map_classes(faces, CLASSES, {str(i): name for i, name in enumerate(theirs)}, "m")
    assert tuple(CLASSES[label] for label in moved.labels) == theirs
    by_alias = {**dict(zip(CLASSES, CLASSES, strict=True)), "Anger": "sad"}
    with pytest.raises(DataError, match="class 'angry' of other is mapped both to 'angry' and"):
        map_classes(faces, CLASSES, by_alias, "m")
    some, _ = map_classes(
        foreign(("fear", "happy"), (1, 2)), CLASSES, {"Joy": "happy", "fear": ""}, "m"
    )
    assert [CLASSES[label] for label in some.labels] == ["happy", "happy"]


def test_a_map_that_is_no_table_of_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    for text, said in (("a = ", "cannot be read as TOML"), ("a = 3", "a = 3 is no name")):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_class_map(path)
    with pytest.raises(DataError, match=r"none\.toml: cannot be read"):
        read_class_map(tmp_path / "none.toml")


def test_the_test_split_of_another_data_set_is_mapped_opened_and_written_down(
    tmp_path: Path,
) -> None:
    faces = draw_faces(70, size=40, seed=9)
    names = {"happy": "4", "sad": "5", "neutral": "contempt"}
    counts = dict.fromkeys(names.values(), 0)
    for i, (face, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        if CLASSES[label] in names:
            theirs = names[CLASSES[label]]
            folder = tmp_path / "rafdb" / "test" / theirs
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{i}.png"), face)
            counts[theirs] += 1
    (tmp_path / "map.toml").write_text('4 = "happy"\n5 = "sad"\ncontempt = ""\n')
    words: list[Any] = ["evaluate", PACKAGED, "--data", tmp_path / "rafdb", "--split", "test"]
    words += ["--out", tmp_path / "out"]
    status, _, err = mien(*words)
    assert status == 1
    assert "class 'contempt' is none of the model's" in err
    assert not (tmp_path / "out").exists()
    status, said, err = mien(*words, "--classes", tmp_path / "map.toml")
    assert status == 0, err
    assert f"contempt -> left out: {counts['contempt']} images" in said
    assert f"4 -> happy: {counts['4']} images" in said
    (row,) = rows(tmp_path / "out" / "tables" / "evaluation.csv")
    assert int(row["images"]) == counts["4"] + counts["5"]
    assert "test as final test" in row["context"]
    (line,) = (tmp_path / "out" / "openings.jsonl").read_text().splitlines()
    assert json.loads(line)["split"] == "test"
    assert json.loads(line)["run"].startswith("plain-")


def test_models_that_cannot_be_measured_together_are_refused(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    for paths, said in (
        ([], "no model to evaluate"),
        ([tmp_path / "none.onnx"], "none.onnx"),
        ([runs["none"], runs["none"]], "given twice"),
        ([runs["none"], PACKAGED], "has size"),
    ):
        with pytest.raises(RunError, match=said):
            open_all(paths)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [tmp_path / folder / "model.onnx" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(PACKAGED.read_bytes())
    titles = [model.title for model in open_all(files)]
    assert all(title.endswith(str(file)) for title, file in zip(titles, files, strict=True))


def test_a_run_and_its_file_know_what_they_watched(runs: dict[str, Path], tmp_path: Path) -> None:
    run = Run.open(runs["none"])
    export_onnx(run, tmp_path / "model.onnx")
    watched = {one.watched for one in open_all([run.path, tmp_path / "model.onnx"])}
    assert watched == {run.info["data"]["validation"]["fingerprint"]}


def test_probabilities_of_a_run_are_those_of_predict_probabilities(runs: dict[str, Path]) -> None:
    from mien.runs.run import Run

    faces = draw_faces(30, size=24, seed=2)
    (opened,) = open_all([runs["cbam"]])
    np.testing.assert_allclose(
        opened.predict_proba(faces.images),
        predict_probabilities(Run.open(runs["cbam"]), faces),
        atol=1e-6,
    )


@pytest.mark.real
def test_privatetest_has_no_labels_and_is_refused(closed: Path, tmp_path: Path) -> None:
    words = ("evaluate", PACKAGED, "--data", closed, "--split", "test", "--out", tmp_path / "out")
    status, _, err = mien(*words)
    assert status == 1
    assert "'PrivateTest': 3,589 of 3,589 images have no label" in err
