"""Groups of images: those the user names, and quarters by what the pixels themselves show."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from mien.errors import DataError
from mien.evaluation.intervals import newcombe_interval
from mien.evaluation.outcome import ALPHA
from mien.evaluation.robustness import Measured, measured
from mien.pixels import to_channels

MINIMUM = 30
"""Groups of fewer images are shown and marked, and are not compared."""

PERMUTATIONS = 9_999
NONE = ""
"""The group of an image that has none."""


@dataclass(frozen=True)
class Groupings:
    """What a table of groups says of a set of images.

    Attributes
    ----------
    columns : by name of the grouping, str ``[n]``, `NONE` where an image has no group
    unlisted : images of the set that the table does not list
    elsewhere : images that the table lists and the set has not
    """

    columns: dict[str, np.ndarray]
    unlisted: int
    elsewhere: int


@dataclass(frozen=True)
class Gap:
    """The largest difference of accuracy between two groups of a grouping.

    Attributes
    ----------
    best, worst : the two groups
    difference : of their accuracies
    interval : Newcombe's, Bonferroni-corrected for the pairs that the two were picked from
    p : permutation test of the largest difference, so the picking is part of it
    p_holm : adjusted for all groupings tested together
    """

    best: str
    worst: str
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float


@dataclass(frozen=True)
class Grouped:
    """A model on the groups of one grouping.

    Attributes
    ----------
    groups : by name; in the order of the names
    small : the groups of fewer than `MINIMUM` images, which are not compared
    without : images without a group
    gap : None with fewer than two groups to compare
    """

    groups: dict[str, Measured]
    small: tuple[str, ...]
    without: int
    gap: Gap | None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as they go into JSON."""
        return asdict(self)


def read_groups(path: Path, names: np.ndarray) -> Groupings:
    """Read a table with a column ``image`` and one or more columns of groups.

    Parameters
    ----------
    path : a CSV with a header. An image goes by the name it has in the set, or by a path that ends
        in it; an empty cell is no group
    names : str ``[n]`` of the images that are measured on

    Raises
    ------
    DataError
        if the table cannot be read, has no such columns, lists an image twice, has a row of another
        length, or lists none of the images.
    """
    header, rows = _rows_of(path)
    place = {str(name): row for row, name in enumerate(names)}
    columns = {name: np.full(len(names), NONE, object) for name in header if name != "image"}
    listed = np.zeros(len(names), bool)
    elsewhere = 0
    for where, cells in rows:
        image = cells["image"].replace("\\", "/")
        parts = PurePosixPath(image).parts
        ends = (image, *("/".join(parts[k:]) for k in range(len(parts))))
        row = next((place[end] for end in ends if end in place), None)
        if row is None:
            elsewhere += 1
            continue
        if listed[row]:
            raise DataError(f"{where}: image '{image}' is listed twice; keep one row")
        listed[row] = True
        for name, column in columns.items():
            column[row] = cells[name]
    if not listed.any():
        raise DataError(
            f"{path}: lists none of the {len(names):,} images, the first of which is '{names[0]}'; "
            "write their names as they are in the data set"
        )
    return Groupings(
        {name: column.astype(str) for name, column in columns.items()},
        int((~listed).sum()),
        elsewhere,
    )


def _rows_of(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The names of the columns; and each row by them, with the words for where it stands."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            lines = [(f"{path}, line {reader.line_num}", cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({error}); save it so") from error
    if "image" not in header or len(header) < 2:
        raise DataError(
            f"{path}: has the columns {', '.join(header) or 'none'}; give image and one or more "
            "groupings separated by commas, such as image,age,device"
        )
    if len(set(header)) < len(header) or "" in header:
        raise DataError(f"{path}: two columns share a name, or one has none; name each")
    rows = []
    for where, cells in lines:
        if len(cells) != len(header):
            raise DataError(f"{where}: has {len(cells)} cells for {len(header)} columns")
        stripped = (cell.strip() for cell in cells)
        rows.append((where, dict(zip(header, stripped, strict=True))))
    return header, rows


