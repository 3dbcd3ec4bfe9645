"""Is a generator any good? Its faces beside held-out real ones, every figure with its floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mien.balance.compared import Compared, distances_over_all, halve, kid_of_classes, match
from mien.balance.distances import as_features, nearest
from mien.balance.feature_space import fit_feature_space
from mien.balance.memorisation import compare_nearness, duplicates, is_copy, near_duplicates
from mien.errors import DataError
from mien.jsonable import jsonable
from mien.metrics import wilson_interval


@dataclass(frozen=True, eq=False)
class Sample:
    """Faces as an assessment sees them.

    Attributes
    ----------
    features : float ``[n, D]``, of one expression model for all samples, such as its pooled last
        map
    labels : int ``[n]``: the class of a real face, the class asked for of a generated one
    probabilities : float ``[n, C]`` that an independent classifier gives, which had no part in
        the generator's training; None for the training faces, where they say nothing
    """

    features: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray) -> Sample:
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Sample(self.features[rows], self.labels[rows], probabilities)


@dataclass(frozen=True)
class Agreement:
    """How many of `n` faces the independent classifier puts into their class.

    `interval` is Wilson's 95 % interval of `share`.
    """

    n: int
    agreed: int
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ClassQuality:
    """The generated faces of one class.

    `train`, `held_out` and `generated` count its faces. The rest is None where there are too few:
    `kid` below ten on a side, the others without any face.
    """

    name: str
    train: int
    held_out: int
    generated: int
    kid: Compared | None
    agreement: Agreement | None
    real_agreement: Agreement | None
    memorisation: dict[str, Any] | None


@dataclass(frozen=True)
class Quality:
    """What `assess` found.

    Attributes
    ----------
    dimensions, variance_kept : of the feature space (`FeatureSpace`)
    splits, seed, k : how the figures were taken; `k` neighbours in `prdc`
    held_out_copies : held-out faces that stand in the training part, left out of all figures
    generated : generated faces, of all classes
    compared : classes with faces on both sides, which the figures over all are of
    fid : over all, in the class shares of the held-out faces as far as the generated ones reach
    prdc : ``precision``, ``recall``, ``density`` and ``coverage``, likewise
    agreement, real_agreement : mean share over the compared classes; None without any
    memorisation : as `compare_nearness` gives it, as many held-out as generated faces of a class
    duplicates : how many generated images are pixel for pixel an earlier one
    near_duplicates : as the function of that name gives it, as many faces of a class on each side
    per_class : in the order of the classes
    """

    dimensions: int
    variance_kept: float
    splits: int
    seed: int
    k: int
    held_out_copies: int
    generated: int
    compared: tuple[str, ...]
    fid: Compared | None
    prdc: dict[str, Compared] | None
    agreement: float | None
    real_agreement: float | None
    memorisation: dict[str, Any] | None
    duplicates: int
    near_duplicates: dict[str, Any] | None
    per_class: tuple[ClassQuality, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return jsonable(asdict(self))


def assess(
    train: Sample,
    held_out: Sample,
    generated: Sample,
    images: np.ndarray,
    classes: Sequence[str],
    *,
    dimensions: int = 64,
    k: int = 5,
    splits: int = 10,
    seed: int = 0,
) -> Quality:
    """Assess generated faces against real ones that neither generator nor features have seen.

    Every distance is taken at equal n, with the same number of each class on both sides, beside
    its value of real against real at that n. A class gives half its held-out faces, or all its
    generated ones where these are fewer: 20 of the 41 disgust faces of FER-2013's PublicTest
    that do not stand in Training.

    Parameters
    ----------
    train : the faces that the generator was trained on
    held_out : real faces that were not; with probabilities
    generated : with probabilities; labels are the classes asked for
    images : uint8 ``[n, H, W]`` or ``[n, H, W, 3]``, the generated images in the same order
    classes : names of the C classes in label order
    dimensions : of the feature space fitted on the features of `train`, at most 128
    k : neighbours for precision, recall, density and coverage
    splits : random halvings of the held-out faces, at least 2
    seed : of the halvings and draws

    Raises
    ------
    DataError
        for columns of different lengths, labels without a name, missing or misshapen
        probabilities, features of different widths or not finite, fewer than two splits, or
        held-out faces that all stand in the training part
    RecipeError
        for `dimensions` outside 1 to 128
    """
    if splits < 2:
        raise DataError(f"splits = {splits}: a spread needs at least 2 splits")
    for name, sample in {"train": train, "held_out": held_out, "generated": generated}.items():
        _check(name, sample, len(classes))
    if len(images) != len(generated.labels):
        raise DataError(
            f"{len(images)} images for {len(generated.labels)} generated faces; give one each"
        )
    repeated = duplicates(images)
    space = fit_feature_space(train.features, dimensions)
    train, held_out, generated = (
        replace(sample, features=space.transform(sample.features))
        for sample in (train, held_out, generated)
    )
    to_train = nearest(generated.features, train.features)[0]
    real_to_train = nearest(held_out.features, train.features)[0]
    copies = is_copy(real_to_train)
    if copies.all():
        raise DataError("all held-out faces stand in the training part; hold out others")
    held_out, real_to_train = held_out[~copies], real_to_train[~copies]

    labels = held_out.labels, generated.labels
    halvings = [halve(*labels, len(classes), seed, split) for split in range(splits)]
    overall = distances_over_all(held_out.features, generated.features, halvings, k)
    kids = kid_of_classes(held_out.features, generated.features, halvings)
    per_class = []
    for label, name in enumerate(classes):
        real, made = (side == label for side in labels)
        per_class.append(
            ClassQuality(
                name=name,
                train=int((train.labels == label).sum()),
                held_out=int(real.sum()),
                generated=int(made.sum()),
                kid=kids[label],
                agreement=_agreement(generated[made]),
                real_agreement=_agreement(held_out[real]),
                memorisation=_nearness(real_to_train[real], to_train[made]),
            )
        )
    both = [
        (c.name, c.agreement.share, c.real_agreement.share)
        for c in per_class
        if c.agreement and c.real_agreement
    ]
    real, made = match(*labels, len(classes), seed)
    return Quality(
        dimensions=space.dimensions,
        variance_kept=space.variance_kept,
        splits=splits,
        seed=seed,
        k=k,
        held_out_copies=int(copies.sum()),
        generated=len(images),
        compared=tuple(name for name, _, _ in both),
        fid=overall.pop("fid", None),
        prdc=overall or None,
        agreement=float(np.mean([share for _, share, _ in both])) if both else None,
        real_agreement=float(np.mean([share for _, _, share in both])) if both else None,
        memorisation=_nearness(real_to_train[real], to_train[made]),
        duplicates=repeated,
        near_duplicates=near_duplicates(generated.features[made], held_out.features[real])
        if len(real) > 1
        else None,
        per_class=tuple(per_class),
    )


def _nearness(held_out: np.ndarray, generated: np.ndarray) -> dict[str, Any] | None:
    both = len(held_out) and len(generated)
    return compare_nearness(held_out, generated) if both else None


def _agreement(sample: Sample) -> Agreement | None:
    n = len(sample.labels)
    if not n or sample.probabilities is None:
        return None
    agreed = int((sample.probabilities.argmax(axis=1) == sample.labels).sum())
    return Agreement(n, agreed, agreed / n, wilson_interval(agreed, n))


def _check(name: str, sample: Sample, classes: int) -> None:
    n = len(as_features(sample.features, name, least=2))
    labels, probabilities = sample.labels, sample.probabilities
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: labels must be {n} integers, one a row of features, "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, of {classes} classes "
            f"0 to {classes - 1}; leave out unlabelled faces"
        )
    if name == "train":
        return
    if probabilities is None or probabilities.shape != (n, classes):
        given = "none" if probabilities is None else str(list(probabilities.shape))
        raise DataError(f"{name}: probabilities must be [{n}, {classes}], not {given}")
    if not np.isfinite(probabilities).all():
        raise DataError(f"{name}: probabilities are not finite; the classifier has diverged")
