"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mien.errors import RunError

LEFTOVER = ".tmp"
"""How the name of a file ends that is not yet written whole."""

WRITTEN = ".written"
"""The file that notes which files of a folder belong to one result."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` only when all has been written.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and are then
    renamed; whoever reads `path` at any moment finds the old file or the new one, whole.

    Raises
    ------
    RunError
        if the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(LEFTOVER, f".{path.name[:40]}.", path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}). Nothing was left "
            "half-written; make room or choose another folder, then run the same command again"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """See that files can be written into a folder, there or not, before long work is done for it.

    Raises
    ------
    RunError
        if they cannot.
    """
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not place.is_dir():
        raise RunError(f"{folder}: cannot be a folder, for {place} is a file; name another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: cannot be written; name another folder")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def save_with(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Let `save` (such as ``numpy.savez`` or ``torch.save``) fill the file that becomes `path`."""
    with replacing(path) as file:
        try:
            save(file)
        except RuntimeError as error:  # torch reports a full disk as one of its own errors
            raise RunError(f"{path}: cannot be written ({error}); make room") from error


@contextlib.contextmanager
def instead_of_earlier(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Let files be written into `folder`, and then remove those an earlier result left there.

    Which ones a result has is noted in a hidden file of the folder, before they are written; what
    was not written this way stays, and so does all of it where writing fails.

    Parameters
    ----------
    folder : of files that belong together, such as the tables of one report
    names : of those that are written now
    """
    note = folder / WRITTEN
    earlier = set(note.read_text().splitlines()) if note.exists() else set[str]()
    written = set(names)
    write_text(note, "\n".join(sorted(earlier | written)) + "\n")
    yield
    for name in earlier - written:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    write_text(note, "\n".join(sorted(written)) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written; no other may be writing to `folder`."""
    for file in folder.glob(f".*{LEFTOVER}"):
        file.unlink(missing_ok=True)


def append(file: int, content: bytes) -> None:
    """Write all of it or, on a full disk or when interrupted, nothing."""
    before, done = os.fstat(file).st_size, 0
    try:
        while done < len(content):
            done += os.write(file, content[done:])
    except BaseException:
        os.ftruncate(file, before)
        raise