def slices(images: np.ndarray) -> dict[str, np.ndarray]:
    """Quarters of the images by what needs no annotation.

    Brightness and contrast are mean and deviation of the grey values, sharpness is the variance of
    their Laplacian (J. L. Pech-Pacheco and others, ICPR 2000), low for a blurred image.
    Left-right asymmetry is 1 minus the correlation of an image with its mirror image: a head that
    is turned or tilted raises it, and so does light from one side.

    Parameters
    ----------
    images : uint8 ``[N, S, S]`` or RGB ``[N, S, S, 3]``

    Returns
    -------
    dict of str arrays ``[N]``
        the name of each image's quarter, such as ``"2nd quarter (0.31 to 0.42)"``; equal values
        share a quarter, so that some may be larger, or missing.
    """
    values = np.array([_seen(to_channels(image, 1)) for image in images])
    names = ("brightness", "contrast", "sharpness", "left-right asymmetry")
    return {name: _quarters(column) for name, column in zip(names, values.T, strict=True)}


def _seen(grey: np.ndarray) -> tuple[float, float, float, float]:
    pixels = grey / 255
    apart = pixels - pixels.mean()
    variance = (apart**2).mean()
    mirrored = (apart * apart[:, ::-1]).mean()
    return (
        pixels.mean(),
        np.sqrt(variance),
        cv2.Laplacian(pixels, cv2.CV_64F).var(),
        1 - mirrored / variance if variance > 0 else 0.0,
    )


def _quarters(values: np.ndarray) -> np.ndarray:
    bounds = np.quantile(values, (0.25, 0.5, 0.75))
    number = np.searchsorted(bounds, values, side="left")
    names = np.full(len(values), NONE, object)
    for quarter, ordinal in enumerate(("1st", "2nd", "3rd", "4th")):
        inside = values[number == quarter]
        if len(inside):
            names[number == quarter] = (
                f"{ordinal} quarter ({inside.min():.3g} to {inside.max():.3g})"
            )
    return names.astype(str)


def by_group(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    columns: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, Grouped]:
    """Measure a model on each group, and test the largest difference of each grouping.

    Parameters
    ----------
    probabilities, labels : float ``[n, C]`` and int ``[n]`` of the images that are measured on
    columns : by name of the grouping, str ``[n]``; those given together are one family for Holm
    seed : of the permutations
    """
    from mien.evaluation.ranks import holm

    right = probabilities.argmax(1) == labels
    groups, gaps = {}, {}
    for name, column in columns.items():
        groups[name] = {
            str(group): measured(probabilities[column == group], labels[column == group], classes)
            for group in np.unique(column[column != NONE])
        }
        compared = [group for group, found in groups[name].items() if found.n >= MINIMUM]
        if len(compared) > 1:
            counts = {group: int(right[column == group].sum()) for group in compared}
            gaps[name] = _gap(counts, {g: groups[name][g].n for g in compared}, seed)
    adjusted = dict(zip(gaps, holm([gap[-1] for gap in gaps.values()]), strict=True))
    return {
        name: Grouped(
            found,
            tuple(group for group, one in found.items() if one.n < MINIMUM),
            int((columns[name] == NONE).sum()),
            Gap(*gaps[name], p_holm=float(adjusted[name])) if name in gaps else None,
        )
        for name, found in groups.items()
    }


def _gap(
    right: Mapping[str, int], sizes: Mapping[str, int], seed: int
) -> tuple[str, str, float, tuple[float, float], float]:
    """Best and worst group, their difference, its interval, and p by permutation."""
    n, hits = np.array([sizes[group] for group in right]), np.array(list(right.values()))
    shares = hits / n
    order = np.argsort(-shares, kind="stable")  # two groups, also where all are equal
    best, worst = (list(right)[order[end]] for end in (0, -1))
    pairs = len(right) * (len(right) - 1) / 2
    # To deal out the images to the groups anew is to draw how many right ones each group gets.
    rng = np.random.default_rng(seed)
    dealt = rng.multivariate_hypergeometric(n, int(hits.sum()), PERMUTATIONS) / n
    as_large = np.ptp(dealt, axis=1) >= np.ptp(shares) - 1e-12
    return (
        best,
        worst,
        float(np.ptp(shares)),
        newcombe_interval(
            (right[best], sizes[best]), (right[worst], sizes[worst]), 1 - ALPHA / pairs
        ),
        float((as_large.sum() + 1) / (PERMUTATIONS + 1)),
    )
