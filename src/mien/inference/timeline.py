"""How long each face of a video had which expression, in memory that does not grow with time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import MienError, RunError
from mien.inference.tracks import Tracked
from mien.runs.atomic import write_text

BINS = 2000
"""Parts that the whole time is cut into at most; there are never fewer than half as many, once
there were so many of `FINEST`."""

FINEST = 0.1
"""Seconds of a part at the beginning."""

UNKNOWN = "unknown"
"""Heads the share of the time in which no class was likely enough to be an answer."""

SHOWN = 8
"""Faces that the plot shows, those seen longest."""


@dataclass
class _Part:
    """A part of a track: where it begins and ends, and sums over time in between."""

    start: float
    end: float
    seconds: float
    probabilities: np.ndarray


@dataclass
class _Track:
    first: float
    last: float
    frames: int = 0
    by_label: dict[str, float] = field(default_factory=dict)
    parts: dict[int, _Part] = field(default_factory=dict)


class Timeline:
    """What is seen of each track. A frame counts until the next one that was looked at begins.

    Parameters
    ----------
    classes : names in the order of the probabilities
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._tracks: dict[int, _Track] = {}
        self._width = FINEST
        self._waiting: tuple[float, Sequence[Tracked]] | None = None

    def add(self, time: float, faces: Sequence[Tracked]) -> None:
        """Note the faces of the frame at `time`; times increase."""
        self.end(time)
        self._waiting = time, faces

    def end(self, time: float) -> None:
        """Let the last frame's faces last until `time`."""
        if self._waiting is None:
            return
        start, faces = self._waiting
        self._waiting = None
        while start / self._width >= BINS:
            self._coarsen()
        for seen in faces:
            self._note(seen, start, max(time - start, 0.0))

    def _note(self, seen: Tracked, start: float, seconds: float) -> None:
        track = self._tracks.setdefault(seen.track, _Track(start, start))
        track.last, track.frames = start + seconds, track.frames + 1
        label = seen.face.label if seen.face.known else UNKNOWN
        track.by_label[label] = track.by_label.get(label, 0.0) + seconds
        chances = seconds * np.array(list(seen.face.probabilities.values()))
        place = int(start / self._width)
        part = _Part(start, start + seconds, seconds, chances)
        track.parts[place] = _joined(track.parts.get(place), part)

    def _coarsen(self) -> None:
        self._width *= 2
        for track in self._tracks.values():
            joined: dict[int, _Part] = {}
            for place, part in track.parts.items():
                joined[place // 2] = _joined(joined.get(place // 2), part)
            track.parts = joined

    def shares(self) -> list[dict[str, Any]]:
        """Of each track: face, first, last, seconds, frames, and the share of time by label."""
        rows = []
        for number, track in sorted(self._tracks.items()):
            seconds = sum(track.by_label.values())
            row: dict[str, Any] = {
                "face": number,
                "first": track.first,
                "last": track.last,
                "seconds": seconds,
                "frames": track.frames,
            }
            for name in (*self.classes, UNKNOWN):
                row[name] = track.by_label.get(name, 0.0) / (seconds or 1.0)
            rows.append(row)
        return rows

    def curve(self, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of a track's parts ``[n, 2]``, and mean probabilities ``[n, C]``."""
        parts = [part for _, part in sorted(self._tracks[track].parts.items()) if part.seconds]
        spans = np.array([(part.start, part.end) for part in parts]).reshape(-1, 2)
        means = np.array([part.probabilities / part.seconds for part in parts])
        return spans, means.reshape(-1, len(self.classes))

    def write(self, folder: Path) -> tuple[list[Path], str | None]:
        """Write ``summary.csv``, ``timeline.csv``, and the plot ``timeline.svg`` and ``.pdf``.

        Returns
        -------
        the files that were written, and why there is no plot, or None

        Raises
        ------
        RunError
            if the folder cannot be written.
        """
        rows = self.shares()
        faces = {row["face"]: self.curve(row["face"]) for row in rows}
        files = [folder / "summary.csv", folder / "timeline.csv"]
        header = ["face", "first", "last", "seconds", "frames", *self.classes, UNKNOWN]
        _write(files[0], header, (list(row.values()) for row in rows))
        spans = (
            [face, *span, *means]
            for face, curve in faces.items()
            for span, means in zip(*curve, strict=True)
        )
        _write(files[1], ["face", "start", "end", *self.classes], spans)
        longest = sorted(rows, key=lambda row: -row["seconds"])[:SHOWN]
        shown = {f"face {row['face']}": faces[row["face"]] for row in longest}
        if not shown:
            return files, "no timeline was drawn: there was no face"
        from mien.plots.style import save
        from mien.plots.timeline import expression_timeline

        try:
            figure = expression_timeline(shown, self.classes)
        except MienError as error:
            return files, f"no timeline was drawn: {error}"
        try:
            return [*files, *save(figure, folder / "timeline")], None
        except OSError as error:
            raise RunError(f"{folder}: cannot be written ({error.strerror})") from error


def _joined(before: _Part | None, after: _Part) -> _Part:
    if before is None:
        return after
    return _Part(
        min(before.start, after.start),
        max(before.end, after.end),
        before.seconds + after.seconds,
        before.probabilities + after.probabilities,
    )


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{v:.3f}" if isinstance(v, float) else v for v in row])
    write_text(path, text.getvalue())
