"""What is known of the official FER-2013 release: its counts, its file names, its class names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mien.data.faceset import CLASSES, FaceSet

COUNTS = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}
"""Images of each of `CLASSES` in each official split (Goodfellow et al., 2013)."""

FILE_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_\d+\.\w+")

ALIASES = {
    **{name: name for name in CLASSES},
    **dict.fromkeys(("anger",), "angry"),
    **dict.fromkeys(("disgusted", "disgusting"), "disgust"),
    **dict.fromkeys(("fearful", "afraid", "scared"), "fear"),
    **dict.fromkeys(("happiness", "joy"), "happy"),
    **dict.fromkeys(("sadness",), "sad"),
    **dict.fromkeys(("surprised",), "surprise"),
    **dict.fromkeys(("neutrality", "natural"), "neutral"),
}
"""Other names in use for the seven classes, in lower case."""

NUMBERS = tuple(str(number) for number in range(len(CLASSES)))


def split_of(file_name: str) -> str | None:
    """The official split that a file name such as ``PublicTest_123.jpg`` tells, or None."""
    match = FILE_NAME.fullmatch(file_name)
    return match[1] if match else None


def class_numbers(names: Sequence[str]) -> dict[str, int] | None:
    """The official number of each class name, or None unless all of them have one.

    Case is ignored and the other names in use are known (`ALIASES`). Exactly ``0`` to ``6`` are
    the official numbers themselves; any other numbering, such as the ``1`` to ``7`` of RAF-DB,
    has an order of its own and is not guessed at.
    """
    if sorted(names) == list(NUMBERS):
        return {name: int(name) for name in names}
    known = {name: ALIASES.get(name.strip().lower()) for name in names}
    if None in known.values():
        return None
    return {name: CLASSES.index(official) for name, official in known.items() if official}


def differences(faces: FaceSet) -> tuple[str, ...]:
    """How the class counts of each official split differ from the official ones, in sentences."""
    notes = []
    for split, expected in COUNTS.items():
        part = faces.split == split
        total = int(part.sum())
        unlabelled = int((faces.labels[part] < 0).sum())
        if not total:
            notes.append(f"{split}: absent; the official release has {sum(expected):,} images")
            continue
        if unlabelled:
            which = "are" if unlabelled == total else f"of {total:,} are"
            notes.append(f"{split}: {unlabelled:,} images {which} without labels")
        if unlabelled == total:
            if total != sum(expected):
                notes.append(f"{split}: {_more(total, sum(expected))} images")
            continue
        counts = np.bincount(faces.labels[part & (faces.labels >= 0)], minlength=len(CLASSES))
        wrong = [
            f"{_more(int(count), official)} {name}"
            for name, count, official in zip(CLASSES, counts, expected, strict=True)
            if count != official
        ]
        if wrong:
            notes.append(f"{split} differs from the official counts: {', '.join(wrong)}")
    return tuple(notes)


def _more(count: int, official: int) -> str:
    word = "more" if count > official else "fewer"
    return f"{abs(count - official):,} {word} ({count:,}, officially {official:,})"
