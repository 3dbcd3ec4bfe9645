"""The pictures that are asked for, decoded in threads ahead of their use."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mien.data.layout import SUFFIXES
from mien.errors import DataError
from mien.pixels import decode, shown

VIDEOS = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv", ".3gp")
)

BYTES = 128 * 2**20
"""Pixels that wait decoded, so that memory does not grow with the number of pictures."""

AHEAD = 128
"""Most pictures that wait decoded."""


class Picture(NamedTuple):
    """A picture by the name that answers call it, and where it is: a file, or the bytes of one."""

    name: str
    source: Path | bytes


def listed(sources: Sequence[str | Path], *, as_given: bool = False) -> Iterator[Picture]:
    """The pictures of files, folders (with folders below) and globs, those of a folder by name.

    A picture goes by its path below the folder, or by its file name, where one source is given,
    and by its path as given where there are several, or where that is asked for. Folders are read
    as they are needed.

    Raises
    ------
    DataError
        at once, where a source is not there or a glob matches nothing.
    """
    found: list[Path] = []
    for source in map(str, sources):
        if os.path.lexists(source):
            found.append(Path(source))
            continue
        matches = sorted(glob.glob(source, recursive=True)) if glob.has_magic(source) else []
        if not matches:
            raise DataError(f"{source}: there is no such file or folder; check the path")
        found += map(Path, matches)

    def pictures() -> Iterator[Picture]:
        if len(found) == 1 and not as_given:
            root = found[0] if found[0].is_dir() else found[0].parent
            for file in _files(found[0]):
                yield Picture(shown(file.relative_to(root)), file)
            return
        seen: set[Path] = set()  # a file may also lie in a folder that is given
        for file in (file for source in found for file in _files(source)):
            if file not in seen:
                seen.add(file)
                yield Picture(shown(file), file)

    return pictures()


def decoded(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, np.ndarray | DataError]]:
    """Each picture with its pixels, or with what is wrong with it, in the order given.

    Pictures are asked for as they are needed.
    """
    workers = (os.cpu_count() or 1) + 1
    waiting: deque[tuple[Picture, Future[np.ndarray | DataError]]] = deque()
    coming, typical = iter(pictures), BYTES // workers

    def one(picture: Picture) -> np.ndarray | DataError:
        try:
            return decode(picture.source, picture.name)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            ahead = min(max(BYTES // typical, workers), AHEAD)
            while len(waiting) < ahead and (picture := next(coming, None)) is not None:
                waiting.append((picture, pool.submit(one, picture)))
            if not waiting:
                return
            picture, future = waiting.popleft()
            pixels = future.result()
            if isinstance(pixels, np.ndarray):
                # Large ones count at once, and are forgotten over some tens of small ones.
                typical = max(pixels.nbytes, typical - typical // 16, 1)
            yield picture, pixels
    finally:
        pool.shutdown(cancel_futures=True)


def _files(path: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """A file; or the pictures in a folder and below, without a list of them all or hidden ones.

    Links to folders are followed, but not to one of those `above`, which they lie in.
    """
    real = os.path.realpath(path)
    if real in above:
        return
    if not path.is_dir():
        yield path
        return
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the folder") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        picture = os.path.splitext(entry.name)[1].lower() in SUFFIXES
        try:
            folder, picture = entry.is_dir(), picture and entry.is_file()
        except OSError:  # a link to itself, which decoding will say
            folder = False
        if folder:
            yield from _files(path / entry.name, above | {real})
        elif picture:
            yield path / entry.name
