"""What the place of a file in a folder tells: its split and its class."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from mien.data import official
from mien.data.faceset import CLASSES
from mien.errors import DataError
from mien.pixels import shown

SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".jfif",
        ".jpe", ".heic", ".heif", ".avif", ".jp2", ".jxl",
    )
)  # fmt: skip
"""Of what is a picture by its name. Those that cannot be read are an error, not passed over."""

TRAIN = ("training", "train")
VALIDATION = ("publictest", "validation", "valid", "val", "dev")
TEST = ("privatetest", "test", "testing", "private")
SPLITS = (*TRAIN, *VALIDATION, *TEST)
"""Names of splits that are understood, in lower case, in the order in which splits are kept."""


@dataclass(frozen=True)
class Layout:
    """Files in the order of the set, with what their places tell.

    Attributes
    ----------
    paths : str, relative to the root, sorted by split, class and natural order of the names
    names : str, unique: the file name, or the relative path where two files share a name
    labels : int64, -1 where unknown
    split : str
    classes : names of the classes in label order
    empty : folders of classes that hold no image
    official : whether the files bear the names of the official FER-2013 release
    notes : remarks for the user
    """

    paths: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    empty: tuple[str, ...]
    official: bool
    notes: tuple[str, ...]


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A sort key under which ``2`` comes before ``10``, and case does not matter."""
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part.lower())
        for part in re.split(r"(\d+)", text)
        if part
    )


def is_image(path: str) -> bool:
    """Whether a path looks like a picture that somebody put there on purpose."""
    hidden = path.startswith((".", "__MACOSX/")) or "/." in path
    return not hidden and path[path.rfind(".") :].lower() in SUFFIXES


def arrange(paths: Iterable[str], folders: Iterable[str], root: str) -> Layout:
    """Tell split and class of each image from its relative path.

    ``<split>/<class>/file``, ``<class>/file``, a folder named like a split whose files lie flat
    in it (a split without labels), and a folder of files alone (no labels at all) are known, also
    inside one further folder. Names of the official release tell their split themselves, since
    the Kaggle release puts two official splits into ``test``.

    Raises
    ------
    DataError
        Without images, for files deeper than a class or in folders within classes, and for one
        official name at two places.
    """
    images = [path for path in paths if is_image(path)]
    if not images:
        raise DataError(
            f"{root}: no images in it; expected <split>/<class>/*.jpg or <class>/*.jpg, "
            "a zip of such folders, or fer2013.csv"
        )
    found, top, before = len(images), "", None
    while top != before:  # a stray file may also lie in an outer folder that means nothing
        before, images = top, _without_stray(images, top)
        top = _common_top(images)
    stray = _stray(found - len(images))
    parts = {path: path[len(top) :].split("/") for path in images}
    deepest = max(images, key=lambda path: len(parts[path]))
    if len(parts[deepest]) > 3:
        raise DataError(
            f"{root}: {deepest} lies deeper than <split>/<class>/file; move the class folders up, "
            "or give the folder that holds them"
        )
    has_splits = len(parts[deepest]) == 3
    places = {path: _place(parts[path], has_splits) for path in images}
    if has_splits:
        _refuse_classes_of_folders({places[path] for path in images}, root)
    classes, numbers, notes = _classes({label for _, label in places.values() if label is not None})
    official_names = sum(official.split_of(parts[path][-1]) is not None for path in images)
    is_official = official_names * 2 > len(images)
    by_name = is_official and not _divided((places[path][0], parts[path][-1]) for path in images)
    if is_official and not by_name:
        otherwise = "the names are FER-2013's and the folders divide them otherwise; these count"
        notes = (*notes, otherwise)

    rows = []
    for path in images:
        folder, label = places[path]
        name = parts[path][-1]
        split = official.split_of(name) if by_name else None
        if by_name and split is None:
            split = "Training" if folder.lower() in TRAIN else folder
        number = -1 if label is None else numbers[label]
        rows.append((_rank(split or folder), number, natural(path), path, split or folder))
    rows.sort()
    if is_official:
        _refuse_doubles(((row[3], row[4], row[1]) for row in rows), root)
    ordered = tuple(row[3] for row in rows)
    return Layout(
        paths=ordered,
        names=_unique_names(ordered),
        labels=np.array([row[1] for row in rows], np.int64),
        split=np.array([shown(row[4]) for row in rows]),
        classes=classes,
        empty=_empty_folders(images, folders, top, has_splits, classes),
        official=is_official,
        notes=(*stray, *notes),
    )


def _refuse_classes_of_folders(places: set[tuple[str, str | None]], root: str) -> None:
    """Refuse ``<class>/<subject>/file``, which has the form of ``<split>/<class>/file``."""
    outer = sorted({split for split, _ in places})
    inner = sorted({label for _, label in places if label is not None})
    if official.class_numbers(outer) is not None and official.class_numbers(inner) is None:
        raise DataError(
            f"{root}: {', '.join(map(shown, outer))} are classes and hold folders, such as "
            f"{shown(inner[0])}; move the images of each class up into its folder, or put the "
            "classes into the folders of splits: train, validation and test"
        )


