"""The audit of a data set: repeated images, blank images, and labels that others dispute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mien.data.faceset import FaceSet

NEAR_DISTANCE = 10
"""Largest number of differing bits, of 64, between the perceptual hashes of near-copies."""

NEAR_CORRELATION = 0.9
"""Least correlation of the pixels of near-copies."""

BLANK_DEVIATION = 3.0
"""An image whose grey values (0 to 255) have a smaller standard deviation is blank."""

_BLOCK = 1024


@dataclass(frozen=True)
class Copies:
    """Groups of pixel-for-pixel equal images within one split.

    Attributes
    ----------
    split : name of the split
    groups : names of the images of each group of two or more, in the order of the data set
    contradictory : those of the groups whose images have two or more different labels (images
        without a label are not asked)
    """

    split: str
    groups: tuple[tuple[str, ...], ...]
    contradictory: tuple[tuple[str, ...], ...]

    @property
    def superfluous(self) -> tuple[str, ...]:
        """The images beyond the first of each group: what a set without copies would lack."""
        return tuple(name for group in self.groups for name in group[1:])


@dataclass(frozen=True)
class Overlap:
    """The images of one split that stand pixel for pixel in another.

    Attributes
    ----------
    split, within : of the two splits, `split` is the one with fewer images; of two equal ones,
        the one that comes later in the data set
    names : images of `split` of which `within` has at least one copy, each counted once
    """

    split: str
    within: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class NearPair:
    """Two images that show the same picture though their pixels are not all equal.

    Attributes
    ----------
    names, splits : of the two images, in the order of the data set
    distance : differing bits of the 64 of their perceptual hashes, at most `NEAR_DISTANCE`
    correlation : Pearson correlation of their pixels, at least `NEAR_CORRELATION`
    """

    names: tuple[str, str]
    splits: tuple[str, str]
    distance: int
    correlation: float


@dataclass(frozen=True)
class Dispute:
    """Images of one class that voters saw otherwise.

    Attributes
    ----------
    label : name of the class
    compared : number of images with this label and with votes
    names : those of them for which another class has more votes than the label has; where the
        label shares the most votes with another class, the vote agrees
    """

    label: str
    compared: int
    names: tuple[str, ...]

    @property
    def share(self) -> float:
        """Disputed images as a share of the compared ones; NaN where none were compared."""
        return len(self.names) / self.compared if self.compared else float("nan")


@dataclass(frozen=True)
class Audit:
    """What `audit` found.

    Attributes
    ----------
    name : name of the data set
    copies : one entry for each split
    overlaps : one entry for each pair of splits
    near : near-copies. Of equal images within a split only the first is compared, and exact copies
        and blank images are no near-copies
    blank : names of the nearly constant images of each split
    disputes : one entry for each class, over all splits; empty where no votes are given
    """

    name: str
    copies: tuple[Copies, ...]
    overlaps: tuple[Overlap, ...]
    near: tuple[NearPair, ...]
    blank: dict[str, tuple[str, ...]]
    disputes: tuple[Dispute, ...]

    def rows(self) -> list[tuple[str, str, int]]:
        """The audit as a table: (finding, split, number)."""
        rows = []
        for copies in self.copies:
            rows += [
                ("exact copies beyond the first", copies.split, len(copies.superfluous)),
                ("groups of exact copies", copies.split, len(copies.groups)),
                ("groups with different labels", copies.split, len(copies.contradictory)),
            ]
        for overlap in self.overlaps:
            where = f"{overlap.split} in {overlap.within}"
            rows.append(("exact copies across splits", where, len(overlap.names)))
        splits = [copies.split for copies in self.copies]
        for i, first in enumerate(splits):
            for second in splits[i:]:
                number = sum({first, second} == set(pair.splits) for pair in self.near)
                where = first if first == second else f"{first} and {second}"
                rows.append(("pairs of near-copies", where, number))
        rows += [("blank images", split, len(names)) for split, names in self.blank.items()]
        for dispute in self.disputes:
            rows += [
                (f"{dispute.label}: images with votes", "all", dispute.compared),
                (f"{dispute.label}: most votes for another class", "all", len(dispute.names)),
            ]
        return rows


def audit(faces: FaceSet) -> Audit:
    """Look for copies, near-copies, blank images and disputed labels.

    Each number is defined at the field that holds it. On FER-2013's Training split 1,234 images
    are superfluous copies, and 40 groups are contradictory.
    """
    blank = _is_blank(faces.images)
    return Audit(
        name=faces.name,
        copies=tuple(_copies(faces, split) for split in faces.splits),
        overlaps=tuple(_overlaps(faces)),
        near=tuple(_near_pairs(faces, blank)),
        blank={s: _names(faces, blank & (faces.split == s)) for s in faces.splits},
        disputes=tuple(_disputes(faces)),
    )


def _names(faces: FaceSet, chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(faces.names[chosen].tolist())


def _copies(faces: FaceSet, split: str) -> Copies:
    part = faces[split]
    order = np.argsort(part.groups, kind="stable")
    starts = np.flatnonzero(np.diff(part.groups[order])) + 1
    members = sorted((m for m in np.split(order, starts) if len(m) > 1), key=lambda m: m[0])
    different = [m for m in members if len(set(part.labels[m].tolist()) - {-1}) > 1]
    return Copies(
        split=split,
        groups=tuple(_names(part, m) for m in members),
        contradictory=tuple(_names(part, m) for m in different),
    )


def _overlaps(faces: FaceSet) -> Iterator[Overlap]:
    for pair in combinations(faces.splits, 2):
        larger, smaller = sorted((faces[split] for split in pair), key=len, reverse=True)
        stands = np.isin(smaller.groups, larger.groups)
        yield Overlap(str(smaller.split[0]), str(larger.split[0]), _names(smaller, stands))


def _is_blank(images: np.ndarray) -> np.ndarray:
    """Which images are nearly constant, in colour images in every channel: bool ``[N]``."""
    blank = np.empty(len(images), bool)
    for i in range(0, len(images), _BLOCK):
        deviation = images[i : i + _BLOCK].std(axis=(1, 2), dtype=np.float32)
        blank[i : i + _BLOCK] = deviation.reshape(len(deviation), -1).max(axis=1) < BLANK_DEVIATION
    return blank


def perceptual_bits(images: np.ndarray) -> np.ndarray:
    """Perceptual hashes by the discrete cosine transform, float32 ``[N, 64]`` of -1 and 1.

    A bit tells whether one of the 8 x 8 lowest frequencies of the image, each channel's mean taken
    for colour, is above their median. The constant frequency says nothing of the picture; it is
    left out of the median, and its bit is always 1. The low frequencies are taken from the image
    itself, without shrinking it before. Two hashes a and b differ in ``(64 - a @ b) / 2`` bits.

    After C. Zauner: Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    height, width = images.shape[1:3]
    down, across = _cosines(height), _cosines(width)
    bits = np.ones((len(images), 64), np.float32)
    for i in range(0, len(images), _BLOCK):
        frequencies = (down @ _grey(images[i : i + _BLOCK]) @ across.T).reshape(-1, 64)[:, 1:]
        above = frequencies > np.median(frequencies, axis=1, keepdims=True)
        bits[i : i + _BLOCK, 1:] = np.where(above, 1, -1)
    return bits


