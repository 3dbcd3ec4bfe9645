"""Answers as rows of CSV or JSON lines that grow by whole pictures, and go on where they ended."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mien.errors import DataError, RunError
from mien.inference.classifier import Face
from mien.runs.atomic import append

KINDS = (".csv", ".jsonl")


class Rows:
    """A file of answers, to which whole pictures are added and which is there from the first on.

    A CSV has a row a face, and one without a label for a picture without a face: ``image``,
    ``label``, the probability of each class, ``x``, ``y``, ``width``, ``height`` of the box,
    ``detection``, ``known``, ``faces`` (how many the picture has) and ``model``. JSON lines have a
    line a picture.

    Parameters
    ----------
    out : the file. One that is there already is added to: what an interruption left of its last
        picture is cut off.
    classes : names of the classes
    model : what made the answers, model, detector and settings; it stands in every row

    Attributes
    ----------
    done : names of the pictures that the file has already
    cut : bytes of a picture that was not complete

    Raises
    ------
    DataError
        if the file is of another kind, or was made by something else.
    RunError
        if it cannot be read or written.
    """

    def __init__(self, out: Path, classes: Sequence[str], model: str) -> None:
        self.out, self.model, self.classes = out, model, tuple(classes)
        self.done: set[str] = set()
        self.cut = 0
        self._csv = out.suffix.lower() == ".csv"
        self._end = 0
        self._file: BinaryIO | None = None
        try:
            if out.exists():
                with out.open("rb") as file:
                    self._read(file)
                    if not self._end:
                        self._check_torn(file)
                self.cut = out.stat().st_size - self._end
                if self.cut:
                    os.truncate(out, self._end)
        except OSError as error:
            raise RunError(
                f"{out}: cannot be added to ({error.strerror or error}); give another file"
            ) from error
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{out}: is there already and is no table of `mien predict` ({error}); give "
                "another file"
            ) from error

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, name: str, faces: Sequence[Face]) -> None:
        """Add a picture, wholly or, on a full disk or when interrupted, not at all."""
        text = csv_rows(name, faces, self) if self._csv else json_line(name, faces, self.model)
        if self._csv and not self._end:
            text = csv_text([self.header]) + text
        content = text.encode()
        try:
            if self._file is None:
                self.out.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered: what is added has reached the file, so that a kill tears no row.
                self._file = self.out.open("ab", buffering=0)
            if os.fstat(self._file.fileno()).st_size != self._end:
                raise RunError(
                    f"{self.out}: something else writes to it at the same time; give each command "
                    "a file of its own"
                )
            append(self._file.fileno(), content)
        except OSError as error:
            raise RunError(
                f"{self.out}: cannot be written ({error.strerror or error}). What it has is whole; "
                "make room, then run the same command again to go on"
            ) from error
        self._end += len(content)
        self.done.add(name)

    @property
    def header(self) -> list[str]:
        """The columns of a CSV."""
        box = ("x", "y", "width", "height")
        return ["image", "label", *self.classes, *box, "detection", "known", "faces", "model"]

    def _read(self, file: BinaryIO) -> None:
        """Learn which pictures a file has, and where the last complete one ends."""
        end = 0

        def lines() -> Iterator[str]:
            nonlocal end
            for line in file:
                end += len(line)
                if not line.endswith(b"\n"):
                    return
                yield line.decode()

        if not self._csv:
            for line in lines():
                row = json.loads(line)
                self._made_by(row["model"])
                self.done.add(row["image"])
                self._end = end
            return
        table = csv.reader(lines())
        header = next(table, None)
        if header is None:
            return
        if header != self.header:
            raise ValueError("its columns are others")
        self._end, rows = end, 0
        for cells in table:
            if not cells:
                continue
            if len(cells) != len(header):  # a name with a line break in it, torn there
                if next(table, None) is not None:
                    raise ValueError(f"line {table.line_num - 1} is no row of it")
                return
            row = dict(zip(header, cells, strict=True))
            self._made_by(row["model"])
            rows += 1
            if rows >= int(row["faces"]):
                self.done.add(row["image"])
                self._end, rows = end, 0

    def _check_torn(self, file: BinaryIO) -> None:
        """See that what is there without a complete line may be the beginning of such a file."""
        file.seek(0)
        begins = csv_text([self.header]).encode() if self._csv else b'{"image": '
        there = file.read(len(begins))
        if not begins.startswith(there):
            raise ValueError("it begins otherwise")

    def _made_by(self, model: str) -> None:
        if model != self.model:
            raise DataError(
                f"{self.out}: is there already and was made otherwise ({model}, not {self.model}); "
                "give another file, or remove it"
            )


def csv_rows(name: str, faces: Sequence[Face], table: Rows) -> str:
    """The rows of a picture in the columns of `table`."""
    if not faces:
        return csv_text([[name, *[""] * (len(table.header) - 3), 0, table.model]])
    return csv_text(
        [
            name,
            face.label,
            *(f"{face.probabilities[label]:.6f}" for label in table.classes),
            *face.box,
            "" if face.detection is None else f"{face.detection:.4f}",
            str(face.known).lower(),
            len(faces),
            table.model,
        ]
        for face in faces
    )


def json_line(name: str, faces: Sequence[Face], model: str) -> str:
    """A picture as a line of JSON."""
    row = {"image": name, "faces": list(map(as_json, faces)), "model": model}
    return json.dumps(row, ensure_ascii=False) + "\n"


def as_json(face: Face) -> dict[str, Any]:
    """A face as files and the server give it, in digits that mean something."""
    return {
        "box": list(face.box),
        "label": face.label,
        "probabilities": {label: round(p, 6) for label, p in face.probabilities.items()},
        "detection": None if face.detection is None else round(face.detection, 4),
        "known": face.known,
        "tilt": round(face.tilt, 1),
    }


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of a CSV."""
    text, lines = io.StringIO(), []
    # Python quotes a cell for the characters of the line's end alone, and \r in a name ends one.
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row)
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
        text.seek(0)
        text.truncate()
    return "".join(lines)
