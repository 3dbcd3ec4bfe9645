"""How many images of each class to generate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mien.errors import DataError, RecipeError, unknown

MOST = 10_000_000
"""The highest count that is taken for one: what is more is a slip of the keyboard."""


def to_generate(
    counts: np.ndarray | Sequence[int], classes: Sequence[str], lift: int | str | Mapping[str, int]
) -> np.ndarray:
    """How many images to generate of each class, so that small classes are lifted.

    Parameters
    ----------
    counts : int ``[C]``, images that each class has
    classes : their C names
    lift : an int or its text, such as ``"5670"``: every class with fewer images gets so many in
        all, the rule behind the paper's Table III; ``"equal"``: as many as the largest class has;
        or how many images in all for some classes, as a mapping or a text such as
        ``"disgust=5670,fear=5000"``, while the others stay as they are

    Returns
    -------
    int64 array ``[C]``

    Raises
    ------
    RecipeError
        for a lift that is none of these, an unknown class, one that would have to give up images,
        and a lift that lifts no class.
    DataError
        for a class to be lifted that has fewer than two images.
    """
    have = np.asarray(counts, np.int64)
    asked = _parsed(lift)
    if isinstance(asked, Mapping):
        total = _totals(asked, have, classes)
    else:
        total = np.maximum(have, have.max() if asked == "equal" else asked)
    missing = total - have
    if not missing.any():
        smallest = int(have.argmin())
        raise RecipeError(
            f"generate '{lift}' lifts no class: already the smallest, '{classes[smallest]}', has "
            f"{have[smallest]:,} images; give a higher number, or leave generate out"
        )
    for name, images, more in zip(classes, have, missing, strict=True):
        if more and images < 2:
            raise DataError(
                f"class '{name}' has {images} image(s) to learn from, and {more:,} of it are to be "
                "generated: that needs two at the least; add images, or leave the class out"
            )
    return missing


def _parsed(lift: int | str | Mapping[str, int]) -> int | str | Mapping[str, int]:
    """A lift whose text is read: an int, ``"equal"``, or counts by class."""
    if isinstance(lift, Mapping):
        return {name: _count(number, f"{name}={number}") for name, number in lift.items()}
    if not isinstance(lift, str):
        return _count(lift, lift)
    if lift.strip() == "equal":
        return "equal"
    if "=" in lift:
        return _by_class(lift.split(","), lift)
    return _count(lift, lift)


def _by_class(parts: Iterable[str], lift: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for part in parts:
        # A class may have the name of a folder with '=' in it; a number has none.
        name, _, number = part.rpartition("=")
        name = name.strip()
        if name in found:
            raise RecipeError(f"generate '{lift}': gives class '{name}' twice; give it once")
        found[name] = _count(number, lift)
    return found


def _count(number: object, lift: object) -> int:
    if isinstance(number, str) and number.strip().isdecimal():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise RecipeError(
            f"generate '{lift}' is no lift: give the images that every class is to have (5670), "
            "'equal', or those of some classes (disgust=5670,fear=5000)"
        )
    if not 1 <= number <= MOST:
        raise RecipeError(f"generate '{lift}': {number} is outside 1 to {MOST}")
    return int(number)


def _totals(asked: Mapping[str, int], have: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    total = have.copy()
    for name, number in asked.items():
        if name not in classes:
            raise RecipeError(f"generate: {unknown('class', name, classes)}")
        at = list(classes).index(name)
        if number < have[at]:
            raise RecipeError(
                f"generate: class '{name}' has {have[at]:,} images, more than the {number:,} it is "
                f"to be lifted to; give a number above {have[at]:,}, or leave the class out of it"
            )
        total[at] = number
    return total