def _cosines(n: int) -> np.ndarray:
    """The eight lowest rows of the DCT-II matrix for `n` samples (not normalised)."""
    return np.cos(np.pi * np.arange(8)[:, None] * (np.arange(n) + 0.5) / n).astype(np.float32)


def _grey(images: np.ndarray) -> np.ndarray:
    grey = images.astype(np.float32)
    return grey if grey.ndim == 3 else grey.mean(axis=3)


def _near_pairs(faces: FaceSet, blank: np.ndarray) -> Iterator[NearPair]:
    _, split = np.unique(faces.split, return_inverse=True)
    _, first = np.unique(np.stack([faces.groups, split], axis=1), axis=0, return_index=True)
    first = np.sort(first[~blank[first]])
    bits = perceptual_bits(faces.images[first])
    for i in range(0, len(first), _BLOCK):
        # The product of all hashes is cheaper than an index of them: hashes of faces crowd
        # together, and an index would find most of the pairs in a few crowded cells.
        agreement = bits[i : i + _BLOCK] @ bits[i:].T
        a, b = np.nonzero(agreement >= 64 - 2 * NEAR_DISTANCE)
        distance = (64 - agreement[a, b]).astype(int) // 2
        a, b = first[i + a], first[i + b]
        different = (a < b) & (faces.groups[a] != faces.groups[b])
        a, b, distance = a[different], b[different], distance[different]
        correlation = _correlation(faces.images, a, b)
        for k in np.flatnonzero(correlation >= NEAR_CORRELATION):
            pair = [a[k], b[k]]
            names, splits = faces.names[pair].tolist(), faces.split[pair].tolist()
            yield NearPair(tuple(names), tuple(splits), int(distance[k]), float(correlation[k]))


def _correlation(images: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of the pixels of image ``a[i]`` with those of ``b[i]``, float ``[n]``."""
    found = np.empty(len(a), np.float32)
    for i in range(0, len(a), _BLOCK):
        x, y = (_standardise(images[index[i : i + _BLOCK]]) for index in (a, b))
        found[i : i + _BLOCK] = (x * y).sum(axis=1)
    return found


def _standardise(images: np.ndarray) -> np.ndarray:
    """Flattened images of mean 0 and length 1."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _disputes(faces: FaceSet) -> Iterator[Dispute]:
    if faces.soft is None:
        return
    known = (faces.labels >= 0) & np.isfinite(faces.soft).all(axis=1)
    own = np.take_along_axis(faces.soft, np.maximum(faces.labels, 0)[:, None], axis=1)[:, 0]
    disputed = known & (own < faces.soft.max(axis=1))
    for number, label in enumerate(faces.classes):
        of_class = faces.labels == number
        yield Dispute(label, int((known & of_class).sum()), _names(faces, disputed & of_class))
