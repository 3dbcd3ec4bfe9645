"""From files of pictures to a table of probabilities."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mien.data.layout import SUFFIXES
from mien.errors import DataError
from mien.pixels import decode, letterbox
from mien.runs.atomic import write_text

AT_ONCE = 256
"""Pictures that are decoded while as many are looked at, so that memory does not grow with them."""


def write_predictions(
    images: Sequence[Path],
    out: Path,
    predict_proba: Callable[[np.ndarray], np.ndarray],
    *,
    classes: Sequence[str],
    size: int,
    channels: int,
    skip_bad: bool = False,
) -> int:
    """Write a CSV of image, label and the probability of each class for pictures of faces.

    Parameters
    ----------
    images : files, or folders whose pictures (also those in folders below) are taken in order of
        their names
    out : the CSV, written whole or not at all. An image goes by its file name, or by its path
        where two files share a name.
    predict_proba : from uint8 ``[N, S, S]`` or ``[N, S, S, 3]`` to ``[N, C]``
    classes : names of the C classes
    size, channels : of the images it takes
    skip_bad : leave out files that cannot be read, and say on standard error how many

    Returns
    -------
    int
        The number of images.

    Raises
    ------
    DataError
        if there is no image, or one cannot be read and `skip_bad` is off.
    RunError
        if the CSV cannot be written.
    """
    files = list(dict.fromkeys(file for path in images for file in _pictures(path)))
    if not files:
        raise DataError(f"{', '.join(map(str, images))}: no picture found")
    times = Counter(file.name for file in files)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "label", *classes])
    done = 0
    for part in _decoded(files, size, channels, skip_bad):
        if not part:
            continue
        for file, row in zip(part, predict_proba(np.stack(list(part.values()))), strict=True):
            name = file.name if times[file.name] == 1 else str(file)
            writer.writerow([name, classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])
        done += len(part)
    if not done:
        raise DataError(f"{', '.join(map(str, images))}: none of {len(files)} files can be read")
    if done < len(files):
        print(f"left out {len(files) - done:,} unreadable files", file=sys.stderr)
    write_text(out, table.getvalue())
    return done


def _decoded(
    files: Sequence[Path], size: int, channels: int, skip_bad: bool
) -> Iterator[dict[Path, np.ndarray]]:
    """The pictures part by part, each decoded while the one before it is being looked at."""

    def one(file: Path) -> np.ndarray | None:
        try:
            return letterbox(decode(file, str(file), channels=channels), size)
        except DataError:
            if skip_bad:
                return None
            raise

    with ThreadPoolExecutor() as pool:
        parts = [files[first : first + AT_ONCE] for first in range(0, len(files), AT_ONCE)]
        try:
            coming = [pool.submit(one, file) for file in parts[0]]
            for part, after in zip(parts, [*parts[1:], []], strict=True):
                now, coming = coming, [pool.submit(one, file) for file in after]
                found = zip(part, (future.result() for future in now), strict=True)
                yield {file: pixels for file, pixels in found if pixels is not None}
        finally:
            pool.shutdown(cancel_futures=True)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    return [path]
