"""A data set as one array on disk, which is mapped instead of read: for sets larger than memory.

A store is a folder of ``images.npy``, in which each split is one stretch, so that it can be taken
from the file without being copied, and ``columns.npz`` with all else. What is mapped is read when
it is first touched and belongs to the system's page cache, not to the process.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import DataError

VERSION = 1
"""Version of the folder's layout; a store of another one is refused."""

IMAGES, ABOUT = "images.npy", "columns.npz"
COLUMNS = ("labels", "names", "split", "origin", "soft", "weights")
"""What a store keeps of each part; the groups of equal images are those of the whole."""

PART_BYTES = 1 << 26
"""Pixels of a set that are copied at a time."""


def is_store(path: Path) -> bool:
    """Whether `path` is a folder that `write_store` has written."""
    return (path / IMAGES).is_file() and (path / ABOUT).is_file()


def write_store(
    faces: FaceSet | Iterable[FaceSet],
    folder: Path | str,
    remarks: Callable[[FaceSet], tuple[str, ...]] = lambda faces: (),
) -> FaceSet:
    """Write a set into the new folder `folder`, whole or not at all, and return it as a store.

    Parameters
    ----------
    faces : a set, whose images are brought into the order of its splits, or the parts of one in
        their order, of which one at a time is held
    folder : must not exist; ``mien.read(folder)`` reads it
    remarks : called with the finished set; what it returns is added to its notes, and where it
        raises an error, nothing is left

    Raises
    ------
    DataError
        if the folder exists or cannot be written, or there are no images.
    """
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder}: exists; remove it, or give the name of a new folder")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(".tmp", f".{folder.name}.", folder.parent))
        with (temporary / IMAGES).open("wb") as file:
            columns = _append(_parts(faces) if isinstance(faces, FaceSet) else faces, file)
            _flush(file)
        stored = FaceSet(np.load(temporary / IMAGES, mmap_mode="r"), **columns)
        stored = replace(stored, notes=(*stored.notes, *remarks(stored)))
        with (temporary / ABOUT).open("wb") as file:
            _write_about(stored, file)
            _flush(file)
        temporary.chmod(0o755)  # mkdtemp's folders are for their owner alone
        temporary.rename(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}), and nothing was left of it; "
            "make room or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return read_store(folder)


def read_store(folder: Path) -> FaceSet:
    """The set in a store, its images mapped from the file and read-only.

    Raises
    ------
    DataError
        if it was written by another version, or is damaged.
    """
    try:
        with np.load(folder / ABOUT, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            columns = {key: stored[key] for key in stored.files if key != "about"}
        version = about["version"]
        if version == VERSION:
            return FaceSet(
                np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False),
                **columns,
                classes=tuple(about["classes"]),
                name=about["name"],
                notes=tuple(about["notes"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{folder}: the store is damaged ({error}); remove it and write it again"
        ) from error
    raise DataError(
        f"{folder}: the store was written in version {version}, this Mien reads {VERSION}; write "
        "it again"
    )


def _parts(faces: FaceSet) -> Iterator[FaceSet]:
    """The set part by part in the order of its splits, within them in its own."""
    rank = {split: number for number, split in enumerate(faces.splits)}
    order = np.argsort([rank[split] for split in faces.split], kind="stable")
    step = max(1, PART_BYTES // max(1, faces.images[:1].nbytes))
    for start in range(0, len(faces), step):
        part = faces[order[start : start + step]]
        yield part if start == 0 else replace(part, notes=())


def _append(parts: Iterable[FaceSet], file: BinaryIO) -> dict[str, Any]:
    """Write the images of the parts as one ``.npy``, and give all else that makes up the set."""
    shape: tuple[int, ...] = ()
    columns: dict[str, list[Any]] = {key: [] for key in COLUMNS}
    notes: tuple[str, ...] = ()
    for part in parts:
        if not shape:
            _write_header(file, part.images.shape)
        elif part.images.shape[1:] != shape[1:]:
            raise DataError(
                f"{part.name}: one part has images {list(shape[1:])}, another "
                f"{list(part.images.shape[1:])}; give all of one size"
            )
        shape = (shape[0] + len(part) if shape else len(part), *part.images.shape[1:])
        file.write(np.ascontiguousarray(part.images).reshape(-1).data)
        for key, values in columns.items():
            values.append(getattr(part, key))
        notes += part.notes
    if not shape or not shape[0]:
        raise DataError("there are no images to write into a store")
    file.seek(0)
    _write_header(file, shape)  # as long as before, since NumPy leaves room for any number
    whole = {key: np.concatenate(v) for key, v in columns.items() if v[0] is not None}
    return {**whole, "classes": part.classes, "name": part.name, "notes": notes}


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_about(faces: FaceSet, file: BinaryIO) -> None:
    about = {
        "version": VERSION,
        "classes": faces.classes,
        "name": faces.name,
        "notes": faces.notes,
    }
    columns = {key: getattr(faces, key) for key in (*COLUMNS, "groups")}
    known = {key: column for key, column in columns.items() if column is not None}
    np.savez(file, about=np.array(json.dumps(about)), **known)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
