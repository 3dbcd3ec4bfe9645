"""Folders and zips of pictures."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mien.data.faceset import FaceSet
from mien.data.layout import Layout, arrange, is_image
from mien.data.stack import Pictures, common_form, stack
from mien.errors import DataError

SMALL_FILE = 16_384
"""Mean bytes a file under which threads only wait for each other: Pillow's work on such a picture
is mostly Python, and two threads took twice the time of one on FER-2013."""

PART_BYTES = 1 << 27
"""Pixels that `read_parts` holds at a time."""


@dataclass(frozen=True)
class Listing:
    """Relative paths of all files below a root with bytes and time of change, and all folders."""

    root: Path
    files: tuple[tuple[str, int, int], ...]
    folders: tuple[str, ...]

    @property
    def images(self) -> bool:
        """Whether there is any image among the files."""
        return any(is_image(path) for path, _, _ in self.files)

    def digest(self) -> str:
        """Changes whenever a file is added, removed, renamed, resized or touched."""
        text = "\n".join(f"{path}\t{size}\t{time}" for path, size, time in sorted(self.files))
        return hashlib.sha256(
            (text + "\n\n" + "\n".join(sorted(self.folders))).encode(errors="surrogateescape")
        ).hexdigest()


def list_folder(root: Path) -> Listing:
    """List a folder with all below it; links are followed, but not back to a folder above."""
    files: list[tuple[str, int, int]] = []
    folders: list[str] = []
    pending = [("", frozenset({os.path.realpath(root)}))]
    while pending:
        prefix, above = pending.pop()
        try:
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir():
                        real = os.path.realpath(entry.path)
                        if real not in above:  # else a link back to a folder that it lies in
                            folders.append(path)
                            pending.append((path + "/", above | {real}))
                    elif entry.is_file():
                        status = entry.stat()
                        files.append((path, status.st_size, status.st_mtime_ns))
        except OSError as error:
            raise DataError(
                f"{error.filename or root / prefix}: cannot be read ({error.strerror}); change its "
                "permissions, or remove it"
            ) from error
    return Listing(root, tuple(files), tuple(folders))


def list_zip(root: Path) -> Listing:
    """List what a zip holds, without unpacking it."""
    with open_zip(root) as archive:
        infos = archive.infolist()
    files = tuple((info.filename, info.file_size, info.CRC) for info in infos if not info.is_dir())
    path, times = Counter(file[0] for file in files).most_common(1)[0] if files else ("", 0)
    if times > 1:
        raise DataError(f"{root}: holds {times} files named {path}; pack it again")
    if any("\\" in file[0] for file in files):
        raise DataError(f"{root}: has \\ between its folders; pack it again with /")
    folders = tuple(info.filename.rstrip("/") for info in infos if info.is_dir())
    return Listing(root, files, folders)


@contextmanager
def open_zip(root: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip, with a `DataError` for one that is damaged, encrypted or no zip at all."""
    try:
        with zipfile.ZipFile(root) as archive:
            yield archive
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, NotImplementedError) as error:
        raise DataError(
            f"{root}: not a readable zip ({error}); download or pack it again"
        ) from error


def read_pictures(
    listing: Listing, *, size: int | None, channels: int | None, skip_bad: bool
) -> FaceSet:
    """Read the pictures of a listed folder or zip into memory."""
    with _reading(listing) as load:
        plan, notes, pictures = _arranged(listing, load, skip_bad)
        images, errors = stack(pictures, size, channels)
    notes = _with_skipped(notes, pictures, errors)
    return _faces(listing, plan, slice(None), images, errors, notes)


def read_parts(
    listing: Listing, *, size: int | None, channels: int | None, skip_bad: bool
) -> Iterator[FaceSet]:
    """Read the same faces as `read_pictures`, in the same order, but no more than fit into a part.

    Unless `size` and `channels` are given, all files are looked at first. The remarks on the whole
    stand in the notes of the last part.
    """
    with _reading(listing) as load:
        plan, notes, pictures = _arranged(listing, load, skip_bad)
        size, channels = common_form(pictures, size, channels)
        step = max(1, PART_BYTES // (size * size * channels))
        all_errors: dict[int, DataError] = {}
        for start in range(0, len(plan.paths), step):
            part = slice(start, start + step)
            images, errors = stack(replace(pictures, paths=plan.paths[part]), size, channels)
            all_errors |= {start + number: error for number, error in errors.items()}
            last = start + step >= len(plan.paths)
            remarks = _with_skipped(notes, pictures, all_errors) if last else ()
            yield _faces(listing, plan, part, images, errors, remarks)


@contextmanager
def _reading(listing: Listing) -> Iterator[Callable[[str], bytes]]:
    """What gives the bytes at a relative path of a listed folder or zip."""
    if listing.root.is_dir():
        yield partial(_load, listing.root)
        return
    with open_zip(listing.root) as archive:

        def unpack(path: str) -> bytes:
            try:
                return archive.read(path)
            except MemoryError:
                raise
            except Exception as error:  # each compression method has damage of its own kind
                raise DataError(
                    f"{listing.root / path}: cannot be unpacked ({error}); pack the zip again"
                ) from error

        yield unpack


def _load(root: Path, path: str) -> bytes:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(
            f"{root / path}: cannot be read ({error.strerror}); check the file"
        ) from error


def _arranged(
    listing: Listing, load: Callable[[str], bytes], skip_bad: bool
) -> tuple[Layout, tuple[str, ...], Pictures]:
    """Where each picture belongs, what to tell about that, and the pictures to decode."""
    plan = arrange((file[0] for file in listing.files), listing.folders, str(listing.root))
    notes = plan.notes
    if plan.empty:
        message = f"{listing.root}: no image in the class folder {', '.join(plan.empty)}"
        if not skip_bad:
            raise DataError(f"{message}; add images, delete it, or read with skip_bad (--skip-bad)")
        notes = (*notes, message)
    lengths = {path: length for path, length, _ in listing.files}
    small = sum(lengths[path] for path in plan.paths) < SMALL_FILE * len(plan.paths)
    threads = 1 if small else os.cpu_count() or 1
    return plan, notes, Pictures(plan.paths, load, str(listing.root), threads, skip_bad)


def _faces(
    listing: Listing,
    plan: Layout,
    part: slice,
    images: np.ndarray,
    errors: dict[int, DataError],
    notes: tuple[str, ...],
) -> FaceSet:
    """The pictures of a part of the plan that could be read."""
    kept = np.array([number not in errors for number in range(len(images))])
    return FaceSet(
        images=images if kept.all() else images[kept],
        labels=plan.labels[part][kept],
        classes=plan.classes,
        names=plan.names[part][kept],
        split=plan.split[part][kept],
        name="FER-2013" if plan.official else listing.root.resolve().stem,
        notes=notes,
    )


def _with_skipped(
    notes: tuple[str, ...], pictures: Pictures, errors: dict[int, DataError]
) -> tuple[str, ...]:
    """The notes with one on what could not be read; an error if that is everything."""
    if len(errors) == len(pictures.paths):
        raise DataError(f"{pictures.root}: none of its images can be read; the first: {errors[0]}")
    if not errors:
        return notes
    return (*notes, skipped([str(errors[number]) for number in sorted(errors)]))


def skipped(messages: list[str]) -> str:
    """A remark on what was left out, with the first three reasons."""
    shown = "; ".join(messages[:3]) + ("; ..." if len(messages) > 3 else "")
    return f"skipped {len(messages):,} that could not be read: {shown}"
