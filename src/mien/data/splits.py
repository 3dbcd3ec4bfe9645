"""Which split is trained on, which one chooses, and which one is the final test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mien.data.faceset import FaceSet
from mien.data.layout import TEST, TRAIN, VALIDATION
from mien.errors import DataError

SINGLE = {"validation": 0.15, "test": 0.15}
"""Shares carved from a set that comes as one split; the other 70 % are trained on."""

DIVIDE = (
    "they may only be trained on: divide the real ones alone, and let `generate` make more from "
    "each training part"
)
"""What to do about generated images in a set that is to be divided."""


@dataclass(frozen=True)
class Roles:
    """Names of the splits with the part each one plays.

    Attributes
    ----------
    train : the split that weights are fitted to
    validation : the split that epochs and settings are chosen on
    test : the split opened once at the end, with labels or without; None where there is none
    """

    train: str
    validation: str
    test: str | None


def roles(faces: FaceSet, *, seed: int = 0, validation_share: float = 0.1) -> tuple[FaceSet, Roles]:
    """Tell the role of each split from its name, and carve the validation split if there is none.

    ``Training`` and ``train`` are trained on; ``PublicTest``, ``validation``, ``valid``, ``val``
    and ``dev`` are validation; ``PrivateTest``, ``private`` and ``test`` are test (case does not
    matter). Where no split is for validation, `validation_share` of each class is carved from
    train. A set that is one split under any other name is carved 70 : 15 : 15 into ``train``,
    ``validation`` and ``test``. See `carve` for how.

    Generated images may stand in train alone, and only where nothing is carved from it: what a
    generator made of images that are then held out would give them away.

    Returns
    -------
    faces : the set, with another column `split` where something was carved
    roles : the splits by role

    Raises
    ------
    DataError
        Where no split is for training, where it has unlabelled images, where it lacks a class
        that another split has, or where generated images stand in another one.
    """
    train, validation, test = (split_named(faces, names) for names in (TRAIN, VALIDATION, TEST))
    if train is None:
        if validation or test or len(faces.splits) != 1:
            raise DataError(
                f"{faces.name}: no split to train on among {', '.join(faces.splits)}; name one "
                "'train' and, if there are more, the others 'validation' and 'test'"
            )
        _refuse_unlabelled(faces, faces.splits[0])
        faces = replace(faces, split=np.full(len(faces), "train"))
        faces, train, validation, test = carve(faces, "train", SINGLE, seed), "train", *SINGLE
    elif validation is None:
        validation = "validation"
        _refuse_unlabelled(faces, train)
        faces = carve(faces, train, {validation: validation_share}, seed)
    _refuse_unlabelled(faces, train)
    found = Roles(train, validation, test)
    if unused := [name for name in faces.splits if name not in (train, validation, test)]:
        note = f"not used, for another has the role or the name tells none: {', '.join(unused)}"
        faces = replace(faces, notes=(*faces.notes, note))
    for split in (validation, test):
        if split is not None:
            refuse_generated(
                faces,
                f"{faces.name}, split '{split}'",
                "they may only be trained on: move them into the training split, or leave them out",
                faces.split == split,
            )
    return _check_classes(faces, found), found


def carve(faces: FaceSet, split: str, shares: Mapping[str, float], seed: int = 0) -> FaceSet:
    """Move shares of a split into new splits, class by class, copies together.

    Images that are pixel-for-pixel equal (`FaceSet.groups`) go to the same split, whatever their
    labels; such a group counts to the class of most of its images. Each new split gets its share
    of every class as nearly as whole groups allow, and at least one group.

    Parameters
    ----------
    split : name of the split to carve from; the rest keeps it
    shares : share of the images of each class by name of the new split, together below 1
    seed : which groups are taken

    Raises
    ------
    DataError
        For shares outside (0, 1), for a name that is taken, for a class with fewer distinct
        images than there are parts, or for generated images in the split.
    """
    if not all(0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise DataError(
            f"shares {', '.join(f'{name} {share:g}' for name, share in shares.items())}: each must "
            "lie between 0 and 1, and together they must leave something to train on"
        )
    for name in shares:
        if name in faces.splits:
            raise DataError(f"{faces.name} has a split '{name}' already; give another name")
    rows = np.flatnonzero(faces.split == split)
    refuse_generated(faces, f"{faces.name}, to be divided", DIVIDE, rows)
    group, votes = copies(faces.groups[rows], faces.labels[rows], len(faces.classes))
    sizes, label = votes.sum(1), votes.argmax(1)
    rng = np.random.default_rng(seed)
    part_of_group = np.zeros(len(sizes), np.int64)
    for number in np.unique(label):
        groups = rng.permutation(np.flatnonzero(label == number))
        if len(groups) <= len(shares):
            raise DataError(
                f"{faces.name}: class '{faces.classes[number]}' has {len(groups)} distinct "
                f"image(s) in split '{split}', too few to carve {', '.join(shares)} from it; add "
                "images, or give these splits yourself"
            )
        part_of_group[groups] = _allot(sizes[groups], list(shares.values()))
    names = np.array([split, *shares])
    column = faces.split.astype(np.result_type(faces.split, names))
    column[rows] = names[part_of_group[group]]
    taken = ", ".join(f"{name} {np.count_nonzero(column == name):,}" for name in shares)
    note = f"carved from {split}, copies together: {taken} images (seed {seed})"
    return replace(faces, split=column, notes=(*faces.notes, note))


def refuse_generated(
    faces: FaceSet, what: str, remedy: str, among: np.ndarray | slice = slice(None)
) -> None:
    """Refuse generated images where only others may stand.

    Parameters
    ----------
    what, remedy : what the images are called in the message, and what it says to do
    among : mask or positions of the images that are looked at

    Raises
    ------
    DataError
        that names the first generated one.
    """
    names = faces.names[among][faces.origin[among] == "generated"]
    if len(names):
        raise DataError(
            f"{what}: {len(names):,} images are generated, the first is '{names[0]}'; {remedy}"
        )


def sample(faces: FaceSet, per_class: int | None) -> FaceSet:
    """At most so many images of each class, drawn at random but always the same; None takes all."""
    if per_class is None:
        return faces
    return faces[_drawn(faces.labels, len(faces.classes), per_class)]


def sample_rows(faces: FaceSet, split: str, per_class: int | None) -> np.ndarray:
    """Where the images of ``sample(faces[split], per_class)`` stand in `faces`, int64 ``[N]``."""
    rows = np.flatnonzero(faces.split == split)
    if per_class is None:
        return rows
    return rows[_drawn(faces.labels[rows], len(faces.classes), per_class)]


def _drawn(labels: np.ndarray, classes: int, per_class: int) -> np.ndarray:
    """Sorted positions of at most so many images of each class, int64 ``[N]``."""
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(classes)
    ]
    return np.sort(np.concatenate(chosen))


def copies(groups: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The G groups of equal images, as a division sees them that keeps each group together.

    Returns
    -------
    group : the group of each image, 0 to G - 1
    votes : images of each class in each group, ``[G, classes]``; a group counts to the class that
        most of its images have, the first of equals
    """
    _, group = np.unique(groups, return_inverse=True)
    votes = np.zeros((int(group.max(initial=-1)) + 1, classes), np.int64)
    np.add.at(votes, (group, labels), 1)
    return group, votes


