"""Validation schemes: how a set is divided into images to train on and images held out.

Whatever the scheme, images that are pixel-for-pixel equal (`FaceSet.groups`) never stand on both
sides of a fold, and the final test split is no part of it. Nor are generated images: they are never
held out, and a generator is fitted again in the training part of each fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mien.data.faceset import FaceSet
from mien.data.layout import TEST
from mien.data.splits import DIVIDE, carve, copies, refuse_generated, roles
from mien.errors import DataError


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of a `FaceSet` in two.

    Attributes
    ----------
    name : such as ``"fold 3 of 10"``
    train : int ``[n_train]``, sorted rows of the set
    held_out : int ``[n_held_out]``, sorted rows of the set
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray


def hold_out(faces: FaceSet, share: float = 0.2, seed: int = 0) -> list[Fold]:
    """Hold out a share of every class, drawn at random: the paper's 80:20.

    Raises
    ------
    DataError
        for a share outside (0, 1), images of a final test split, generated or without a label,
        and a class with a single distinct image.
    """
    _check(faces, 2, "a hold-out")
    whole = replace(faces, split=np.full(len(faces), "train"))
    carved = carve(whole, "train", {"held out": share}, seed)
    return [_fold("hold-out", carved.split == "held out")]


def official(faces: FaceSet) -> list[Fold]:
    """The training split against the validation split, as the release of the set divides them.

    Validation images that stand in the training split too are on neither side.

    Raises
    ------
    DataError
        where the set has no such splits, or the first lacks a class, and for images of a final test
        split, without a label, or generated and not in the training split.
    """
    _check(faces, 1, "the official splits")
    _, found = roles(faces)
    for split in (found.train, found.validation):
        if split not in faces.splits:
            raise DataError(
                f"{faces.name}: has no official split '{split}' (only "
                f"{', '.join(faces.splits)}); use the hold-out or k-fold instead"
            )
    train = np.flatnonzero(faces.split == found.train)
    new = ~np.isin(faces.groups, faces.groups[train])
    return [Fold("official", train, np.flatnonzero((faces.split == found.validation) & new))]


def k_fold(faces: FaceSet, folds: int = 10, seed: int = 0) -> list[Fold]:
    """Divide the set into so many parts and hold out each once; every class in equal shares.

    Raises
    ------
    DataError
        for fewer than two folds, images of a final test split, generated or without a label, and
        a class with fewer distinct images than there are folds.
    """
    if folds < 2:
        raise DataError(f"{folds} fold(s): nothing is left to train on; give two or more")
    _check(faces, folds, f"{folds} folds")
    part = _divide(faces, folds, np.random.default_rng(seed))
    return [_fold(f"fold {number + 1} of {folds}", part == number) for number in range(folds)]


def five_by_two(faces: FaceSet, seed: int = 0) -> list[Fold]:
    """Five times two halves, each held out once: ten folds for the 5x2cv tests.

    ``repeat 1, half 1`` holds out the first half of the first division, ``repeat 1, half 2`` the
    second, and so on: T. G. Dietterich, Approximate statistical tests for comparing supervised
    classification learning algorithms, Neural Computation 10 (1998).

    Raises
    ------
    DataError
        as `k_fold`, for two folds.
    """
    _check(faces, 2, "two halves")
    return [
        _fold(f"repeat {repeat}, half {half + 1}", part == half)
        for repeat in range(1, 6)
        for part in [_divide(faces, 2, np.random.default_rng((seed, repeat)))]
        for half in range(2)
    ]


SCHEMES: dict[str, Callable[..., list[Fold]]] = {
    "hold-out": hold_out,
    "official": official,
    "k-fold": k_fold,
    "5x2": five_by_two,
}
"""Every scheme by name."""


def _divide(faces: FaceSet, parts: int, rng: np.random.Generator) -> np.ndarray:
    """The part of each image, int ``[N]``: copies together, every class in equal shares.

    Groups are dealt out, the largest first, each to the part with the fewest images of its class,
    among equals to the one with the fewest images at all. So a class differs between two parts by
    its largest group at the most (but for copies with several labels), and a class with a group
    for each part is in each. Among parts that are equal in both, chance decides, or the largest
    groups would meet in every repeat.
    """
    refuse_generated(faces, f"{faces.name}, to be divided", DIVIDE)
    group, votes = copies(faces.groups, faces.labels, len(faces.classes))
    label, size = votes.argmax(1), votes.sum(1)
    loads = np.zeros((parts, len(faces.classes)), np.int64)
    part_of_group = np.empty(len(votes), np.int64)
    # Class by class among groups of equal size: interleaved, the ties would not even out.
    for number in np.lexsort((rng.random(len(votes)), label, -size)):
        part = np.lexsort((rng.random(parts), loads.sum(1), loads[:, label[number]]))[0]
        part_of_group[number] = part
        loads[part] += votes[number]
    return part_of_group[group]


def _fold(name: str, held_out: np.ndarray) -> Fold:
    return Fold(name, np.flatnonzero(~held_out), np.flatnonzero(held_out))


def _check(faces: FaceSet, parts: int, what: str) -> None:
    """Refuse images that must not or cannot be divided."""
    for split in faces.splits:
        if split.lower() in TEST:
            raise DataError(
                f"{faces.name}: '{split}' is a final test split, which is opened once, at the end; "
                "divide the other splits alone"
            )
    if unlabelled := int((faces.labels < 0).sum()):
        raise DataError(
            f"{faces.name}: {unlabelled:,} of {len(faces):,} images have no label; leave them out"
        )
    _, votes = copies(faces.groups, faces.labels, len(faces.classes))
    distinct = np.bincount(votes.argmax(1), minlength=len(faces.classes))
    for name, count in zip(faces.classes, distinct, strict=True):
        if count < parts:
            raise DataError(
                f"{faces.name}: class '{name}' has {count} distinct image(s), too few for {what}; "
                "add images, leave the class out, or divide into fewer parts"
            )
