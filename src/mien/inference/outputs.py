"""Where answers go: a table of rows, an annotated copy, a folder of copies, lines of text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mien.errors import DataError
from mien.inference.annotate import FORMATS, write_annotated
from mien.inference.answers import Answer
from mien.inference.classifier import Classifier
from mien.inference.pictures import Picture
from mien.inference.rows import KINDS, Rows

COPIES = ".copies"
"""The file that notes which pictures of a folder are copies of ours."""


@dataclass(frozen=True)
class Output:
    """Something that keeps answers.

    Attributes
    ----------
    add : keeps one more
    done : names of the pictures that it has from an earlier time
    cut : bytes of a picture that was not complete then, and are gone
    """

    add: Callable[[Answer], object]
    done: Set[str] = field(default_factory=frozenset)
    cut: int = 0


@contextmanager
def output(out: Path, classifier: Classifier, made_by: str) -> Iterator[Output]:
    """Open a file or folder by its name.

    Parameters
    ----------
    out : ``.csv`` or ``.jsonl`` for rows, which are added to those that are there; a picture for an
        annotated copy of a single one; a name without an ending, or a folder, for copies by the
        names of their pictures
    classifier : whose answers they are
    made_by : stands in every row, and must be the same in rows that are there

    Raises
    ------
    DataError
        for another ending, a second picture where one is asked for, a copy in the place of its
        picture or of another's copy, or rows made by something else.
    RunError
        if it cannot be read or written.
    """
    kind = out.suffix.lower()
    if kind in KINDS and not out.is_dir():
        with Rows(out, classifier.classes, made_by) as rows:
            yield Output(
                lambda a: rows.add(a.picture.name, a.faces), frozenset(rows.done), rows.cut
            )
    elif kind in FORMATS and not out.is_dir():
        only: list[Answer] = []

        def one(answer: Answer) -> None:
            if only:
                raise DataError(
                    f"{out}: is for an annotated copy of one picture, and there are several; give "
                    "a folder"
                )
            only.append(answer)

        yield Output(one)
        for answer in only:  # written now that no second one has come
            _refuse_source(answer, out)
            write_annotated(answer.pixels, answer.faces, out)
    elif not kind or out.is_dir():
        places: dict[Path, str] = {}
        note = out / COPIES
        ours = set(note.read_text("utf-8").splitlines()) if note.exists() else set[str]()

        def copy(answer: Answer) -> None:
            place, name = out / _place(answer.picture.name), answer.picture.name
            if place in places:
                raise DataError(
                    f"{place}: would be the copy of both {places[place]} and {name}; give them to "
                    "two calls, with a folder each"
                )
            relative = str(place.relative_to(out)).encode("unicode_escape").decode()
            _refuse_source(answer, place)
            if place.exists() and relative not in ours:
                raise DataError(f"{place}: is there, and no copy of ours; give another folder")
            places[place] = name
            if relative not in ours:  # before it is written: an interrupted one is ours too
                ours.add(relative)
                out.mkdir(parents=True, exist_ok=True)
                with note.open("a", encoding="utf-8") as file:
                    file.write(f"{relative}\n")
            write_annotated(answer.pixels, answer.faces, place)

        yield Output(copy)
    else:
        raise DataError(
            f"{out}: answers are written as {', '.join(KINDS)} (rows), {', '.join(FORMATS)} (an "
            "annotated copy), or into a folder (copies); give such a name"
        )


def outside(
    pictures: Iterable[Picture], sources: Sequence[str], out: Path | None
) -> Iterator[Picture]:
    """The pictures without the copies in `out`, unless they are what is asked for.

    That is where `out` alone is given, or a picture or folder that lies in it.
    """
    given = {Path(os.path.realpath(source)) for source in sources}
    there = None if out is None else Path(os.path.realpath(out))
    if there is None or given == {there}:
        yield from pictures
        return
    asked = {source for source in given if there in source.parents}
    for picture in pictures:
        places: tuple[Path, ...] = ()
        if isinstance(picture.source, Path):
            source = Path(os.path.realpath(picture.source))
            places = (source, *source.parents)
        if there not in places or not asked.isdisjoint(places):
            yield picture


def made_by(classifier: Classifier, *, largest: bool, min_probability: float | None) -> str:
    """Model, detector and settings in words, so that rows of different ones are not mixed."""
    finds = classifier.detector
    words = [classifier.name, "crops" if finds is None else f"faces by {finds.name}"]
    if largest:
        words.append("the largest")
    least = classifier.threshold if min_probability is None else min_probability
    if least:
        words.append(f"known from {least:g}")
    return "; ".join(words)


def as_text(answer: Answer) -> str:
    """A line for each face, to be read."""
    name = answer.picture.name
    if not answer.faces:
        return f"{name}: no face\n"
    lines = []
    for face in answer.faces:
        x, y, width, height = face.box
        said = f"{face.label} {100 * face.probabilities[face.label]:.0f} %"
        said = said if face.known else f"not sure ({said})"
        lines.append(f"{name}: {said}, {width}x{height} at {x}, {y}\n")
    return "".join(lines)


def _refuse_source(answer: Answer, out: Path) -> None:
    """Raise a `DataError` where a copy would take the place of its own picture."""
    source = answer.picture.source
    if isinstance(source, Path) and out.exists() and out.samefile(source):
        raise DataError(f"{out}: is the picture itself; write its copy to another place")


def _place(name: str) -> Path:
    """Where a copy lies in its folder: never outside it, and in a form that can be written."""
    parts = [part for part in Path(name).parts if part not in ("..", Path(name).anchor)]
    place = Path(*parts) if name != "-" else Path("stdin")
    if place.suffix.lower() in FORMATS:
        return place
    return place.with_name(f"{place.name}.png")
