"""The classes of another data set as the classes of a model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mien.data import official
from mien.data.faceset import CLASSES, FaceSet
from mien.errors import DataError


@dataclass(frozen=True)
class MappedClass:
    """A class of the data, what it is for the model ("" where left out), and how many images."""

    theirs: str
    ours: str
    images: int


def read_class_map(path: Path) -> dict[str, str]:
    """A TOML table of ``"their name" = "our name"``, or ``""`` to leave a class out.

    Raises
    ------
    DataError
        if the file cannot be read, is no TOML, or has values that are no names.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as TOML ({error})") from error
    for theirs, ours in table.items():
        if not isinstance(ours, str):
            raise DataError(
                f'{path}: {theirs} = {ours!r} is no name of a class; write "{theirs}" = "happy", '
                'or "" to leave it out'
            )
    return table


def map_classes(
    faces: FaceSet, classes: tuple[str, ...], mapping: Mapping[str, str] | None, source: str = ""
) -> tuple[FaceSet, list[MappedClass]]:
    """The images with the model's labels, those of classes that are left out without them.

    A folder that the reader took for one of FER-2013's classes (``anger``, or 0 to 6 for the
    official numbers) may go by the folder's own name in the mapping.

    Parameters
    ----------
    classes : of the model, in its order
    mapping : as `read_class_map` gives it; None takes equal names for equal classes
    source : where it comes from, for messages

    Raises
    ------
    DataError
        for a class with images that the mapping does not mention, or mentions twice, one of ours
        that the model does not have, or if nothing is left.
    """
    counts = faces.counts()
    there = [name for name, count in zip(faces.classes, counts, strict=True) if count]
    if mapping is None:
        wrong = [name for name in there if name not in classes]
        if wrong:
            raise DataError(
                f"{faces.name}: class '{wrong[0]}' is none of the model's ({', '.join(classes)}); "
                'give --classes map.toml with lines like "' + wrong[0] + '" = "" (left out) or a '
                "name of these"
            )
        target = {name: name for name in there}
    else:
        target = _by_class(faces, mapping, source)
        for theirs, ours in mapping.items():
            if ours and ours not in classes:
                raise DataError(
                    f"{source}: '{theirs}' is mapped to '{ours}', and the model has no such class; "
                    f"it has {', '.join(classes)}"
                )
        missing = [name for name in there if name not in target]
        if missing:
            raise DataError(
                f"{source}: does not mention class '{missing[0]}' of {faces.name}, which has "
                f'{int(counts[faces.classes.index(missing[0])]):,} images; add "{missing[0]}" = '
                '"..." or "" to leave them out'
            )
    number = np.array(
        [classes.index(target[name]) if target.get(name) else -1 for name in faces.classes],
        np.int64,
    )
    labels = number[faces.labels]
    rows = [
        MappedClass(name, target[name], int(count))
        for name, count in zip(faces.classes, counts, strict=True)
        if count
    ]
    if (labels < 0).all():
        raise DataError(f"{source or faces.name}: leaves out every image of {faces.name}")
    # soft labels are of the data's own classes
    moved = replace(faces, labels=labels, classes=classes, soft=None)
    return moved[labels >= 0], rows


def _by_class(faces: FaceSet, mapping: Mapping[str, str], source: str) -> dict[str, str]:
    """The mapping by the names that the reader gave to the classes."""
    target: dict[str, str] = {}
    for theirs, ours in mapping.items():
        name = theirs
        if theirs not in faces.classes and set(faces.classes) <= set(CLASSES):
            known = dict(zip(official.NUMBERS, CLASSES, strict=True)) | official.ALIASES
            name = known.get(theirs.strip().lower(), theirs)
        if target.get(name, ours) != ours:
            raise DataError(
                f"{source}: class '{name}' of {faces.name} is mapped both to '{target[name]}' and "
                f"to '{ours}'; keep one"
            )
        target[name] = ours
    return target
