"""The votes of FER+: ten annotators an image (Barsoum et al., ICMI 2016)."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from mien.data.faceset import CLASSES, FaceSet
from mien.errors import DataError

COLUMNS = {
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprise",
    "neutral": "neutral",
}
"""Columns of the votes for the seven classes. Contempt, unknown and NF (no face) are left out."""


def read_votes(path: Path) -> dict[str, np.ndarray]:
    """The votes of each image for the seven classes.

    Reads tables with a column ``image`` or, as in the official ``fer2013new.csv``,
    ``Image name`` (rows without a name, those that FER+ removed, are left out). A name that has
    two rows is left out: nothing tells which image each row belongs to.

    Returns
    -------
    dict from file name to float32 ``[7]``, votes in the order of `CLASSES`

    Raises
    ------
    DataError
        Naming the missing column, or the line with votes that are no numbers.
    """
    votes: dict[str, np.ndarray] = {}
    doubled: set[str] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            image = next((name for name in ("image", "image name") if name in header), "image")
            missing = [name for name in (image, *COLUMNS) if name not in header]
            if missing:
                raise DataError(
                    f"{path}: has no column {', '.join(missing)}; expected the votes of FER+ with "
                    f"the columns image, {', '.join(COLUMNS)}"
                )
            at = [header.index(name) for name in sorted(COLUMNS, key=_number)]
            for row in reader:
                try:
                    name = row[header.index(image)].strip()
                    counts = np.array([row[place] for place in at], np.float32)
                except (ValueError, IndexError) as error:
                    raise DataError(
                        f"{path}, line {reader.line_num}: votes must be numbers ({error}); "
                        "mend or remove the row"
                    ) from error
                if not (counts >= 0).all() or not np.isfinite(counts).all():
                    raise DataError(
                        f"{path}, line {reader.line_num}: votes must be 0 or more; mend the row"
                    )
                if name in votes:
                    doubled.add(name)
                elif name:
                    votes[name] = counts
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as votes ({error}); check the file") from error
    return {name: counts for name, counts in votes.items() if name not in doubled}


def join_votes(faces: FaceSet, source: Path, votes: bool | str | Path = True) -> FaceSet:
    """Give a set the votes of FER+ as soft labels, joined by file name.

    The votes for the seven classes are divided by their sum. Rows of images without such a vote
    are NaN, and so are those of images that share their file name with another.

    Parameters
    ----------
    faces : a set with the seven official classes
    source : where it was read from
    votes : True looks for ``ferplus.csv`` in `source` and beside it; a path names the file
    """
    if faces.classes != CLASSES:
        raise DataError(
            f"{faces.name}: FER+ votes belong to the classes {', '.join(CLASSES)}, "
            f"not to {', '.join(faces.classes)}; read it without votes"
        )
    path = find_votes(source) if votes is True else Path(str(votes)).expanduser()
    table = read_votes(path)
    nothing = np.full(len(CLASSES), np.nan, np.float32)
    names = [str(name).rpartition("/")[2] for name in faces.names]
    times = Counter(names)
    counts = np.stack([table.get(name, nothing) if times[name] == 1 else nothing for name in names])
    total = counts.sum(1, keepdims=True)
    soft = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    joined = int(np.isfinite(soft[:, 0]).sum())
    if not joined:
        raise DataError(
            f"{path}: no vote belongs to an image of {faces.name}; its names are such as "
            f"{next(iter(table), 'none')}, those of the images such as {faces.names[0]}"
        )
    note = f"FER+ votes (extra annotation) for {joined:,} of {len(faces):,} images from {path.name}"
    return replace(faces, soft=soft, notes=(*faces.notes, note))


def find_votes(source: Path) -> Path:
    """``ferplus.csv`` in a folder, beside it, or beside a file."""
    source = source.resolve()
    for place in (source, source.parent):
        if (place / "ferplus.csv").is_file():
            return place / "ferplus.csv"
    raise DataError(
        f"{source}: no ferplus.csv in it or beside it; put it there, or leave the votes out"
    )


def _number(column: str) -> int:
    return CLASSES.index(COLUMNS[column])
