"""Mien's packaged model beside `fer`, another package for the task: the same faces, in one run.

`fer` (https://pypi.org/project/fer) carries a network that was trained on FER-2013 too. It brings
TensorFlow and PyTorch, so it is installed apart, and Mien as its users have it, without training:

    uv venv --python 3.11 /tmp/fer && uv pip install -p /tmp/fer fer 'setuptools<81'
    uv venv --python 3.11 /tmp/base && uv pip install -p /tmp/base .
    python bench/others.py --data .data/fer2013 --fer /tmp/fer/bin/python \\
        --base /tmp/base/bin/python --out docs/results/others.md

Each gets the faces one at a time, as pictures that are one face; and, from a cold start, one
photograph in which it has to find the face.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import sheet
import skimage.data
from cold import in_turns, installed
from ensemble import between
from PIL import Image
from trials import read_parts

import mien
from mien.data.splits import sample
from mien.errors import RunError
from mien.evaluation.significance import mcnemar
from mien.metrics import evaluate
from mien.report.table import ACCURACY, INTERVAL, Column, Table, decimals, percent, signed

MIENS = {2: "Mien, the packaged model", 1: "Mien, views=1"}
FERS = {"lite": "fer, its default (TensorFlow Lite)", "keras": "fer, use_tflite=False (Keras)"}
PHOTOGRAPH = "from fer.fer import FER; import sys; print(FER().detect_emotions(sys.argv[1]))"

Answers = tuple[np.ndarray, np.ndarray]
"""Probabilities ``[N, 7]``, and the seconds of each face."""


def of_mien(images: np.ndarray, views: int) -> Answers:
    """What the packaged model says."""
    model = mien.load(detector="none", views=views)
    found, seconds = [], []
    for image in images:
        began = time.perf_counter()
        ((face,),) = model.predict([image])
        seconds.append(time.perf_counter() - began)
        found.append(list(face.probabilities.values()))
    return np.array(found), np.array(seconds)


def of_fer(images: np.ndarray, python: Path) -> tuple[dict[str, Answers], str]:
    """What both models of `fer` say, and its versions.

    Raises
    ------
    RunError
        if it cannot be run with that Python.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces, answers = Path(folder) / "faces.npz", Path(folder) / "answers.npz"
        np.savez(faces, images=images)
        script = Path(__file__).with_name("with_fer.py")
        done = subprocess.run([python, script, faces, answers], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise RunError(f"{python}: cannot run fer ({last}); install it as --help says")
        left = np.load(answers)
        found = {name: (left[f"{name}_probabilities"], left[f"{name}_seconds"]) for name in FERS}
        return found, ", ".join(left["versions"])


def main(argv: Sequence[str] | None = None) -> str:
    """Measure and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.set_defaults(device="cpu")
    parser.add_argument("--fer", type=Path, required=True, help="Python of an install of fer")
    parser.add_argument(
        "--base", type=Path, default=Path(sys.executable), help="Python of an install of Mien"
    )
    parser.add_argument("--images", type=int, help="faces per class; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="cold starts of each")
    args = sheet.parse(parser, argv, "others")

    parts = read_parts(args.data, None)
    faces = sample(parts.validation, args.images)
    new = ~faces.stands_in(parts.train)
    fers, versions = of_fer(faces.images, args.fer)
    ways = {name: of_mien(faces.images, views) for views, name in MIENS.items()}
    ways |= {FERS[name]: found for name, found in fers.items()}
    ours = ways[MIENS[2]][0].argmax(1) == faces.labels
    rows = []
    for name, (p, seconds) in ways.items():
        merits, right = evaluate(p, faces.labels, faces.classes), p.argmax(1) == faces.labels
        test = mcnemar(ours[new], right[new]) if name != MIENS[2] else None
        rows.append(
            [name, merits.accuracy, merits.accuracy_interval, right[new].mean(),
             merits.balanced_accuracy, 100 * test.difference if test else None,
             test.interval if test else None, 1000 * median(seconds)]
        )  # fmt: skip
    accuracy = Table(
        "faces",
        "Faces, one at a time.",
        [
            Column("model"),
            ACCURACY,
            INTERVAL,
            Column("without copies", percent, "%"),
            Column("balanced", percent, "%"),
            Column("the first beside it (points)", signed),
            Column("95 % interval", between),
            Column("median a face (ms)", decimals(2)),
        ],
        rows,
        [
            "Mien was trained on Training and chosen on these faces. fer's network is published as "
            "trained on FER-2013; on which of its images is not ours to check.",
            f"The first beside it: McNemar's test on the {int(new.sum()):,} faces without copies "
            "of training images.",
            "fer rounds probabilities to two digits, and is given no margin around a face, which "
            "it would add by default.",
        ],
        f"{len(faces):,} faces of {faces.name}.",
    )
    return sheet.publish(
        "Beside the package fer",
        [str(parts), f"the other: {versions}"],
        [accuracy, cold_table(args)],
        args,
    )


def cold_table(args: argparse.Namespace) -> Table:
    """One photograph from a cold start, in turns, and what is installed for it."""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "astronaut.png"
        Image.fromarray(skimage.data.astronaut()).save(photo)
        commands = {
            "mien predict": [str(args.base), "-m", "mien.cli", "predict", str(photo)],
            "fer": [str(args.fer), "-c", PHOTOGRAPH, str(photo)],
        }
        taken = in_turns(commands, args.rounds)
    return Table(
        "cold",
        "One photograph from a cold start.",
        [
            Column("command"),
            Column("median (s)", decimals(2)),
            Column("of all rounds (s)", lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}"),
            Column("installed (MiB)", decimals(0)),
        ],
        [
            [name, median(all_), (min(all_), max(all_)), installed(Path(commands[name][0]))]
            for name, all_ in taken.items()
        ],
        ["Both find the face by OpenCV's cascade."],
        f"{args.rounds} cold starts of each in turns, after one that is not counted.",
    )


if __name__ == "__main__":
    sheet.run(main)
