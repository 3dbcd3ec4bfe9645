"""What a setting is judged by: accuracy on images that are neither trained on nor the final test.

Unless it is asked for by name: the paper's own protocol chose on its test images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mien.data.faceset import FaceSet
from mien.data.splits import roles
from mien.errors import DataError, unknown
from mien.runs.run import Run

PROTOCOLS = ("clean", "paper")


class Fold(Protocol):
    """A division of the training split: rows to train on, and rows held out."""

    @property
    def train(self) -> np.ndarray: ...
    @property
    def held_out(self) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Objective:
    """What is trained on and measured.

    Attributes
    ----------
    faces : the images that a worker needs, and no others
    parts : rows of `faces` to train on and rows to measure on, a pair for each training of a trial
    protocol : ``"clean"`` or ``"paper"``
    text : what the value of a trial is, for tables
    """

    faces: FaceSet
    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    protocol: str
    text: str

    @property
    def images(self) -> int:
        """Images trained on in an epoch of every training of a trial."""
        return sum(len(train) for train, _ in self.parts)

    @property
    def measured(self) -> int:
        """Images that a trial's value is measured on."""
        return sum(len(held_out) for _, held_out in self.parts)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the images and their parts."""
        digest = hashlib.sha256(self.faces.fingerprint_with_votes.encode())
        for part in self.parts:
            for rows in part:
                digest.update(b"-" + np.asarray(rows, np.int64).tobytes())
        return digest.hexdigest()[:16]

    def value(self, run: Run) -> float:
        """Accuracy of a finished run on the images measured on, a share of 1."""
        if self.protocol == "clean":
            return float(run.log[-1]["validation_accuracy"])
        found = run.predictions(run.validation_split)
        return float((found.probabilities.argmax(1) == found.labels).mean())


def create_objective(
    faces: FaceSet, protocol: str = "clean", folds: Sequence[Fold] = ()
) -> Objective:
    """The objective of a search on a data set.

    Parameters
    ----------
    faces : the data set; `mien.data.roles` tells its splits apart
    protocol : ``"clean"`` measures on the validation images that do not stand in the training
        split; ``"paper"`` on all labelled images of the validation and the test split, the paper's
        20 %, which makes the best value optimistic
    folds : divisions of the training split, in rows of ``faces[roles(faces)[1].train]``; if given,
        the mean over them is measured instead

    Raises
    ------
    DataError
        if nothing is left to measure on, or the paper's protocol is asked for where there is no
        labelled test split.
    """
    if protocol not in PROTOCOLS:
        raise DataError(unknown("protocol", protocol, PROTOCOLS))
    faces, found = roles(faces)
    if folds and protocol == "paper":
        raise DataError("the paper's protocol measures on its test images: give no folds with it")
    if folds:
        faces = faces[found.train]
        parts = tuple((np.asarray(f.train), np.asarray(f.held_out)) for f in folds)
        text = f"mean accuracy over {len(folds)} inner folds of '{found.train}'"
        return Objective(faces, parts, protocol, text)
    if protocol == "paper":
        if found.test is None or not faces[found.test].labelled:
            what = "no test split" if found.test is None else f"no labels for '{found.test}'"
            raise DataError(
                f"{faces.name}: the paper's protocol chooses on the test images, and there is "
                f"{what}; use the clean protocol, or read a release with the labels of the test"
            )
        whole = f"{found.validation} and {found.test}"
        measured = np.isin(faces.split, [found.validation, found.test])
        # Under its own name `fit` refuses a test split, as it should.
        faces = replace(faces, split=np.where(measured, whole, faces.split))
        text = f"accuracy on '{whole}', test images chosen on as the paper did"
    else:
        seen = np.isin(faces.groups, faces.groups[faces.split == found.train])
        measured = (faces.split == found.validation) & ~seen
        if not measured.any():
            raise DataError(
                f"{faces.name}: every image of '{found.validation}' stands in '{found.train}' too, "
                "so nothing can be chosen on it; choose on inner folds"
            )
        text = f"accuracy on '{found.validation}', without copies of images of '{found.train}'"
    faces = faces[measured | (faces.split == found.train)]
    train = faces.split == found.train
    return Objective(faces, ((np.flatnonzero(train), np.flatnonzero(~train)),), protocol, text)
