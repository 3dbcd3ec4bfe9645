"""A set of face images: the one form in which every reader gives its data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from mien.data.mapped import Mapped
from mien.errors import DataError

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions in the order and with the numbers of the official FER-2013 release."""

SKETCH = 1024
"""Images of a set that its sketch holds: of FER-2013's Training one in 28."""


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Face images of one size with their labels, names and splits.

    Attributes
    ----------
    images : uint8 array ``[N, H, W]`` (grey) or ``[N, H, W, 3]`` (RGB), in memory or mapped
        read-only from the file of a store (`mien.data.store`)
    labels : int64 array ``[N]``, an index into `classes`; -1 where unknown
    classes : names of the classes in label order
    names : str array ``[N]``, the file (or row) each image came from, unique within the set
    split : str array ``[N]``, the split each image belongs to, such as ``"Training"``
    groups : int64 array ``[N]``; images that are pixel-for-pixel equal share a number
    origin : str array ``[N]``: ``"real"``, ``"drawn"`` or ``"generated"``
    soft : float32 array ``[N, C]`` of label probabilities (rows of NaN where unknown), or None
    weights : float32 array ``[N]``, or None
    name : what the set is called in tables
    notes : remarks of the reader for the user: differences from the official counts, skipped files
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: np.ndarray
    split: np.ndarray
    groups: np.ndarray = None  # type: ignore[assignment]
    origin: np.ndarray = None  # type: ignore[assignment]
    soft: np.ndarray | None = None
    weights: np.ndarray | None = None
    name: str = "faces"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.images)
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) < 3 or shape[3:] not in ((), (3,)):
            raise DataError(
                f"{self.name}: images must be uint8 [N, H, W] or [N, H, W, 3], "
                f"not {self.images.dtype} {list(self.images.shape)}"
            )
        if self.groups is None:
            object.__setattr__(self, "groups", groups_of_equal_images(self.images))
        if self.origin is None:
            object.__setattr__(self, "origin", np.full(n, "real"))
        for key in ("labels", "names", "split", "groups", "origin", "soft", "weights"):
            column = getattr(self, key)
            if column is not None and len(column) != n:
                raise DataError(f"{self.name}: {len(column)} {key} for {n} images")
        if n and int(self.labels.max()) >= len(self.classes):
            raise DataError(
                f"{self.name}: label {int(self.labels.max())} has no name; "
                f"the classes are {', '.join(self.classes)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: str | slice | np.ndarray | Sequence[int]) -> FaceSet:
        """A split by its name, or the images at a mask, slice or array of positions.

        A slice, and positions that are one, give views; of others the images are copied.
        """
        if isinstance(key, str):
            if key not in self.splits:
                raise DataError(
                    f"{self.name} has no split '{key}'; it has {', '.join(self.splits) or 'none'}"
                )
            key = np.asarray(self.split == key)
        if not isinstance(key, slice):
            key = _as_slice(key, len(self))
        columns = {
            f.name: getattr(self, f.name)[key]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **columns)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits in order of first appearance."""
        names, first = np.unique(self.split, return_index=True)
        return tuple(str(name) for name in names[np.argsort(first)])

    @property
    def size(self) -> int:
        """Height of the images in pixels."""
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return 1 if self.images.ndim == 3 else 3

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return bool(len(self)) and bool((self.labels >= 0).all())

    def counts(self) -> np.ndarray:
        """Images per class, int64 ``[C]``; unlabelled images are not counted."""
        known = self.labels[self.labels >= 0]
        return np.bincount(known, minlength=len(self.classes))

    def stands_in(self, other: FaceSet) -> np.ndarray:
        """Which of these images stand pixel for pixel in `other`: bool ``[N]``."""
        return np.isin(image_hashes(self.images), image_hashes(other.images))

    @cached_property
    def sketch(self) -> str:
        """The least `SKETCH` of the images' digests, 16 hex digits each (bottom-k, Broder 1997).

        By it another set's `among` tells, without these images, whether it holds some of them.
        """
        return b" ".join(np.unique(_short_hashes(self.images))[:SKETCH].tolist()).decode()

    def among(self, sketch: str) -> np.ndarray:
        """Which of these images stand, pixel for pixel, in the `sketch` of a set: bool ``[N]``."""
        return np.isin(_short_hashes(self.images), sketch.encode().split())

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over pixels, labels, classes and weights.

        Whether votes were read too changes nothing: the images are the same ones.
        """
        return self._digest(None)

    @cached_property
    def fingerprint_with_votes(self) -> str:
        """16 hex digits over all that a training could see; without votes the `fingerprint`."""
        return self._digest(self.soft)

    def _digest(self, votes: np.ndarray | None) -> str:
        digest = hashlib.sha256()
        digest.update(repr((self.images.shape, self.classes)).encode())
        for column in (self.images, self.labels, votes, self.weights):
            if column is None:
                digest.update(b"-")
                continue
            # Part by part: of a set that is mapped from a file, a copy may not fit into memory.
            for start in range(0, len(column), 1024):
                digest.update(np.ascontiguousarray(column[start : start + 1024]).reshape(-1).data)
        return digest.hexdigest()[:16]

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: images that are mapped from a file go by its name, not by their bytes."""
        return {**self.__dict__, "images": Mapped.of(self.images) or self.images}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        self.__dict__.update(state, images=images.open() if isinstance(images, Mapped) else images)


def _as_slice(key: np.ndarray | Sequence[int], count: int) -> np.ndarray | Sequence[int] | slice:
    """Positions in `count`, or a mask of them, as a slice where they are one unbroken stretch."""
    rows = np.asarray(key)
    if rows.dtype == bool and rows.shape == (count,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
        return key
    unbroken = rows[0] >= 0 and rows[-1] < count and (np.diff(rows) == 1).all()
    return slice(int(rows[0]), int(rows[-1]) + 1) if unbroken else key


def image_hashes(images: np.ndarray) -> np.ndarray:
    """A 16-byte digest of each image's pixels, ``[N]`` of dtype S32 (hex)."""
    return np.array(
        [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images],
        dtype="S32",
    )


def _short_hashes(images: np.ndarray) -> np.ndarray:
    return image_hashes(images).astype("S16")


def groups_of_equal_images(images: np.ndarray) -> np.ndarray:
    """Number the groups of pixel-for-pixel equal images, int64 ``[N]``, by first appearance."""
    if not len(images):
        return np.empty(0, np.int64)
    _, first, inverse = np.unique(image_hashes(images), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
