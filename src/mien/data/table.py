"""The tables of FER-2013: ``fer2013.csv`` and ``icml_face_data.csv``."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mien.data import official
from mien.data.faceset import CLASSES, FaceSet
from mien.data.folder import skipped
from mien.errors import DataError
from mien.pixels import letterbox, to_channels

TABLES = ("fer2013.csv", "icml_face_data.csv")
SIDE = 48
REMEDY = "mend or remove the row, or read with skip_bad (--skip-bad)"


def read_table(
    path: Path, *, size: int | None = None, channels: int | None = None, skip_bad: bool = False
) -> FaceSet:
    """Read a table with the columns ``emotion``, ``pixels`` and ``Usage``.

    Columns are found by name, without regard to case, stray spaces and order. ``pixels`` holds
    48 x 48 grey values from 0 to 255, ``emotion`` an official number from 0 to 6 (empty where the
    label is kept back), ``Usage`` the split. Without a column ``Usage`` all rows are one split.

    Images are named ``fer0000000.png`` and on, by their row counted from 0, as FER+ names them.
    Messages count the lines of the file, from the 1 of the header.

    Raises
    ------
    DataError
        Naming the line with a wrong number of pixels, a value that is no number from 0 to 255, an
        unknown emotion or no split.
    """
    images, labels, split, names, problems = [], [], [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for index, row in enumerate(_rows(csv.reader(file), path)):
                try:
                    pixels, label, usage = _parse(row)
                except ValueError as error:
                    message = f"{path}, line {index + 2}: {error}"
                    if not skip_bad:
                        raise DataError(f"{message}; {REMEDY}") from error
                    problems.append(message)
                    continue
                images.append(pixels)
                labels.append(label)
                split.append(usage)
                names.append(f"fer{index:07d}.png")
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); check the file") from error
    if not images:
        raise DataError(
            f"{path}: no usable row in it{': ' + problems[0] if problems else ''}; check it"
        )
    stacked = np.stack(images)
    if size not in (None, SIDE) or channels == 3:
        stacked = np.stack(
            [letterbox(to_channels(image, channels or 1), size or SIDE) for image in stacked]
        )
    known = set(split) <= set(official.COUNTS)
    return FaceSet(
        images=stacked,
        labels=np.array(labels, np.int64),
        classes=CLASSES,
        names=np.array(names),
        split=np.array(split),
        name="FER-2013" if known else path.stem,
        notes=(skipped(problems),) if problems else (),
    )


def _rows(reader: Iterator[list[str]], path: Path) -> Iterator[tuple[str, str | None, str | None]]:
    """The cells pixels, emotion and usage of each row; None for a column that is not there."""
    header = [name.strip().lower() for name in next(reader, [])]
    if "pixels" not in header:
        raise DataError(
            f"{path}: has no column 'pixels' (columns: {', '.join(header) or 'none'}); expected "
            "emotion, pixels, Usage as in fer2013.csv"
        )
    places = [header.index(name) if name in header else None for name in ("emotion", "usage")]
    pixels = header.index("pixels")
    for row in reader:
        if len(row) <= max(pixels, *(place or 0 for place in places)):
            row = [*row, *[""] * len(header)]
        emotion, usage = (None if place is None else row[place] for place in places)
        yield row[pixels], emotion, usage


def _parse(row: tuple[str, str | None, str | None]) -> tuple[np.ndarray, int, str]:
    """Pixels ``[48, 48]``, label and split of a row; ValueError says what is wrong with it."""
    text, emotion, usage = row
    emotion = (emotion or "").strip()
    if emotion and emotion not in official.NUMBERS:
        raise ValueError(f"emotion '{emotion}' is unknown; the numbers are 0 to 6")
    usage = "all" if usage is None else usage.strip()
    if not usage:
        raise ValueError("the column Usage is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy stops at a non-number with a warning or an error
        try:
            values = np.fromstring(text, np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            values = None
    if values is None:
        wrong = next((token for token in text.split() if not token.isdecimal()), text)
        raise ValueError(f"pixel value '{wrong[:20]}' is not a whole number")
    if len(values) != SIDE * SIDE:
        raise ValueError(f"{len(values):,} pixels instead of {SIDE * SIDE:,} ({SIDE}x{SIDE})")
    if values.min() < 0 or values.max() > 255:
        wrong = values[(values < 0) | (values > 255)][0]
        raise ValueError(f"pixel value {wrong} is outside 0 to 255")
    return values.astype(np.uint8).reshape(SIDE, SIDE), int(emotion or -1), usage
