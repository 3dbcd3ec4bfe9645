"""Expressions over the time of a video or a camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from mien.errors import DataError
from mien.inference import recording
from mien.inference.classifier import Classifier, Face
from mien.inference.footage import Footage
from mien.inference.recording import Record, Seen, partial_of
from mien.inference.timeline import Timeline
from mien.inference.tracks import Tracks
from mien.runs.atomic import check_folder


@dataclass(frozen=True)
class Watched:
    """What came of a video.

    Attributes
    ----------
    frames : decoded
    chosen : looked at
    faces : tracks of faces
    seconds : at which it ended
    promised : that its container says it lasts; None for a camera and where it does not say
    dropped : frames of a camera that came too fast to be looked at
    files : written
    notes : what the user should be told, such as that the video is truncated, one sentence each
    """

    frames: int
    chosen: int
    faces: int
    seconds: float
    promised: float | None
    dropped: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def predict_video(
    source: Path | str | int,
    classifier: Classifier,
    *,
    out: Path | str | TextIO | None = None,
    smooth: float = 0.0,
    every: int = 1,
    summary: Path | str | None = None,
    largest: bool = False,
    min_probability: float | None = None,
    progress: Callable[[float, float | None], object] | None = None,
) -> Watched:
    """Predict the faces of a video or camera, frame by frame, and link them over time.

    Frames are decoded in a thread while those before them are predicted in batches; what is held
    in memory does not grow with the length of the video. A camera is watched until Ctrl-C, and
    everything is then finished as at the end of a file.

    Parameters
    ----------
    source : a file, or the number of a camera
    classifier : what finds the faces and predicts them, as `mien.load()` gives it
    out : a file for the rows, .csv or .jsonl; an .mp4 for a copy with the faces drawn; a stream
        such as ``sys.stdout`` for JSON lines; None to keep none of these. A row has the frame, its
        time in seconds, the face's track, box, label and probabilities, and the rest of `Face`. A
        file appears under its name when it is complete; until then its rows are in
        ``NAME.part.csv``.
    smooth : seconds of the exponential mean of each track's probabilities; 0 for none
    every : look at every so many frames only
    summary : a folder for ``summary.csv`` (of each track the share of its time by label),
        ``timeline.csv`` and, where matplotlib is installed, the plot of it as SVG and PDF
    largest, min_probability : as in `Classifier.predict`; with smoothing it is the smoothed
        probability that must be reached
    progress : told the second that is reached and `Watched.promised`, after each batch

    Raises
    ------
    DataError
        for a file that is no video, has no frame that can be decoded or a codec that is missing; a
        camera that is not there or in use; a setting out of range. A truncated video is no error:
        what can be decoded is used, and a note says where it ends.
    RunError
        if something cannot be written.
    KeyboardInterrupt
        on Ctrl-C while a file is read, with a message of what is kept and where.
    """
    if every < 1:
        raise DataError(f"every {every} frames is not possible; give 1 or more")
    source = Path(source) if isinstance(source, str) else source
    out = Path(out) if isinstance(out, str) else out
    if summary is not None:
        check_folder(Path(summary))
    if isinstance(out, Path):
        recording.check(out)
        if isinstance(source, Path):
            for place in (out, partial_of(out)):  # which it is written to until it is complete
                if place.resolve() == source.resolve():
                    raise DataError(f"{place}: is the video itself; write to another file")
    drawn = isinstance(out, Path) and out.suffix.lower() == recording.FILM
    least = classifier.threshold if min_probability is None else min_probability
    tracks, timeline = Tracks(smooth, least), Timeline(classifier.classes)
    chosen, reached, faces = 0, 0.0, []
    # Ctrl-C is how a camera ends, and what is kept of it is then complete.
    until = suppress(KeyboardInterrupt) if isinstance(source, int) else nullcontext()
    try:
        with (
            Footage(source, every, between=drawn) as footage,
            _recorded(out, classifier.classes, footage.rate) as record,
            until,
        ):
            for batch in footage:
                pictures = [frame.pixels for frame in batch if frame.chosen]
                found = cast(
                    list[list[Face]],
                    classifier.predict(pictures, largest=largest, min_probability=least),
                )
                answers = iter(found)
                seen = []
                for frame in batch:
                    if frame.chosen:
                        faces = tracks.follow(next(answers), frame.time)
                        timeline.add(frame.time, faces)
                    seen.append(Seen(frame, faces))
                record(seen)
                chosen, reached = chosen + len(pictures), batch[-1].time + 1 / footage.rate
                if progress is not None:
                    progress(reached, footage.promised)
            reached = footage.seconds
    except KeyboardInterrupt:
        kept = f"; what came before is in {partial_of(out)}" if isinstance(out, Path) else ""
        raise KeyboardInterrupt(f"stopped at second {reached:.2f}{kept}") from None
    notes = [footage.cut()]
    if footage.dropped:
        notes.append(
            f"{footage.name}: {footage.dropped:,} of {footage.frames:,} pictures came faster than "
            "they could be looked at, and were dropped"
        )
    files = [out] if isinstance(out, Path) else []
    if summary is not None:
        timeline.end(reached)
        written, missing = timeline.write(Path(summary))
        files += written
        notes.append(missing)
    return Watched(
        frames=footage.frames,
        chosen=chosen,
        faces=tracks.count,
        seconds=reached,
        promised=footage.promised,
        dropped=footage.dropped,
        files=tuple(files),
        notes=tuple(note for note in notes if note),
    )


def _recorded(
    out: Path | TextIO | None, classes: Sequence[str], rate: float
) -> AbstractContextManager[Record]:
    if out is None:
        return nullcontext(lambda batch: None)
    if not isinstance(out, Path):
        return recording.streamed(out)
    if out.suffix.lower() == recording.FILM:
        return recording.film(out, rate)
    return recording.table(out, classes)
