"""What is kept of a video while it is watched: a table of rows, or a copy with the faces drawn."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TextIO

import cv2

from mien.errors import DataError, RunError
from mien.inference.capture import for_ffmpeg, quiet
from mien.inference.footage import Frame
from mien.inference.rows import as_json, csv_text
from mien.inference.tracks import Tracked
from mien.runs.atomic import append

TABLES = (".csv", ".jsonl")
FILM = ".mp4"
HEAD = ("frame", "time", "face", "x", "y", "width", "height", "label")


@dataclass(frozen=True)
class Seen:
    """A frame with its faces; those of a frame that was not chosen are the last chosen one's."""

    frame: Frame
    faces: Sequence[Tracked]


Record = Callable[[Sequence[Seen]], None]
"""Keeps some more frames, in order."""


def partial_of(path: Path) -> Path:
    """Where a file lies until it is complete, such as ``faces.part.csv``."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def check(out: Path) -> None:
    """Refuse a file of a kind that cannot be written, or that is there already.

    Raises
    ------
    DataError
        if its name ends neither in .csv, .jsonl nor .mp4, or it is there.
    """
    if out.suffix.lower() not in (*TABLES, FILM):
        raise DataError(
            f"{out}: what is said of a video is written as {', '.join(TABLES)} (rows) or {FILM} "
            "(a copy with the faces drawn); give such a name"
        )
    if out.exists():
        raise DataError(f"{out}: is there already; give another file, or remove it")


@contextmanager
def streamed(stream: TextIO) -> Iterator[Record]:
    """Write rows to a stream as JSON lines, those of a batch at once."""

    def record(batch: Sequence[Seen]) -> None:
        stream.write(_json_lines(batch))
        stream.flush()

    yield record


@contextmanager
def table(out: Path, classes: Sequence[str]) -> Iterator[Record]:
    """Write rows to a CSV, or JSON lines where the name ends in .jsonl.

    They go to `partial_of(out)` as they come, whole rows always, and the file takes its name when
    all are there. After an error or a kill the part remains, with every row that was written.

    Raises
    ------
    RunError
        if the file cannot be written, or the part of another recording is there.
    """
    part, lines, begun = partial_of(out), _json_lines, False
    file = _part(out)

    def record(batch: Sequence[Seen]) -> None:
        nonlocal begun
        begun = True
        with _saying(out):
            append(file.fileno(), lines(batch).encode())

    with file:
        if out.suffix.lower() == ".csv":
            lines = _csv_lines
            with _saying(out):
                append(file.fileno(), csv_text([[*HEAD, *classes, "detection", "known"]]).encode())
        try:
            yield record
        except BaseException:
            if not begun:  # there was not one frame, so there is nothing to keep
                part.unlink()
            raise
        with _saying(out):
            os.fsync(file.fileno())
    with _saying(out):
        os.replace(part, out)


@contextmanager
def film(out: Path, rate: float) -> Iterator[Record]:
    """Write an MP4 of the frames with their faces drawn, at a constant rate.

    The times of the frames are kept: where the source has a variable rate, frames are shown again
    or left out. The sound is not copied.

    Raises
    ------
    RunError
        if OpenCV has no encoder, the file is not whole at the end, as on a full disk, or the part
        of another recording is there.
    """
    from mien.inference.annotate import annotate, fills

    # MPEG-4 counts time in at most 65,535 parts a second, and OpenCV writes 118.347 as 118347/1000.
    rate = round(rate, 2) if rate > 65 else rate
    part, written, held = partial_of(out), 0, None
    _part(out).close()
    writer = cv2.VideoWriter()
    size, widen = (0, 0), False

    def record(batch: Sequence[Seen]) -> None:
        nonlocal written, held, size, widen
        for seen in batch:
            pixels, faces = seen.frame.pixels, [face.face for face in seen.faces]
            if not writer.isOpened():  # all frames are as wide as the first, and none is stretched
                widen = fills(pixels, faces)
            picture = annotate(pixels, faces, widen=widen)
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            if not writer.isOpened():
                size = picture.shape[1], picture.shape[0]
                _open(writer, out, rate, size)
            elif picture.shape[1::-1] != size:  # some streams change their size on the way
                picture = cv2.resize(picture, size)
            due = round(seen.frame.time * rate)
            while held is not None and written < due:
                writer.write(held)
                written += 1
            held = picture

    try:
        yield record
        if held is not None:
            writer.write(held)
            written += 1
    finally:
        if not writer.isOpened():  # there was not one frame, so there is nothing to keep
            part.unlink(missing_ok=True)
        writer.release()
    if not written:
        raise RunError(f"{out}: was not written: it ended before there was a frame to draw")
    with quiet():
        copy = cv2.VideoCapture(for_ffmpeg(part), cv2.CAP_FFMPEG)
    whole = int(copy.get(cv2.CAP_PROP_FRAME_COUNT)) == written
    copy.release()
    if not whole:
        raise RunError(f"{out}: cannot be written whole; make room on the disk, or write a .csv")
    with _saying(out):
        os.replace(part, out)


def _part(out: Path) -> FileIO:
    """The file at `partial_of(out)`, new and empty, in a folder that is made where it is missing.

    It is unbuffered: what is handed over reaches it at once, so that a kill tears no row.
    """
    part = partial_of(out)
    with _saying(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            return part.open("xb", buffering=0)
        except FileExistsError:
            raise RunError(
                f"{part}: is of a recording that was stopped, or still runs; rename it, remove it, "
                "or write elsewhere"
            ) from None


def _open(writer: cv2.VideoWriter, out: Path, rate: float, size: tuple[int, int]) -> None:
    place, codec = for_ffmpeg(partial_of(out)), cv2.VideoWriter.fourcc(*"mp4v")
    with quiet():
        opened = writer.open(place, cv2.CAP_FFMPEG, codec, rate, size)
    if not opened:
        raise RunError(
            f"{out}: cannot be written: the folder may not be written to, or this OpenCV has no "
            "encoder for MPEG-4; write a .csv or .jsonl instead"
        )


@contextmanager
def _saying(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = f"; the rows up to then are in {partial_of(out)}" if partial_of(out).exists() else ""
        raise RunError(
            f"{out}: cannot be written ({error.strerror or error}){kept}; make room or choose "
            "another folder"
        ) from error


def _rows(batch: Sequence[Seen]) -> Iterator[dict[str, Any]]:
    """The faces of the chosen frames as JSON has them; probabilities to six places."""
    for seen in batch:
        for tracked in seen.faces if seen.frame.chosen else ():
            where = {"frame": seen.frame.number, "time": round(seen.frame.time, 3)}
            yield where | {"face": tracked.track} | as_json(tracked.face)


def _json_lines(batch: Sequence[Seen]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(batch))


def _csv_lines(batch: Sequence[Seen]) -> str:
    return csv_text(
        [
            *(row["frame"], f"{row['time']:.3f}", row["face"], *row["box"], row["label"]),
            *(f"{p:.6f}" for p in row["probabilities"].values()),
            *("" if row["detection"] is None else row["detection"], str(row["known"]).lower()),
        ]
        for row in _rows(batch)
    )
