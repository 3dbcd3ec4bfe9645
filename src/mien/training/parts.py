"""The parts a training is handed, and what it refuses to be handed."""

from __future__ import annotations

import numpy as np

from mien.balance import to_generate
from mien.data.faceset import FaceSet
from mien.data.layout import TEST
from mien.data.splits import refuse_generated
from mien.errors import DataError, RecipeError
from mien.runs.recipe import Recipe
from mien.training.conflicts import settled


def check_parts(recipe: Recipe, train: FaceSet, validation: FaceSet | None) -> None:
    """Refuse what cannot, or must not, be trained on or watched.

    Raises
    ------
    DataError
        for a final test split, no images, images without labels, a class without training images
        or with too few to generate more, or none but conflicting ones, parts that differ in classes
        or channels, and generated images in the validation part, or among those that a generator
        would learn from.
    RecipeError
        if the recipe needs what the data does not have: votes, or a validation part; or if it
        generates images and these counts cannot be lifted so.
    """
    parts = {"train": train} | ({} if validation is None else {"validation": validation})
    for role, part in parts.items():
        refuse_test(part, role)
        if not len(part):
            raise DataError(f"{role}: has no images; give a split that has some")
        if not part.labelled:
            raise DataError(
                f"{role}: {int((part.labels < 0).sum())} images have no label; leave them out"
            )
        if part.classes != train.classes:
            raise DataError(f"{role}: other classes ({part.classes}) than train ({train.classes})")
        if part.channels != train.channels:
            raise DataError(
                f"{role}: {part.channels} channels and train {train.channels}; read both with the "
                "same number of channels"
            )
    missing = [c for c, n in zip(train.classes, train.counts(), strict=True) if n == 0]
    if missing:
        raise DataError(f"train: no image of {', '.join(missing)}; leave the class out or add some")
    if validation is not None:
        refuse_generated(validation, "validation", "they may only be trained on: watch real ones")
    if recipe.generate:
        refuse_generated(
            train,
            "train",
            "a generator learns from real ones alone: leave them out, or clear generate",
        )
    kept = settled(train, recipe.conflicts)
    if recipe.generate:
        to_generate(kept.counts(), kept.classes, recipe.generate)
    if recipe.patience and validation is None:
        raise RecipeError("patience watches the validation loss; give a validation part, or set 0")
    if recipe.wants_votes and train.soft is None:
        setting, off = ("soft_labels", "false") if recipe.soft_labels else ("auxiliary_votes", "0")
        raise RecipeError(
            f"{setting} needs the votes of FER+, which these images do not have; put ferplus.csv "
            f"into their folder and read with votes=True (the commands do), or set it {off}"
        )


def refuse_test(part: FaceSet, role: str) -> None:
    """Raise a `DataError` for a part with images of a final test split."""
    tests = [split for split in part.splits if split.lower() in TEST]
    if tests:
        raise DataError(
            f"{role}: '{tests[0]}' is a final test split, which training cannot be handed; "
            "it is opened once, by evaluation"
        )


def unseen(validation: FaceSet, train: FaceSet) -> np.ndarray:
    """Which validation images do not stand, pixel for pixel, in the training part: bool ``[N]``.

    Raises
    ------
    DataError
        if all of them do, so that nothing is left to watch.
    """
    new = ~validation.stands_in(train)
    if not new.any():
        raise DataError(
            "validation: every image stands in train too, so its accuracy would say nothing; give "
            "images that are not trained on"
        )
    return new
