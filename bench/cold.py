"""Seconds from a cold start to an answer, and the size of what has to be installed for it.

`mien predict` of one photograph, each time in a fresh process, beside Python alone and beside the
imports that no such command could do without. Point it at a base install:

    uv venv /tmp/base && VIRTUAL_ENV=/tmp/base uv pip install .
    python bench/cold.py --python /tmp/base/bin/python --out docs/results/cold.md
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import sheet
import skimage.data
from PIL import Image

from mien.report.table import Column, Table, decimals

IMPORTS = "import cv2, numpy, onnxruntime"
PREDICT = "mien predict"


def works(python: Path, photo: Path) -> dict[str, list[str]]:
    """What is started, by name."""
    return {
        "Python alone": [str(python), "-c", "pass"],
        IMPORTS: [str(python), "-c", IMPORTS],
        PREDICT: [str(python), "-m", "mien.cli", "predict", str(photo)],
    }


def seconds_of(command: list[str]) -> float:
    """Seconds that a process takes from its start to its end."""
    # Where bytecode may not be kept, everything is compiled again at each start.
    keeping = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=keeping)
    return perf_counter() - began


def in_turns(commands: Mapping[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round, after one that compiles what was just installed."""
    taken = [[seconds_of(command) for command in commands.values()] for _ in range(rounds + 1)]
    return dict(zip(commands, map(list, zip(*taken[1:], strict=True)), strict=True))


def installed(python: Path) -> float:
    """MiB on the disk of the packages of a Python."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    told = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True)
    folder = Path(told.stdout.strip())
    # What is shared by hard links with an installer's cache is counted: it has to be there.
    return sum(file.stat().st_blocks for file in folder.rglob("*") if file.is_file()) / 2**11


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, and return the sheet."""
    parser = sheet.parser(__doc__)
    parser.set_defaults(device="cpu")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of the install")
    parser.add_argument("--rounds", type=int, default=10)
    args = sheet.parse(parser, argv, "cold")
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "astronaut.png"
        Image.fromarray(skimage.data.astronaut()).save(photo)
        taken = in_turns(works(args.python, photo), args.rounds)
    table = Table(
        "cold",
        "From a cold start.",
        [
            Column("process"),
            Column("median (s)", decimals(2)),
            Column("of all rounds (s)", lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}"),
            Column("times the imports", decimals(2)),
        ],
        [
            [name, median(all_), (min(all_), max(all_)), median(all_) / median(taken[IMPORTS])]
            for name, all_ in taken.items()
        ],
        [f"{args.rounds} rounds in turns, after one that is not counted."],
    )
    about = [
        f"install: {installed(args.python):,.0f} MiB of packages",
        "photograph: scikit-image's astronaut, 512x512",
    ]
    return sheet.publish("From a cold start to an answer", about, [table], args)


if __name__ == "__main__":
    sheet.run(main)
