"""From files of pictures to a table of probabilities."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.inference.pictures import decoded, listed
from mien.pixels import letterbox, shown
from mien.runs.atomic import write_text

AT_ONCE = 256
"""Pictures that are looked at together."""


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
    pictures = {picture.source: picture for picture in listed(images)}
    if not pictures:
        raise DataError(f"{', '.join(map(str, images))}: no picture found")
    times = Counter(Path(file).name for file in map(str, pictures))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "label", *classes])
    done = 0
    waiting: list[tuple[Path, np.ndarray]] = []

    def write() -> None:
        crops = np.stack([crop for _, crop in waiting])
        for (file, _), row in zip(waiting, predict_proba(crops), strict=True):
            name = shown(file.name if times[file.name] == 1 else file)
            writer.writerow([name, classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])

    for picture, pixels in decoded(pictures.values(), channels):
        if isinstance(pixels, DataError):
            if not skip_bad:
                raise pixels
            continue
        waiting.append((Path(str(picture.source)), letterbox(pixels, size)))
        done += 1
        if len(waiting) == AT_ONCE:
            write()
            waiting.clear()
    if waiting:
        write()
    if not done:
        raise DataError(f"{', '.join(map(str, images))}: none of {len(pictures)} files can be read")
    if done < len(pictures):
        print(f"left out {len(pictures) - done:,} unreadable files", file=sys.stderr)
    write_text(out, table.getvalue())
    return done
