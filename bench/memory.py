"""Training on a set larger than the memory it may take: what it takes, and what that costs.

A set of random pictures is written into a store part by part, trained on by `mien.fit` (one epoch,
with validation, statistics and fingerprints), and, for comparison, trained on from memory, each in
a process of its own. What counts is anonymous memory, RssAnon of /proc/self/status, read a hundred
times a second: pages of the store's file belong to the system's page cache, which gives them back
when others need room. Allowed is a quarter of the set above what the process takes with Python,
torch and one training step of the same net done.

Rates are measured with the file in the page cache, mapped anew in every round, so that each page is
touched for the first time in it, and step by step in turns with the same part of the set in memory.
There is no augmentation, whose time would hide that of reading.

The published figures come from

    python bench/memory.py --gigabytes 4 --threads 2 --out docs/results/memory.md

and ``--gigabytes 0.1 --part 256`` shows in a minute that it works; of so small a set, a quarter is
less than any training takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import perf_counter
from typing import Any

import numpy as np
import sheet
import torch
from training import create_step

from mien.data import CLASSES, FaceSet, read
from mien.data.store import write_store
from mien.images import normalisation
from mien.report.table import Column, Table, count, decimals
from mien.runs.recipe import Recipe
from mien.training import fit
from mien.training.batches import Batches
from mien.training.predict import build_model

GIB = 2**30
RECIPE = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1)
PART = 256  # pictures drawn at a time


def random_faces(images: int, size: int) -> Iterator[FaceSet]:
    """So many pictures of noise, part by part; the last twentieth is for validation."""
    rng = np.random.default_rng(0)
    for start in range(0, images, PART):
        rows = np.arange(start, min(start + PART, images))
        yield FaceSet(
            rng.integers(0, 256, (len(rows), size, size, 3), np.uint8),
            rows % len(CLASSES),
            CLASSES,
            np.char.mod("%08d", rows),
            np.where(rows < 0.95 * images, "train", "validation"),
            name="noise",
        )


def anonymous() -> int:
    """Bytes of anonymous memory that this process holds."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def peak_of(work: Callable[[], object]) -> int:
    """The most anonymous memory that the process holds while `work` is done."""
    readings, done = [anonymous()], Event()

    def sample() -> None:
        while not done.wait(0.01):
            readings.append(anonymous())

    sampler = Thread(target=sample)
    sampler.start()
    try:
        work()
    finally:
        done.set()
        sampler.join()
    return max(*readings, anonymous())


def step_of(recipe: Recipe, faces: FaceSet) -> Callable[[Batches], Iterator[float]]:
    """Training of one net: from batches, the seconds that each of them and its step take."""
    device = torch.device("cpu")
    model = build_model(recipe, len(faces.classes), faces.channels)
    step = create_step(model, recipe, device, averaged=False)

    def train(batches: Batches) -> Iterator[float]:
        began = perf_counter()
        for batch in batches.epoch(0):
            step(batch.images, batch.targets)
            yield perf_counter() - began
            began = perf_counter()

    return train


def batches_of(recipe: Recipe, faces: FaceSet) -> Batches:
    """The batches of a set, with statistics that need no look at it."""
    return Batches(faces, recipe, normalisation("symmetric", faces.images), torch.device("cpu"))


def memory(what: str, folder: Path, args: argparse.Namespace) -> tuple[int, int]:
    """Anonymous memory before, and at most during, one of the works; in a process of its own."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    recipe = RECIPE.but(batch_size=args.batch)
    (some,) = random_faces(min(args.batch, PART), args.size)
    list(step_of(recipe, some)(batches_of(recipe, some)))
    del some

    def train(faces: FaceSet) -> None:
        with tempfile.TemporaryDirectory() as runs:
            fit(recipe, faces["train"], faces["validation"], runs=runs, device="cpu",
                progress="none")  # fmt: skip

    works: dict[str, Callable[[], object]] = {
        "written": lambda: write_store(random_faces(args.images, args.size), folder),
        "store": lambda: train(read(folder)),
        "memory": lambda: train(in_memory(read(folder))),
    }
    before = anonymous()
    return before, peak_of(works[what])


def in_memory(faces: FaceSet) -> FaceSet:
    """The same set, its images read into memory."""
    return replace(faces, images=np.array(faces.images))


def rates(folder: Path, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Images per second from the store and from memory, of every round; in a process of its own."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    recipe = RECIPE.but(batch_size=args.batch)
    held = in_memory(read(folder)[: args.part])
    train = step_of(recipe, held)
    list(train(batches_of(recipe, held)))
    found = []
    for _ in range(args.rounds):
        stored = read(folder)[: args.part]
        in_turns = zip(
            train(batches_of(recipe, stored)), train(batches_of(recipe, held)), strict=True
        )
        found.append(tuple(args.batch / np.median(list(in_turns), 0)))
    return found


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a fresh process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_table(folder: Path, args: argparse.Namespace, allowed: int) -> Table:
    """What each work takes of anonymous memory."""
    rows = []
    for what, title in (
        ("written", "writing the store"),
        ("store", "training from the store"),
        ("memory", "training from memory"),
    ):
        before, peak = alone(memory, what, folder, args)
        above = peak - before
        verdict = "within" if above <= allowed else f"{above / allowed:.1f} times as much"
        rows.append([title, before / GIB, peak / GIB, above / GIB, allowed / GIB, verdict])
    columns = [
        Column("work"),
        *(
            Column(title, decimals(3), "GiB", "GiB")
            for title in ("before it", "at most", "more than before", "allowed")
        ),
        Column("within it?"),
    ]
    return Table("memory", "Anonymous memory (RssAnon) of one process.", columns, rows)


def rates_table(folder: Path, args: argparse.Namespace) -> Table:
    """How fast training is from the store and from memory."""
    found = alone(rates, folder, args)
    ratios = [stored / held for stored, held in found]
    stored, held = (median(rate) for rate in zip(*found, strict=True))
    row = [f"{args.part:,} images", stored, held, median(ratios), (min(ratios), max(ratios))]
    columns = [
        Column("part of the set"),
        Column("from the store", count),
        Column("from memory", count),
        Column("store/memory", decimals(3)),
        Column("of all rounds", lambda pair: " to ".join(f"{end:.3f}" for end in pair)),
    ]
    note = f"{args.rounds} rounds, step by step in turns; medians of the steps and of the rounds."
    return Table("rates", "Training images per second.", columns, [row], [note])


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, and return the sheet."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the set, in GiB")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--part", type=int, default=4096, help="images that rates are measured on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the store is made; default: a temporary folder")
    args = sheet.parse(parser, argv, "memory")
    bytes_each = 3 * args.size**2
    args.images = int(args.gigabytes * GIB) // bytes_each
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place) / "store"
        about = [
            f"set: {args.images:,} pictures of noise, {args.size}x{args.size} pixels in RGB, "
            f"{args.images * bytes_each / GIB:.2f} GiB",
            f"net: {RECIPE.title} at {RECIPE.image_size} pixels, batches of {args.batch}",
        ]
        allowed = args.images * bytes_each // 4
        tables = [memory_table(folder, args, allowed), rates_table(folder, args)]
    return sheet.publish("Training on a set larger than memory", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
