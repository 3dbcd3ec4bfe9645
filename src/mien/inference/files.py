"""From files of pictures to a table of probabilities."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mien.data.layout import SUFFIXES
from mien.errors import DataError
from mien.pixels import decode, letterbox
from mien.runs.atomic import write_text


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
    pictures, read = [], []
    for file in files:
        try:
            pixels = decode(file, str(file), channels=channels)
        except DataError:
            if skip_bad:
                continue
            raise
        pictures.append(letterbox(pixels, size))
        read.append(file)
    if not pictures:
        raise DataError(f"{', '.join(map(str, images))}: none of {len(files)} files can be read")
    if len(read) < len(files):
        print(f"left out {len(files) - len(read):,} unreadable files", file=sys.stderr)
    times = Counter(file.name for file in read)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "label", *classes])
    for file, row in zip(read, predict_proba(np.stack(pictures)), strict=True):
        name = file.name if times[file.name] == 1 else str(file)
        writer.writerow([name, classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])
    write_text(out, table.getvalue())
    return len(read)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    return [path]
