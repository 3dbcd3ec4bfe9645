"""Successive halving beside the whole grid it halves: the same winner, and at what cost.

Every setting of a grid is trained in full with every seed, and every seed's grid is searched by
halving on its own. The winner of a halving is judged by what the grid says of that setting over all
seeds. What is trained is kept under ``--runs``, so the same command goes on where it was stopped.
The published figure comes from

    python bench/halving.py --data drawn:2800 --epochs 18 --seeds 3 --threads 1 --workers 2 \\
        --out docs/results/halving.md
"""

from __future__ import annotations

import json
import math
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sheet

from mien.data import FaceSet, read, roles
from mien.report.table import Column, Table, count, decimals, percent, signed
from mien.search import Search, Space, tune

BASE = {
    "model": "plain",
    "width": 0.25,
    "image_size": 16,
    "stride": 16,
    "schedule": "constant",
    "optimiser": "sgd",
    "lr": 0.01,
}
PARAMETERS = {
    "lr": [0.1, 0.01, 0.001],
    "optimiser": ["sgd", "adam", "rmsprop"],
    "batch_size": [64, 32, 16],
    "l2": [0.0, 0.001, 0.1],
}
FIDELITIES = ("full", "halving")


def thinned(faces: FaceSet, per_class: int | None) -> FaceSet:
    """The set with at most so many training images of each class; the other splits stay whole."""
    faces, found = roles(faces)
    keep = faces.split != found.train
    for label in range(len(faces.classes)):
        rows = np.flatnonzero((faces.split == found.train) & (faces.labels == label))
        keep[rows[:per_class]] = True
    return faces[keep]


def searched(faces: FaceSet, seed: int, fidelity: str, args: Namespace) -> tuple[Search, float]:
    """One search, and the seconds it took on the wall if it was not made before.

    The two kinds keep their runs apart, so that neither finds the other's work done.
    """
    folder, eta = args.runs / fidelity, args.eta if fidelity == "halving" else 3
    began = time.perf_counter()
    search = tune(
        Space("halving", {**BASE, "epochs": args.epochs, "seed": seed}, PARAMETERS),
        faces,
        storage=f"sqlite:///{folder}/trials.db",
        name=f"{args.data}, {args.images} a class, {args.epochs} epochs, seed {seed}, {eta=}",
        fidelity=fidelity,
        eta=eta,
        runs=folder,
        workers=args.workers,
        threads=args.threads,
        device=args.device,
        seed=seed,
    )
    return search, time.perf_counter() - began


def accuracies(grids: Sequence[Search]) -> dict[str, np.ndarray]:
    """Accuracy in full training by setting, ``[seeds]``; 0 where it diverged."""
    values = [{trial.setting: trial.value or 0.0 for trial in grid.trials} for grid in grids]
    return {setting: np.array([found[setting] for found in values]) for setting in values[0]}


def named(setting: str) -> str:
    """A setting's key as a reader wants it."""
    return ", ".join(f"{name} {value}" for name, value in json.loads(setting).items())


def verdict(gap: float, noise: float) -> str:
    """What a difference from the grid's winner means beside what another seed does to one."""
    if gap >= 0:
        return "the same, or as good"
    if math.isnan(noise):
        return "not known from one seed"
    return "within the noise of seeds" if -gap <= noise else "beyond the noise of seeds"


def winners_table(grids: Sequence[Search], halvings: Sequence[Search], context: str) -> Table:
    """The setting that each halving found, judged by the whole grid over all seeds."""
    found = accuracies(grids)
    best = max(found, key=lambda setting: found[setting].mean())
    noise = float(found[best].std(ddof=1)) if len(grids) > 1 else float("nan")
    rows = []
    for seed, halving in enumerate(halvings):
        chosen = halving.best
        gap = float(found[chosen.setting].mean() - found[best].mean())
        rank = 1 + sum(other.mean() > found[chosen.setting].mean() for other in found.values())
        rows.append(
            [
                str(seed),
                named(chosen.setting),
                found[chosen.setting].mean(),
                rank,
                100 * gap,
                verdict(gap, noise),
            ]
        )
    return Table(
        "halving-winners",
        "The winner of each halving, by its accuracy in full training over all seeds.",
        [
            Column("seed"),
            Column("winner of halving"),
            Column("accuracy", percent, "%"),
            Column(f"place of {len(found)}", count),
            Column("beside the grid's (points)", signed),
            Column("which is"),
        ],
        rows,
        [
            f"The grid's winner over all seeds ({named(best)}): {percent(found[best].mean())} %. "
            + (
                f"The noise of seeds is what they change it by: {percent(noise)} points (sd)."
                if len(grids) > 1
                else "One seed says nothing about the noise of seeds."
            )
        ],
        context,
    )


def cost_table(
    grids: Sequence[tuple[Search, float]], halvings: Sequence[tuple[Search, float]], context: str
) -> Table:
    """What both ways cost, seed by seed."""
    rows = []
    for seed, pair in enumerate(zip(grids, halvings, strict=True)):
        whole = pair[0][0].cost()
        for fidelity, (search, wall) in zip(FIDELITIES, pair, strict=True):
            cost = search.cost()
            rows.append(
                [
                    str(seed),
                    {"full": "whole grid", "halving": "halving"}[fidelity],
                    len(search.trials),
                    cost["epoch_images"],
                    cost["epoch_images"] / whole["epoch_images"],
                    cost["seconds"],
                    cost["seconds"] / whole["seconds"],
                    wall,
                ]
            )
    return Table(
        "halving-cost",
        "Cost of the whole grid and of halving.",
        [
            Column("seed"),
            Column("search"),
            Column("trials", count),
            Column("epochs x images", count),
            Column("of the grid's", percent, "%"),
            Column("training (s)", decimals(1)),
            Column("of the grid's", percent, "%"),
            Column("wall (s)", decimals(1)),
        ],
        rows,
        [
            "Halving's figures include the default's full training, which it is compared with.",
            "Seconds on the wall are those of this call: less where it was interrupted before.",
        ],
        context,
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Search what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--images", type=int, help="training images per class; default: all")
    parser.add_argument("--epochs", type=int, default=18, help="of full training")
    parser.add_argument("--eta", type=int, default=6, help="one in so many is promoted")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench/halving"))
    args = sheet.parse(parser, argv, "halving")

    faces = thinned(read(args.data), args.images)
    grids, halvings = (
        [searched(faces, seed, fidelity, args) for seed in range(args.seeds)]
        for fidelity in FIDELITIES
    )
    first = grids[0][0]
    context = (
        f"{args.epochs} epochs of {first.objective.images:,} images in full; {first.space.size} "
        f"settings; {first.objective.measured:,} validation images; seeds 0 to {args.seeds - 1}."
    )
    rungs = ", ".join(map(str, halvings[0][0].fidelity.rungs))
    about = [
        f"{faces.name}, fingerprint {first.objective.fingerprint}; {first.objective.text}",
        f"rungs of halving, one in {args.eta} promoted from each: {rungs}",
    ]
    tables = [
        winners_table([s for s, _ in grids], [s for s, _ in halvings], context),
        cost_table(grids, halvings, context),
    ]
    return sheet.publish("Successive halving beside the whole grid", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
