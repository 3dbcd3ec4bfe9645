"""Training images whose exact copies carry another label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import DataError


def agreement(faces: FaceSet) -> np.ndarray:
    """The share of an image's copies, itself included, that have its label: float32 ``[N]``.

    Copies are the images of a group, pixel for pixel equal; an image without a copy of another
    label has 1.
    """
    _, group, size = np.unique(faces.groups, return_inverse=True, return_counts=True)
    labelled = np.stack((group, faces.labels), 1)
    _, kind, alike = np.unique(labelled, axis=0, return_inverse=True, return_counts=True)
    return (alike[kind.reshape(-1)] / size[group]).astype(np.float32)


def settled(faces: FaceSet, conflicts: str) -> FaceSet:
    """The training images after what is done with those whose copies have other labels.

    Parameters
    ----------
    conflicts : ``"keep"`` leaves them as they are; ``"drop"`` removes all of them; ``"weight"``
        multiplies the weight of each by its `agreement`. Of copies labelled a, a and b the first
        two then weigh 2/3 each and the last 1/3, so the group counts as 5/3 images with a target
        of 4/5 a and 1/5 b; two copies labelled a and b count as one image, half and half.

    Raises
    ------
    DataError
        if no image of a class is left.
    """
    if conflicts == "keep":
        return faces
    share = agreement(faces)
    if (share == 1).all():
        return faces
    if conflicts == "weight":
        weights = share if faces.weights is None else faces.weights * share
        return replace(faces, weights=weights)
    left = faces[share == 1]
    lost = [
        name
        for name, before, after in zip(faces.classes, faces.counts(), left.counts(), strict=True)
        if before and not after
    ]
    if lost:
        raise DataError(
            f"{faces.name}: conflicts = 'drop' leaves no image of {', '.join(lost)}, since all "
            "have copies with other labels; set conflicts to 'weight' or 'keep'"
        )
    return left