def _allot(sizes: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The part of each group: 0 for what stays, 1 and on for the shares, ``[G]``."""
    parts = np.zeros(len(sizes), np.int64)
    for part, share in enumerate(shares, start=1):
        left = share * sizes.sum()
        reserved = len(shares) - part + 1  # a group for each part still to come and what stays
        free = np.flatnonzero(parts == 0)
        for position in free:
            spare = np.count_nonzero(parts == 0) - reserved
            # A group that overshoots by more than half of it brings the share no nearer.
            if spare and sizes[position] <= 2 * left:
                parts[position] = part
                left -= sizes[position]
        if not (parts == part).any():
            parts[free[sizes[free].argmin()]] = part
    return parts


def split_named(faces: FaceSet, names: Sequence[str]) -> str | None:
    """The split whose name comes first among `names`."""
    lower = {split.lower(): split for split in faces.splits}
    return next((lower[name] for name in names if name in lower), None)


def _refuse_unlabelled(faces: FaceSet, split: str) -> None:
    unlabelled = int((faces.labels[faces.split == split] < 0).sum())
    if unlabelled:
        raise DataError(
            f"{faces.name}: {unlabelled:,} images of split '{split}' have no label, and it is to "
            "be trained on; put them into class folders or leave them out"
        )


def _check_classes(faces: FaceSet, found: Roles) -> FaceSet:
    """Refuse a training split that lacks a class; note what the others lack."""
    train = faces[found.train].counts()
    notes = []
    for split in (found.validation, found.test):
        if split is None or faces[split].labels.max() < 0:
            continue
        counts = faces[split].counts()
        for number, name in enumerate(faces.classes):
            if counts[number] and not train[number]:
                raise DataError(
                    f"{faces.name}: split '{found.train}' has no image of class '{name}', though "
                    f"'{split}' has {counts[number]:,}; add some, or leave the class out of both"
                )
            if train[number] and not counts[number]:
                notes.append(f"split '{split}' has no image of class '{name}'")
    return replace(faces, notes=(*faces.notes, *notes)) if notes else faces
