"""Videos and folders: decoding alone, predicting alone, one after the other, and both at once.

The four take turns on one video, which is made on the spot: faces of ``--data`` that move over a
grey ground; and then on a folder of its frames as JPEG. A second, longer video of small frames
shows the memory early and late.

    python bench/video.py --data .data/fer2013 --parts frames pictures --seconds 20 \\
        --pictures 500 --rounds 3 --threads 2 --out docs/results/video.md
    python bench/video.py --data .data/fer2013 --parts memory --minutes 60 --threads 1 \\
        --out docs/results/video-memory.md
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
from mien.inference.answers import answers
from mien.inference.footage import BATCH, Footage
from mien.inference.pictures import decoded, listed
from mien.inference.video import predict_video
from mien.pixels import decode
from mien.report.table import Column, Table, decimals

RATE = 25
PARTS = ("frames", "pictures", "memory")
WORKS = ("decoding alone", "predicting alone", "one after the other", "both at once")


def drawn(faces: np.ndarray, number: int, size: tuple[int, int]) -> np.ndarray:
    """A frame of `size` (width, height) with a face that moves, another one every second."""
    width, height = size
    side = height // 2
    frame = np.full((height, width, 3), 96, np.uint8)
    face = cv2.resize(faces[number // RATE % len(faces)], (side, side))
    x = number % (width - side)
    frame[height // 4 : height // 4 + side, x : x + side] = (
        face if face.ndim == 3 else face[:, :, None]
    )
    return frame


def make(path: Path, faces: np.ndarray, frames: int, size: tuple[int, int]) -> Path:
    """A video of so many frames."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), RATE, size)
    if not writer.isOpened():
        raise RunError("this OpenCV has no encoder for MPEG-4 to make a video with")
    for number in range(frames):
        writer.write(drawn(faces, number, size))
    writer.release()
    return path


def make_folder(path: Path, faces: np.ndarray, pictures: int, size: tuple[int, int]) -> Path:
    """A folder of so many frames as JPEG."""
    path.mkdir()
    for number in range(pictures):
        cv2.imwrite(str(path / f"{number:05}.jpg"), drawn(faces, number, size))
    return path


def decode_film(film: Path) -> int:
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


def of_film(film: Path, classifier: Classifier, frames: int) -> list[Callable[[], int]]:
    """`WORKS` on a video."""
    with Footage(film) as footage:
        held = [frame.pixels for frame in next(iter(footage))]
    return [
        lambda: decode_film(film),
        lambda: predict(held, frames, classifier),
        lambda: in_turns(film, classifier),
        lambda: predict_video(film, classifier).frames,
    ]


def files_in_turns(files: Sequence[Path | bytes], classifier: Classifier) -> int:
    """Pictures decoded and predicted one after the other, in batches of the same size."""
    for first in range(0, len(files), BATCH):
        batch = files[first : first + BATCH]
        classifier.predict([decode(file, str(file)) for file in batch])
    return len(files)


def of_folder(folder: Path, classifier: Classifier, pictures: int) -> list[Callable[[], int]]:
    """`WORKS` on a folder."""
    files = [picture.source for picture in listed([folder])]
    held = [decode(file, str(file)) for file in files[:BATCH]]
    return [
        lambda: sum(1 for _ in decoded(listed([folder]))),
        lambda: predict(held, pictures, classifier),
        lambda: files_in_turns(files, classifier),
        lambda: sum(1 for _ in answers(listed([folder]), classifier)),
    ]


def rates_table(what: str, jobs: list[Callable[[], int]], args: argparse.Namespace) -> Table:
    """How fast each of `WORKS` is, and what doing both at once is worth."""
    works = dict(zip(WORKS, jobs, strict=True))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
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
        Column(f"{what}/s", decimals(1)),
        Column("busy cores", decimals(2)),
        Column("times one after the other", decimals(2)),
        Column("of all rounds", lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}"),
    ]
    note = f"{args.rounds} rounds in turns; medians."
    return Table(what, f"{what.title()} per second.", columns, rows, [note])


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
    parser.add_argument("--pictures", type=int, default=1000, help="in the folder")
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
        if "frames" in args.parts:
            frames = args.seconds * RATE
            make(path, faces, frames, (width, height))
            tables.append(rates_table("frames", of_film(path, classifier, frames), args))
        if "pictures" in args.parts:
            photos = make_folder(Path(folder) / "photos", faces, args.pictures, (width, height))
            works = of_folder(photos, classifier, args.pictures)
            tables.append(rates_table("pictures", works, args))
        if "memory" in args.parts:
            film = make(path, faces, int(args.minutes * 60 * RATE), (160, 120))
            tables.append(memory_table(film, small, args))
    about = [
        f"frames: {args.seconds} s of {width}x{height} pixels at {RATE} a second, MPEG-4",
        f"pictures: {args.pictures:,} of that size, JPEG",
        f"detector: {getattr(classifier.detector, 'name', 'none')}",
        f"memory: {args.minutes:g} min of 160x120 pixels; each picture one face",
    ]
    return sheet.publish("Videos and folders: decoding and predicting at once", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