def _divided(images: Iterable[tuple[str, str]]) -> bool:
    """Whether somebody divided FER-2013 anew.

    Then most images of some folder are training images to measure with, or the other way round,
    where one or two are astray.
    """
    files, against = Counter[str](), Counter[str]()
    for folder, name in images:
        split, lower = official.split_of(name), folder.lower()
        files[folder] += 1
        if split is not None and lower in SPLITS:
            against[folder] += (split == "Training") != (lower in TRAIN)
    return any(2 * against[folder] > files[folder] for folder in files)


def _without_stray(images: list[str], top: str) -> list[str]:
    """Leave out files beside the folders of the set; without folders, all files are the set."""
    return [path for path in images if "/" in path[len(top) :]] or images


def _stray(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"left out {count:,} images that lie in no folder of a split or class",)


def _common_top(images: list[str]) -> str:
    """The outer folder, or folders, that hold everything and mean nothing."""
    top = ""
    while True:
        rests = [path[len(top) :].split("/") for path in images]
        first = rests[0][0]
        meaningless = (
            max(map(len, rests)) > 2
            and first.lower() not in SPLITS
            and all(len(rest) > 1 and rest[0] == first for rest in rests)
        )
        if not meaningless:
            return top
        top += first + "/"


def _place(parts: list[str], has_splits: bool) -> tuple[str, str | None]:
    """Split and class that a relative path tells."""
    parts = [unicodedata.normalize("NFC", part) for part in parts]
    if len(parts) == 3:
        return parts[0], parts[1]
    if len(parts) == 2 and (has_splits or parts[0].lower() in SPLITS):
        return parts[0], None
    return "all", parts[0] if len(parts) == 2 else None


def _classes(names: set[str]) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """Names in label order, the number of each folder name, and what to tell about it."""
    if not names:
        return CLASSES, {}, ("no class folders: all images are without labels",)
    numbers = official.class_numbers(sorted(names))
    if numbers is not None:
        notes: tuple[str, ...] = ()
        if set(names) == set(official.NUMBERS):
            notes = (
                "the class folders 0 to 6 are read as the official numbers of FER-2013; if yours "
                "are numbered otherwise, as AffectNet's are, rename them",
            )
        there = sorted(set(numbers.values()))
        classes = tuple(CLASSES[number] for number in there)
        if absent := [name for name in CLASSES if name not in classes]:
            notes = (f"no image of {', '.join(absent)}: these are no classes of the set",)
        return classes, {name: there.index(numbers[name]) for name in numbers}, notes
    ordered = tuple(sorted(names, key=lambda name: (natural(name), name)))
    classes = tuple(map(shown, ordered))
    note = f"class names are not those of FER-2013; their order is {', '.join(classes)}"
    return classes, {name: number for number, name in enumerate(ordered)}, (note,)


@cache
def _rank(split: str) -> tuple[int, tuple[tuple[int, str], ...]]:
    lower = split.lower()
    return SPLITS.index(lower) if lower in SPLITS else len(SPLITS), natural(split)


def _unique_names(paths: tuple[str, ...]) -> np.ndarray:
    """File names, or relative paths where two files share one, as some of FER-2013 do."""
    paths = tuple(map(shown, paths))
    names = [path.rpartition("/")[2] for path in paths]
    times = Counter(names)
    return np.array(
        [name if times[name] == 1 else path for name, path in zip(names, paths, strict=True)]
    )


def _refuse_doubles(rows: Iterable[tuple[str, str, int]], root: str) -> None:
    """Refuse one official image at two places, once with and once without its label.

    Two images of one name with two labels are no fault: the Kaggle release has such pairs.
    """
    labelled: dict[tuple[str, str], list[str]] = {}
    unlabelled: dict[tuple[str, str], str] = {}
    for path, split, label in rows:
        key = split, path.rpartition("/")[2]
        if label < 0:
            if key in unlabelled:
                raise _double(root, key[1], path, unlabelled[key])
            unlabelled[key] = path
        else:
            labelled.setdefault(key, []).append(path)
    for key in unlabelled.keys() & labelled.keys():
        raise _double(root, key[1], labelled[key][0], unlabelled[key])


def _double(root: str, name: str, first: str, second: str) -> DataError:
    return DataError(
        f"{root}: {name} stands twice, as {first} and as {second}; delete one of the two"
    )


def _empty_folders(
    images: list[str],
    folders: Iterable[str],
    top: str,
    has_splits: bool,
    classes: tuple[str, ...],
) -> tuple[str, ...]:
    """Folders of classes without a single image.

    Where the classes are official ones, a folder with any other name is none of them.
    """
    filled = {path.rpartition("/")[0] for path in images}
    empty = []
    for folder in set(folders) - filled:
        parts = folder[len(top) :].split("/") if folder.startswith(top) else []
        name = parts[-1] if parts else ""
        ignored = not name or name.startswith(".") or folder.startswith(("__MACOSX", "."))
        if ignored or len(parts) != (2 if has_splits else 1) or name.lower() in SPLITS:
            continue
        if not set(classes) <= set(CLASSES) or official.class_numbers([name]) is not None:
            empty.append(folder)
    return tuple(sorted(empty, key=natural))
