"""Frames per second of decoding alone, predicting alone, one after the other, and both at once.

The four take turns on one video, which is made on the spot: faces of ``--data`` that move over a
grey ground. A second, longer video of small frames shows the memory early and late.

    python bench/video.py --seconds 40 --minutes 60 --threads 2
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from os import times
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import sheet
from memory import anonymous

from mien.data import read
from mien.errors import RunError
from mien.inference import Classifier, load
from mien.inference.footage import BATCH, Footage
from mien.inference.video import predict_video
from mien.report.table import Column, Table, count, decimals

RATE = 25
PARTS = ("rates", "memory")
WORKS = ("decoding alone", "predicting alone", "one after the other", "both at once")


def make(path: Path, faces: np.ndarray, frames: int, size: tuple[int, int]) -> Path:
    """A video of `size` (width, height) in which a face moves, another one every second."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), RATE, size)
    if not writer.isOpened():
        raise RunError("this OpenCV has no encoder for MPEG-4 to make a video with")
    width, height = size
    side = height // 2
    for number in range(frames):
        frame = np.full((height, width, 3), 96, np.uint8)
        face = cv2.resize(faces[number // RATE % len(faces)], (side, side))
        x = number % (width - side)
        frame[height // 4 : height // 4 + side, x : x + side] = (
            face if face.ndim == 3 else face[:, :, None]
        )
        writer.write(frame)
    writer.release()
    return path


def decode(film: Path) -> int:
    """Frames of a video that are decoded and thrown away."""
    with Footage(film) as footage:
        return sum(len(batch) for batch in footage)


def in_turns(film: Path, classifier: Classifier) -> int:
    """Frames, a batch decoded and then predicted, in one thread."""
    capture, done, batch = cv2.VideoCapture(str(film), cv2.CAP_FFMPEG), 0, []
    whole = True
    while whole:
        whole, pixels = capture.read()
        if whole:
            batch.append(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        if len(batch) == BATCH or not whole:
            classifier.predict(batch)
            done, batch = done + len(batch), []
    return done


def predict(batch: list[np.ndarray], frames: int, classifier: Classifier) -> int:
    """Frames that lie in memory, predicted in batches, the same again and again."""
    for first in range(0, frames, len(batch)):
        classifier.predict(batch[: frames - first])
    return frames


def rated(work: Callable[[], int]) -> tuple[float, float]:
    """Frames per second of the clock, and cores that were busy."""
    began, before = perf_counter(), times()
    done = work()
    seconds, after = perf_counter() - began, times()
    return done / seconds, (after.user + after.system - before.user - before.system) / seconds


def rates_table(film: Path, classifier: Classifier, args: argparse.Namespace) -> Table:
    """How fast each work is, and what doing both at once is worth."""
    with Footage(film) as footage:
        held = [frame.pixels for frame in next(iter(footage))]
    frames = args.seconds * RATE
    works: dict[str, Callable[[], int]] = dict(
        zip(
            WORKS,
            (
                lambda: decode(film),
                lambda: predict(held, frames, classifier),
                lambda: in_turns(film, classifier),
                lambda: predict_video(film, classifier).frames,
            ),
            strict=True,
        )
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    predict(held, len(held), classifier)  # once, to warm up
    for _ in range(args.rounds):
        for name, work in works.items():
            found[name].append(rated(work))
    rows = []
    for name, rounds in found.items():
        ratios = [
            rate / turns for (rate, _), (turns, _) in zip(rounds, found[WORKS[2]], strict=True)
        ]
        rate, busy = (median(values) for values in zip(*rounds, strict=True))
        rows.append([name, rate, busy, median(ratios), (min(ratios), max(ratios))])
    columns = [
        Column("work"),
        Column("frames/s", count),
        Column("busy cores", decimals(2)),
        Column("times one after the other", decimals(2)),
        Column("of all rounds", lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}"),
    ]
    note = f"{args.rounds} rounds in turns; medians."
    return Table("video", "Frames per second.", columns, rows, [note])


def memory_table(film: Path, classifier: Classifier, args: argparse.Namespace) -> Table:
    """Memory while a long video is watched with everything kept that can be."""
    readings: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        watched = predict_video(
            film,
            classifier,
            out=Path(folder) / "faces.csv",
            summary=Path(folder) / "summary",
            smooth=1.0,
            every=args.every,
            progress=lambda second, _: readings.append((second, anonymous())),
        )
    rows = []
    early = None
    for share in (0.05, 0.25, 0.5, 0.75, 1.0):
        held = max(
            size
            for second, size in readings
            if (share - 0.05) * watched.seconds <= second <= share * watched.seconds + 1
        )
        early = early or held
        rows.append([f"{share * watched.seconds / 60:.1f} min", held / 2**20, held / early])
    columns = [
        Column("watched"),
        Column("held", decimals(1), "MiB", "MiB"),
        Column("times the first", decimals(3)),
    ]
    note = (
        f"Anonymous memory (RssAnon), the most in the twentieth of the video before; "
        f"{watched.frames:,} frames, every {args.every}th looked at, {watched.faces} tracks."
    )
    return Table("video-memory", "Memory over a long video.", columns, rows, [note])


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, and return the sheet."""
    parser = sheet.parser(__doc__)
    parser.set_defaults(data="drawn:70", device="cpu", threads=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--model", type=Path, help="an ONNX file; default: the packaged model")
    parser.add_argument("--detector", default="auto", help="as for `mien predict`")
    parser.add_argument("--seconds", type=int, default=20, help="length of the video for the rates")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60, help="of the video for the memory")
    parser.add_argument("--every", type=int, default=5, help="look at every so many of its frames")
    args = sheet.parse(parser, argv, "video")
    faces = read(args.data).images
    classifier = load(args.model, detector=args.detector, threads=args.threads)
    small = load(args.model, detector="none", threads=args.threads)
    width, height = args.size
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        if "rates" in args.parts:
            film = make(path, faces, args.seconds * RATE, (width, height))
            tables.append(rates_table(film, classifier, args))
        if "memory" in args.parts:
            film = make(path, faces, int(args.minutes * 60 * RATE), (160, 120))
            tables.append(memory_table(film, small, args))
    about = [
        f"rates: {args.seconds} s of {width}x{height} pixels at {RATE} frames/s, MPEG-4; detector "
        f"{getattr(classifier.detector, 'name', 'none')}",
        f"memory: {args.minutes:g} min of 160x120 pixels; each picture one face",
    ]
    return sheet.publish("Video: decoding and predicting at once", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
