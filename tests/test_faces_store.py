"""Sets in a file that is mapped, not read."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mien.data import CLASSES, FaceSet, draw_faces, folder, read
from mien.data.faceset import groups_of_equal_images
from mien.data.read import read_to_store
from mien.data.store import is_store, write_store
from mien.errors import DataError
from mien.images import enhance, normalisation
from mien.images.tensors import as_tensor
from mien.runs.recipe import Recipe
from mien.training import fit, predict_probabilities
from mien.training.batches import Batches

COLUMNS = ("labels", "names", "split", "origin", "soft", "weights")


def faces(colour: bool = False) -> FaceSet:
    """Drawn faces, their splits mixed up, two of them copies, with votes and weights."""
    drawn = draw_faces(70, size=24)
    rng = np.random.default_rng(0)
    images = np.repeat(drawn.images[..., None], 3, 3) if colour else drawn.images.copy()
    images[..., :9] //= 2
    images[5] = images[40]
    soft = rng.random((70, 7)).astype(np.float32)
    weights = rng.random(70).astype(np.float32)
    return replace(drawn, images=images, groups=None, soft=soft, weights=weights)[
        rng.permutation(70)
    ]


def in_memory(stored: FaceSet) -> FaceSet:
    return replace(stored, images=np.array(stored.images))


def assert_equal(a: FaceSet, b: FaceSet) -> None:
    np.testing.assert_array_equal(a.images, b.images)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(a, column), getattr(b, column), err_msg=column)
    np.testing.assert_array_equal(
        a.groups[:, None] == a.groups, b.groups[:, None] == b.groups, err_msg="groups"
    )
    assert (a.classes, a.name, a.notes) == (b.classes, b.name, b.notes)


def pictures(root: Path, count: int = 3, colour: bool = False) -> Path:
    """``<split>/<class>/*.png`` with a copy and, where asked for, one picture with a colour."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("happy", "sad"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.repeat(rng.integers(0, 256, (24, 24, 1), np.uint8), 3, 2)
                if colour and (split, name, number) == ("val", "sad", 1):
                    pixels[0, 0, 0] ^= 255
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    (root / "val" / "sad" / "0.png").write_bytes((root / "train" / "happy" / "0.png").read_bytes())
    return root


# Written and read back


@pytest.mark.parametrize("colour", [False, True])
def test_a_store_holds_the_set_with_its_splits_one_after_the_other(
    tmp_path: Path, colour: bool
) -> None:
    given = faces(colour)
    stored = write_store(given, tmp_path / "store")
    order = np.concatenate([np.flatnonzero(given.split == split) for split in given.splits])
    assert_equal(read(tmp_path / "store"), given[order])
    assert is_store(tmp_path / "store")
    assert isinstance(stored.images, np.memmap)
    assert not stored.images.flags.writeable
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("asked", [{}, {"size": 16}, {"channels": 1}, {"channels": 3}])
def test_a_folder_decoded_in_parts_is_the_set_that_read_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colour: bool, asked: dict[str, int]
) -> None:
    data = pictures(tmp_path / "data", colour=colour)
    whole = read(data, cache=False, **asked)
    monkeypatch.setattr(folder, "PART_BYTES", 5 * 24 * 24)
    stored = read_to_store(data, tmp_path / "store", **asked)
    assert_equal(stored, whole)
    assert stored.fingerprint == whole.fingerprint


def test_pictures_are_decoded_no_more_than_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(tmp_path / "data")
    monkeypatch.setattr(folder, "PART_BYTES", 5 * 24 * 24)
    listing = folder.list_folder(data)
    parts = list(folder.read_parts(listing, size=None, channels=None, skip_bad=False))
    assert [len(part) for part in parts] == [5, 5, 2]


def test_what_cannot_be_read_is_left_out_of_a_store_as_it_is_by_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(tmp_path / "data")
    for bad in ("train/happy/1.png", "train/sad/2.png", "val/sad/2.png"):
        (data / bad).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"train/happy/1\.png"):
        read_to_store(data, tmp_path / "store")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    monkeypatch.setattr(folder, "PART_BYTES", 4 * 24 * 24)
    stored = read_to_store(data, tmp_path / "store", skip_bad=True)
    assert_equal(stored, read(data, cache=False, skip_bad=True))
    assert len(stored) == 9


def test_a_class_missing_from_a_split_leaves_no_store(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    (data / "train" / "angry").mkdir()
    (data / "train" / "sad" / "0.png").rename(data / "train" / "angry" / "0.png")
    with pytest.raises(DataError, match="no image of class 'angry' in split 'val'"):
        read_to_store(data, tmp_path / "store")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_drawn_faces_and_tables_can_be_stored_too(tmp_path: Path) -> None:
    stored = read_to_store("drawn:14", tmp_path / "store", size=24)
    assert_equal(stored, in_memory(stored))
    assert stored["train"].fingerprint == read("drawn:14", size=24)["train"].fingerprint


def test_a_folder_that_exists_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"mine: exists; remove it"):
        write_store(faces(), tmp_path / "mine")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be written .No space left"):
        write_store(faces(), tmp_path / "store")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["images cut", "columns cut", "columns flipped", "version"])
def test_a_damaged_store_is_refused(tmp_path: Path, damage: str) -> None:
    write_store(faces(), tmp_path / "store")
    file = tmp_path / "store" / ("images.npy" if damage == "images cut" else "columns.npz")
    whole = file.read_bytes()
    if damage == "version":
        with np.load(file) as columns:
            arrays = dict(columns)
        arrays["about"] = np.array(str(arrays["about"]).replace('"version": 1', '"version": 9'))
        np.savez(file, **arrays)
    elif damage == "columns flipped":
        middle = whole.index("drawn".encode("utf-32-le"))
        file.write_bytes(whole[:middle] + b"x" + whole[middle + 1 :])
    else:
        file.write_bytes(whole[: len(whole) // 2])
    expected = "version 9, this Mien reads 1" if damage == "version" else "store is damaged"
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "store")


def test_a_store_has_the_size_it_has(tmp_path: Path) -> None:
    write_store(faces(), tmp_path / "store")
    assert read(tmp_path / "store", size=24, channels=1).size == 24
    with pytest.raises(DataError, match="images with size 24, not 48"):
        read(tmp_path / "store", size=48)


# Used like any other set


def test_splits_slices_and_stretches_of_a_store_are_views_of_its_file(tmp_path: Path) -> None:
    stored = write_store(faces(), tmp_path / "store")
    parts = [stored[split] for split in stored.splits]
    parts += [stored[10:20], stored[np.arange(30, 50)], stored[[4, 5, 6]], parts[0][2:7]]
    for part in parts:
        assert np.shares_memory(part.images, stored.images)
        assert isinstance(part.images, np.memmap)
    assert not np.shares_memory(stored[[3, 5]].images, stored.images)
    assert_equal(stored[np.arange(30, 50)], in_memory(stored)[30:50])


def test_positions_that_are_no_stretch_select_what_they_say() -> None:
    given = faces()
    for key in ([3, 2, 1], [5, 5], [-2, -1], [], np.arange(69, -1, -1), given.labels == 2):
        expected = given.names[np.asarray(key, bool if np.asarray(key).dtype == bool else int)]
        np.testing.assert_array_equal(given[key].names, expected)
    for wrong in (np.ones(71, bool), np.ones(3, bool), np.arange(60, 75)):
        with pytest.raises(IndexError):
            given[wrong]


def test_the_fingerprint_is_a_hash_of_all_bytes_at_once(tmp_path: Path) -> None:
    given = faces(colour=True)
    digest = hashlib.sha256(repr((given.images.shape, given.classes)).encode())
    for column in (given.images, given.labels, given.soft, given.weights):
        digest.update(column.tobytes())
    assert given.fingerprint_with_votes == digest.hexdigest()[:16]
    assert given.fingerprint == replace(given, soft=None).fingerprint_with_votes
    plain = replace(given, soft=None, weights=None)[::2]
    digest = hashlib.sha256(repr((plain.images.shape, plain.classes)).encode())
    for part in (plain.images.tobytes(), plain.labels.tobytes(), b"-", b"-"):
        digest.update(part)
    assert plain.fingerprint == digest.hexdigest()[:16]


def test_the_fingerprint_of_more_images_than_are_hashed_at_once_is_the_same() -> None:
    many = np.random.default_rng(0).integers(0, 256, (2500, 4, 4), np.uint8)
    names = np.array([str(number) for number in range(2500)])
    labels = np.arange(2500) % 7
    given = FaceSet(many, labels, faces().classes, names, np.full(2500, "train"))
    digest = hashlib.sha256(repr((many.shape, given.classes)).encode())
    for part in (many.tobytes(), labels.tobytes(), b"-", b"-"):
        digest.update(part)
    assert given.fingerprint == digest.hexdigest()[:16]


def test_a_stored_part_travels_to_another_process_by_the_name_of_its_file(tmp_path: Path) -> None:
    stored = write_store(faces(colour=True), tmp_path / "store")
    part = stored[stored.splits[1]][3:]
    sent = pickle.dumps(part)
    assert len(sent) < part.images.nbytes / 2
    received = pickle.loads(sent)
    assert isinstance(received.images, np.memmap)
    assert_equal(received, part)
    assert received.fingerprint == part.fingerprint
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"images\.npy: cannot be mapped .* every machine"):
        pickle.loads(sent)


def test_other_sets_travel_with_their_images() -> None:
    given = faces()
    assert_equal(pickle.loads(pickle.dumps(given)), given)


@pytest.mark.parametrize("colour", [False, True])
def test_a_stored_set_is_trained_on_as_one_in_memory(tmp_path: Path, colour: bool) -> None:
    stored = write_store(faces(colour), tmp_path / "store")
    memory = in_memory(stored)
    statistics = normalisation("dataset", stored.images)
    assert statistics == normalisation("dataset", memory.images)
    recipe = Recipe(model="plain", width=1 / 8, image_size=24, stride=8, epochs=2, batch_size=16,
                    rotate=10.0, mixup=0.3, enhance=("sharpen",), soft_labels=True)  # fmt: skip
    runs = []
    for number, part in enumerate((stored, memory)):
        runs.append(fit(recipe, part["train"], part["validation"], runs=tmp_path / str(number),
                        device="cpu", progress="none"))  # fmt: skip
    assert runs[0].name == runs[1].name
    assert runs[0].weights_path.read_bytes() == runs[1].weights_path.read_bytes()
    np.testing.assert_array_equal(
        predict_probabilities(runs[0], stored["test"]),
        predict_probabilities(runs[0], memory["test"]),
    )


def test_a_tensor_of_a_store_is_no_copy_and_no_warning(tmp_path: Path) -> None:
    stored = write_store(faces(colour=True), tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(stored.images, "cpu")
    assert tensor.data_ptr() == stored.images.ctypes.data
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1).numpy(), stored.images)


def noise(images: int, start: int) -> FaceSet:
    """Grey pictures of 40,000 bytes."""
    pixels = np.random.default_rng(start).integers(0, 256, (images, 200, 200), np.uint8)
    names = np.array([str(start + number) for number in range(images)])
    return FaceSet(pixels, np.arange(images) % 7, CLASSES, names, np.full(images, "train"))


def anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_what_training_does_with_a_store_takes_no_memory_of_its_size(tmp_path: Path) -> None:
    parts = (noise(100, start) for start in range(0, 2500, 100))
    stored = write_store(parts, tmp_path / "store")
    recipe = Recipe(image_size=24, batch_size=10, flip=0.5)
    readings, stop = [anonymous()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            readings.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert not stored[2000:].stands_in(stored[:2000]).any()
        assert len(stored["train"].fingerprint) == 16
        statistics = normalisation("dataset", stored.images)
        enhance(stored.images, ("sharpen",))
        for _ in Batches(stored, recipe, statistics, torch.device("cpu")).epoch(0):
            pass
    finally:
        stop.set()
        watcher.join()
    assert stored.images.nbytes == 100_000_000
    assert max(readings) - readings[0] < 50_000_000


def test_enhanced_images_of_a_store_lie_in_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = write_store(faces(), tmp_path / "store")
    found = enhance(stored.images, ("clahe", "sharpen"))
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, enhance(np.array(stored.images), ("clahe", "sharpen")))
    assert len(pickle.dumps(replace(stored, images=found))) > found.nbytes

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room for 40,320 bytes .*TMPDIR"):
        enhance(stored.images, ("clahe",))


def test_copies_are_found_in_a_store(tmp_path: Path) -> None:
    stored = write_store(faces(), tmp_path / "store")
    np.testing.assert_array_equal(stored.groups, groups_of_equal_images(np.array(stored.images)))
    assert len(np.unique(stored.groups)) == 69
    train, rest = stored["train"], stored["validation"]
    np.testing.assert_array_equal(
        rest.stands_in(train), in_memory(rest).stands_in(in_memory(train))
    )
