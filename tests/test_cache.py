"""The cache gives what was read, notices changes, and never costs a result."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien.data.folder
from mien.data import cache, read


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("happy", "sad"):
        for number in range(3):
            write(tmp_path / "set" / name / f"{number}.png", rng)
    return tmp_path / "set"


def write(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(path)


@pytest.fixture
def decodings(monkeypatch) -> list[int]:
    """Counts the times that pictures are decoded."""
    calls: list[int] = []
    stack = mien.data.folder.stack

    def counted(*args):
        calls.append(1)
        return stack(*args)

    monkeypatch.setattr(mien.data.folder, "stack", counted)
    return calls


def test_the_second_reading_is_the_same_set_without_decoding(folder, decodings):
    first, second = read(folder), read(folder)
    assert len(decodings) == 1
    for column in ("images", "labels", "names", "split", "groups", "origin"):
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column))
    assert (first.classes, first.name, first.notes) == (second.classes, second.name, second.notes)


def add(folder: Path) -> None:
    write(folder / "sad" / "new.png", np.random.default_rng(9))


def remove(folder: Path) -> None:
    (folder / "sad" / "0.png").unlink()


def rename(folder: Path) -> None:
    (folder / "sad" / "0.png").rename(folder / "sad" / "00.png")


def move(folder: Path) -> None:
    (folder / "sad" / "0.png").rename(folder / "happy" / "9.png")


def overwrite(folder: Path) -> None:
    """Other pixels in a file of the same length, as an uncompressed picture has."""
    before = (folder / "sad" / "0.bmp").stat()
    Image.new("L", (48, 48), 7).save(folder / "sad" / "0.bmp")
    os.utime(folder / "sad" / "0.bmp", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (folder / "sad" / "0.bmp").stat().st_size == before.st_size


@pytest.mark.parametrize("change", [add, remove, rename, move, overwrite])
def test_a_changed_folder_is_noticed(folder, decodings, change):
    Image.new("L", (48, 48), 5).save(folder / "sad" / "0.bmp")
    read(folder)
    change(folder)
    fresh = read(folder)
    assert len(decodings) == 2
    direct = read(folder, cache=False)
    assert fresh.fingerprint == direct.fingerprint
    np.testing.assert_array_equal(fresh.names, direct.names)


def test_a_home_that_is_nowhere_costs_the_cache_and_not_the_set(folder, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", "~nobody-of-this-name/cache")
    assert len(read(folder)) == 6


def test_a_changed_set_replaces_its_file(folder, place):
    read(folder)
    add(folder)
    read(folder)
    assert len(list(place.iterdir())) == 1


def test_each_way_of_reading_is_kept_apart(folder):
    assert read(folder).size == 48
    assert read(folder, size=24).size == 24
    assert read(folder, channels=3).channels == 3
    assert read(folder).size == 48


def test_two_folders_of_one_name_are_kept_apart(folder, tmp_path):
    other = tmp_path / "other" / "set"
    write(other / "fear" / "0.png", np.random.default_rng(5))
    assert len(read(folder)) == 6
    assert len(read(other)) == 1


def test_a_damaged_cache_is_read_anew(folder, place, decodings):
    expected = read(folder).fingerprint
    file = next(place.iterdir())
    whole = file.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole[:-10]):
        file.write_bytes(damaged)
        assert read(folder).fingerprint == expected
    assert len(decodings) == 5


def test_flipped_bits_in_a_cache_are_noticed(folder, place):
    expected = read(folder).fingerprint
    file = next(place.iterdir())
    data = bytearray(file.read_bytes())
    data[1000] ^= 0xFF
    file.write_bytes(data)
    assert read(folder).fingerprint == expected


def test_a_full_disk_leaves_no_half_written_file(folder, place, monkeypatch):
    def full(out, **arrays):
        out.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full)
    assert len(read(folder)) == 6
    assert list(place.iterdir()) == []


def test_an_unusable_cache_folder_costs_no_result(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "file" / "below"))
    assert len(read(folder)) == 6


def test_without_cache_nothing_is_written(folder, place):
    read(folder, cache=False)
    assert not place.exists()


@pytest.mark.real
def test_the_real_set_comes_from_the_cache_in_under_a_second_of_work(fer2013):
    read(fer2013)
    begin = time.process_time()
    faces = read(fer2013)
    assert len(faces) == 35_887
    assert time.process_time() - begin < 1.0
