"""Which images of a data set models are measured on: validation, unless the test is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mien.data.faceset import FaceSet
from mien.data.layout import TEST, VALIDATION
from mien.data.splits import Roles, refuse_generated, roles, split_named
from mien.errors import DataError
from mien.evaluation.trained import Trained


@dataclass(frozen=True)
class Part:
    """The images that are measured on.

    Attributes
    ----------
    faces : all labelled
    name : of the split, or ``"all"``
    role : what the split is, as tables head it; empty where it is none of the roles
    opened : name of the final test split that lies in it, or None
    fingerprint : of that split as a whole; empty without one
    notes : what was left out, and what could not be told
    """

    faces: FaceSet
    name: str
    role: str
    opened: str | None
    fingerprint: str
    notes: tuple[str, ...]


def part_of(faces: FaceSet, models: Sequence[Trained], split: str | None = None) -> Part:
    """Choose the images, and leave out those that stand in a model's training part too.

    Parameters
    ----------
    split : ``"validation"`` or ``"test"`` by their role, ``"all"``, or a split by its name. None
        takes validation; a set that no model was trained on, and that is one split, is taken whole

    Raises
    ------
    DataError
        if there is no such split, it has unlabelled or generated images, or nothing is left of it.
    """
    trained = _training_data(faces, models)
    if trained is not None:
        faces, parts = trained
        named: dict[str, str | None] = {"validation": parts.validation, "test": parts.test}
    else:
        named = {"validation": split_named(faces, VALIDATION), "test": split_named(faces, TEST)}
    if split is None and trained is None and len(faces.splits) == 1:
        split = "all"
    chosen = split or "validation"
    name = chosen if chosen == "all" or chosen in faces.splits else named.get(chosen)
    if name is None:
        raise DataError(
            f"{faces.name}: has no split '{chosen}'; it has {', '.join(faces.splits)}: name one of "
            "these with --split, or 'all'"
        )
    part = faces if name == "all" else faces[name]
    if unlabelled := int((part.labels < 0).sum()):
        raise DataError(
            f"{faces.name}, '{name}': {unlabelled:,} of {len(part):,} images have no label, so "
            "nothing can be measured on them; predict them with `mien predict`, or name another "
            "split"
        )
    refuse_generated(part, f"{faces.name}, '{name}'", "measure on photographs of people")
    part, notes = unseen(part, faces, models, name)
    if name == named["validation"]:
        # a run with patience has taken the epoch that was best there
        picked = trained is not None and any(m.recipe and m.recipe.patience for m in models)
        role = "validation (chosen on)" if picked else "validation"
    else:
        role = "final test" if name == named["test"] else ""
    opened = named["test"] if name in ("all", named["test"]) else None
    fingerprint = faces[opened].fingerprint if opened else ""
    return Part(part, name, role, opened, fingerprint, notes)


def _training_data(faces: FaceSet, models: Sequence[Trained]) -> tuple[FaceSet, Roles] | None:
    """The set with its roles, if a model was trained on it; divided as it was in training."""
    try:
        divided, parts = roles(faces)
    except DataError:  # what cannot be trained on can still be measured on
        return None
    own = any(_training_part(divided, model) is not None for model in models)
    return (divided, parts) if own else None


def _training_part(faces: FaceSet, model: Trained) -> FaceSet | None:
    """What a model was trained on, if it was this set; all of the split for a part of it.

    A set of another name is this one, lifted, if half of what was trained on stands in that split
    and none elsewhere.
    """
    noted = model.trained_on
    own = np.isin(faces.split, noted.get("split", []))
    part = faces[own]
    if not len(part):
        return None
    if noted.get("name") == faces.name or noted.get("fingerprint") == part.fingerprint:
        return part
    sketch = noted.get("sketch", "")
    known = faces.among(sketch)
    most = known[own].sum() >= max(1, len(sketch.split()) / 2)
    return part if most and faces[known & ~own].stands_in(part).all() else None


def unseen(
    part: FaceSet, faces: FaceSet, models: Sequence[Trained], name: str
) -> tuple[FaceSet, tuple[str, ...]]:
    """The images that do not stand in any model's training part, as far as that is known.

    Parameters
    ----------
    part : images of a set
    faces : the set, divided as it was in training
    name : what errors call the part

    Returns
    -------
    The images that are left, and notes of what was left out and of what cannot be told.

    Raises
    ------
    DataError
        if none is left.
    """
    seen, notes = np.zeros(len(part), bool), []
    looked: set[str] = set()
    for model in models:
        # what it learned from was kept from the part that it watched, by `mien.training.earlier`
        if model.trained_on.get("alone") is False and model.watched != part.fingerprint:
            notes.append(
                f"{model.title} began from, or was taught by, what may know more than its own "
                "training part: whether some of these images are among that cannot be told"
            )
        train = _training_part(faces, model)
        if train is None:
            known = part.among(model.trained_on.get("sketch", ""))
            seen |= known
            if not model.trained_on:
                notes.append(f"{model.title} does not say what it was trained on")
            elif not model.trained_on.get("sketch"):
                notes.append(
                    f"{model.title} did not note which images it was trained on: whether some of "
                    "these are among them cannot be told"
                )
            elif known.any():
                notes.append(
                    f"{model.title} was trained on {known.sum():,} of these images at least, under "
                    "another name: of the others it cannot be told"
                )
            continue
        if train.fingerprint != model.trained_on.get("fingerprint"):
            notes.append(
                f"{model.title} was trained on a part of {', '.join(train.splits)}, or with other "
                "labels: it counts as trained on all of it"
            )
            # A set that grew, or was cleaned, is divided otherwise than when it was trained on.
            seen |= part.among(model.trained_on.get("sketch", ""))
        if train.fingerprint not in looked:
            looked.add(train.fingerprint)
            seen |= part.stands_in(train)
    if seen.all():
        raise DataError(
            f"{part.name}, '{name}': all {len(part):,} images stand in a training part; measure on "
            "another split"
        )
    if not seen.any():
        return part, tuple(notes)
    left_out = (
        f"left out {int(seen.sum()):,} of {len(part):,} images of '{name}', which stand pixel for "
        "pixel in a training part"
    )
    return part[~seen], (left_out, *notes)
