"""How FER-2013's crops lie to the boxes of each detector, and what correcting for it is worth.

Training faces are enlarged and laid on a grey canvas, and each detector looks for them; the median
over faces of the crop's place relative to the box is its mapping, which `mien.detection.boxes`
keeps. Then the packaged model is asked about validation faces that the detector
found: in the true crop, in the detector's box as it is, in the mapped box, and in the mapped box
turned by the eyes; all once upright and once with the whole canvas turned. The accuracies of one
detector are of the same faces.

Crops end at the canvas's grey, so a detector sees less around a face than in a photograph: the
shares found are lower than there, and what the mapping is worth in photographs is not measured.

The published figures come from

    python bench/detectors.py --data .data/fer2013 --images 600 --threads 1 \\
        --out docs/results/detectors.md

CenterFace is there after `mien fetch detector`; YuNet with ``--yunet FILE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import sheet

from mien.data import FaceSet, read, roles
from mien.detection import Detector, Found, Mapping, crop, detector, tilt, training_box
from mien.detection.fetch import place
from mien.inference import Classifier, load
from mien.metrics import wilson_interval
from mien.pixels import letterbox, to_channels
from mien.report.table import ACCURACY, INTERVAL, Column, Table, count, decimals, percent

GREY = 128
WAYS = ("true crop", "box as it is", "mapped", "mapped and turned")


@dataclass(frozen=True)
class Seen:
    """A face on its canvas, its label, where its crop lies, and what a detector found of it."""

    picture: np.ndarray
    label: int
    crop: tuple[int, int, int, int]
    found: Found | None


def canvas_of(image: np.ndarray, zoom: int, degrees: float) -> np.ndarray:
    """A crop ``[S, S]``, enlarged and turned, on a grey canvas of twice its side."""
    large = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    side = len(large)
    canvas = np.full((2 * side, 2 * side), GREY, np.uint8)
    at = slice(side // 2, side // 2 + side)
    canvas[at, at] = large
    if not degrees:
        return canvas
    turn = cv2.getRotationMatrix2D((side - 0.5, side - 0.5), degrees, 1.0)
    return cv2.warpAffine(canvas, turn, canvas.shape[1::-1], borderValue=(GREY,))


def looked_at(faces: FaceSet, finds: Detector, zoom: int, degrees: float = 0) -> Iterator[Seen]:
    """Every face as the detector sees it; found is the largest box over the middle of the crop."""
    side = faces.size * zoom
    for image, label in zip(faces.images, faces.labels, strict=True):
        picture = canvas_of(image, zoom, degrees)
        middle = len(picture) / 2
        over = (
            found
            for found in finds(picture)
            if 0 < middle - found.box[0] < found.box[2] and 0 < middle - found.box[1] < found.box[3]
        )
        at = (len(picture) - side) // 2
        yield Seen(picture, int(label), (at, at, side, side), next(over, None))


def placed(seen: Seen) -> tuple[float, float, float] | None:
    """The crop's side and how far its middle is right of and below the box's, in box heights."""
    if seen.found is None:
        return None
    x, y, width, height = seen.found.box
    left, top, side, _ = seen.crop
    return (
        side / height,
        (left + side / 2 - x - width / 2) / height,
        (top + side / 2 - y - height / 2) / height,
    )


def crops_of(seen: Seen, mapping: Mapping) -> list[np.ndarray]:
    """What the model is shown in each of `WAYS`."""
    assert seen.found is not None
    box = seen.found.box
    mapped = training_box(box, mapping, seen.picture.shape)
    places = [(seen.crop,), (box,), (mapped,), (mapped, tilt(seen.found.eyes))]
    return [crop(seen.picture, *at) for at in places]


def accuracies(
    found: Sequence[Seen], mapping: Mapping, model: Classifier
) -> list[tuple[float, tuple[float, float]]]:
    """The model's accuracy, with its interval, on the same faces in each of `WAYS`."""
    shown = [crops_of(seen, mapping) for seen in found]
    labels = np.array([seen.label for seen in found])
    results = []
    for way in zip(*shown, strict=True):
        images = [letterbox(to_channels(image, model.channels), model.size) for image in way]
        right = int((model.predict_proba(np.stack(images)).argmax(1) == labels).sum())
        results.append((right / len(labels), wilson_interval(right, len(labels))))
    return results


def detectors(args: argparse.Namespace) -> Iterator[Detector]:
    """Those that are there."""
    threads = args.threads or 0
    for name in ("cascade", "centerface"):
        if name == "cascade" or place(name).is_file():
            yield detector(name, threads=threads)
    if args.yunet:
        yield detector("yunet", args.yunet)


def some(faces: FaceSet, images: int) -> FaceSet:
    """As many faces as asked for, drawn without regard to their class."""
    rows = np.random.default_rng(0).permutation(len(faces))[:images]
    return faces[np.sort(rows)]


def main(argv: Sequence[str] | None = None) -> str:
    """Measure and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--images", type=int, default=600, help="of each split")
    parser.add_argument("--zoom", type=int, default=2, help="how much the crops are enlarged")
    parser.add_argument("--turn", type=float, default=25, help="degrees, for the turned canvases")
    parser.add_argument("--yunet", type=Path, help="YuNet's ONNX file")
    args = sheet.parse(parser, argv, "detectors")
    if args.threads:
        cv2.setNumThreads(args.threads)

    faces, parts = roles(read(args.data))
    train = some(faces[parts.train], args.images)
    held_out = some(faces[parts.validation], args.images)
    model = load(detector="none", threads=args.threads or 0)
    mappings, worth = [], []
    for finds in detectors(args):
        seen = list(looked_at(train, finds, args.zoom))
        places = np.array([where for one in seen if (where := placed(one)) is not None])
        middle = np.median(places, axis=0)
        mapping = Mapping(*map(float, middle))
        spread = np.median(np.abs(places - middle), axis=0)
        mappings.append(
            [finds.name, len(seen), len(places) / len(seen), *np.stack([middle, spread], 1).ravel()]
        )
        for degrees in (0.0, args.turn):
            found = [one for one in looked_at(held_out, finds, args.zoom, degrees) if one.found]
            if not found:
                continue
            for way, (accuracy, interval) in zip(
                WAYS, accuracies(found, mapping, model), strict=True
            ):
                worth.append(
                    [
                        f"{finds.name}, {way}",
                        f"{degrees:g}",
                        len(found) / len(held_out),
                        len(found),
                        accuracy,
                        interval,
                    ]
                )
    tables = [
        Table(
            "mappings",
            "Where the crop lies relative to the box: median and median absolute deviation over "
            f"faces of {parts.train}, in heights of the box.",
            [
                Column("detector"),
                Column("faces", count),
                Column("found", percent),
                *(
                    Column(title, decimals(3))
                    for what in ("side", "right", "down")
                    for title in (what, f"± {what}")
                ),
            ],
            mappings,
        ),
        Table(
            "worth",
            f"Accuracy of the packaged model on the faces of {parts.validation} (validation) that "
            "the detector found.",
            [
                Column("what the model is shown"),
                Column("turned by (degrees)"),
                Column("found", percent),
                Column("faces", count),
                ACCURACY,
                INTERVAL,
            ],
            worth,
        ),
    ]
    about = [
        f"{args.images} images of each split, drawn with seed 0; crops enlarged {args.zoom} times",
        f"model: {model.name}",
    ]
    return sheet.publish("Detectors and the crops of FER-2013", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
