"""Accuracy on images as they are and as they get worse, and whether CBAM loses less by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.errors import DataError
from mien.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from mien.evaluation.intervals import macro_f1_interval, ratio_interval
from mien.evaluation.outcome import ALPHA, Test
from mien.evaluation.trained import Trained
from mien.metrics import evaluate


@dataclass(frozen=True)
class Measured:
    """Accuracy (Wilson's interval) and macro F1 (bootstrap; None if all is right) on `n` images."""

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float] | None


def measured(probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Measured:
    """What probabilities ``[n, C]`` are worth against labels ``[n]``."""
    found = evaluate(probabilities, labels, classes)
    return Measured(
        found.n,
        found.accuracy,
        found.accuracy_interval,
        found.macro_f1,
        macro_f1_interval(found.confusion),
    )


@dataclass(frozen=True, eq=False)
class Robustness:
    """A model under every corruption.

    Attributes
    ----------
    clean : on the images as they are
    corrupted : by name of the corruption, one for each strength
    right_clean : bool ``[n]``, which images are classified rightly as they are
    right : by name of the corruption, bool ``[5, n]``
    """

    clean: Measured
    corrupted: dict[str, tuple[Measured, ...]]
    right_clean: np.ndarray
    right: dict[str, np.ndarray]

    @property
    def by_image(self) -> np.ndarray:
        """Share of the corruptions and strengths under which each image is right, ``[n]``."""
        return np.mean([rows.mean(0) for rows in self.right.values()], axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, with the means over corruptions and their bootstrap intervals.

        ``mean_corruption_accuracy`` is the mean over corruptions and strengths, all alike in
        weight; ``relative`` is its ratio to clean accuracy, None where that is 0.
        """
        mean = self.by_image
        known = bool(self.right_clean.any())
        return {
            "clean": asdict(self.clean),
            "corrupted": {k: [asdict(m) for m in v] for k, v in self.corrupted.items()},
            "mean_corruption_accuracy": float(mean.mean()),
            "mean_corruption_accuracy_interval": ratio_interval(mean),
            "relative": float(mean.mean() / self.right_clean.mean()) if known else None,
            "relative_interval": ratio_interval(mean, self.right_clean) if known else None,
        }


def under_corruptions(
    model: Trained,
    faces: FaceSet,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Robustness:
    """Measure a model on labelled images under each of `CORRUPTIONS` at each strength.

    Parameters
    ----------
    faces : of the model's size, channels and classes
    seed : of the corruptions
    progress : is told what is measured next
    """
    found = model.predict_proba(faces.images)
    clean = measured(found, faces.labels, model.classes)
    right_clean = found.argmax(1) == faces.labels
    corrupted, right = {}, {}
    for name in CORRUPTIONS:
        progress(f"{model.title}: {CORRUPTIONS[name].title}")
        rows, hits = [], []
        for strength in STRENGTHS:
            found = model.predict_proba(corrupt(faces.images, name, strength, seed))
            rows.append(measured(found, faces.labels, model.classes))
            hits.append(found.argmax(1) == faces.labels)
        corrupted[name], right[name] = tuple(rows), np.stack(hits)
    return Robustness(clean, corrupted, right_clean, right)


@dataclass(frozen=True)
class Claim:
    """Whether the second of two models stands a corruption better, tested in pairs.

    Attributes
    ----------
    corruption : its name
    accuracy : test of the accuracy under it, the mean of its strengths; second minus first
    loss : test of how much accuracy it costs; second minus first, so below 0 if the second loses
        less. None, as `accuracy`, where nothing varies
    accuracy_holm, loss_holm : p after Holm over the corruptions
    """

    corruption: str
    accuracy: Test | None
    loss: Test | None
    accuracy_holm: float | None
    loss_holm: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as they go into JSON."""
        return asdict(self)


def claims_of(without: Robustness, with_cbam: Robustness, seed: int = 0) -> list[Claim]:
    """Test CBAM's claim of robustness: a higher accuracy under corruption, and a smaller loss.

    Two models on the same images, by a paired bootstrap over images: the five strengths of an image
    are no independent draws, so the mean of the five is its one value. A smaller loss is what
    robustness means; a model that is better everywhere has a higher accuracy and no smaller loss.

    Raises
    ------
    DataError
        if the two were not measured on equally many images.

    Notes
    -----
    The claim is that of S. Woo and others, "CBAM: convolutional block attention module", ECCV 2018,
    as the study of FER-2013 takes it up.
    """
    from mien.evaluation.ranks import holm
    from mien.evaluation.significance import paired_bootstrap

    def tested(values: Callable[[Robustness, str], np.ndarray], measure: str) -> list[Test | None]:
        rows: list[Test | None] = []
        for name in CORRUPTIONS:
            pair = values(with_cbam, name), values(without, name)
            try:
                rows.append(paired_bootstrap(*pair, measure=measure, seed=seed))
            except DataError:  # nothing varies
                rows.append(None)
        return rows

    if len(without.right_clean) != len(with_cbam.right_clean):
        raise DataError("the two models were measured on different images; measure them together")
    accuracy = tested(lambda found, name: found.right[name].mean(0), "accuracy")
    loss = tested(lambda found, name: found.right_clean - found.right[name].mean(0), "loss")
    adjusted = []
    for rows in (accuracy, loss):
        after = iter(holm([test.p for test in rows if test]).tolist())
        adjusted.append([next(after) if test else None for test in rows])
    return [Claim(*row) for row in zip(CORRUPTIONS, accuracy, loss, *adjusted, strict=True)]


def claim_sentence(claims: list[Claim]) -> str:
    """What the tests of the loss say together, to quote."""

    def titles(sign: int) -> str:
        found = [
            CORRUPTIONS[claim.corruption].title
            for claim in claims
            if claim.loss
            and claim.loss_holm is not None
            and claim.loss_holm < ALPHA
            and sign * claim.loss.difference > 0
        ]
        return ", ".join(found) or "none"

    return (
        f"CBAM loses less accuracy under: {titles(-1)}; more under: {titles(1)}; for the rest "
        f"no difference was shown (paired bootstrap, Holm over {len(claims)} corruptions, one "
        "trained model of each kind)"
    )
