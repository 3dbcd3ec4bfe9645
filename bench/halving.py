"""Successive halving beside the whole grid it halves: the same winner, and at what cost.

Every setting of a grid is trained in full with every seed, and every seed's grid is searched by
halving on its own. What a search picks with one seed is judged by what the whole grid says of that
setting with the other seeds, and so is what the grid itself would have picked. What is trained is
kept under ``--runs``, so the same command goes on where it was stopped.
The published figure comes from

    python bench/halving.py --data drawn:2800 --epochs 18 --seeds 3 --threads 1 \\
        --out docs/results/halving.md
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
PARAMETERS: dict[str, list[Any]] = {
    "lr": [0.1, 0.01, 0.001],
    "optimiser": ["sgd", "adam", "rmsprop"],
    "batch_size": [64, 32, 16],
    "l2": [0.0, 0.001, 0.1],
}


def thinned(faces: FaceSet, per_class: int | None) -> FaceSet:
    """The set with at most so many training images of each class; the other splits stay whole."""
    faces, found = roles(faces)
    keep = faces.split != found.train
    for label in range(len(faces.classes)):
        rows = np.flatnonzero((faces.split == found.train) & (faces.labels == label))
        keep[rows[:per_class]] = True
    return faces[keep]


def searched(faces: FaceSet, seed: int, fidelity: str, eta: int, args: Namespace) -> Search:
    """One search, made or taken up where it was stopped.

    Each kind keeps its runs apart, so that none finds the work of another done.
    """
    folder = args.runs / (fidelity if fidelity == "full" else f"{fidelity}-{eta}")
    return tune(
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


def accuracies(grids: Sequence[Search]) -> dict[str, np.ndarray]:
    """Accuracy in full training by setting, ``[seeds]``; 0 where it diverged."""
    values = [{trial.setting: trial.value or 0.0 for trial in grid.trials} for grid in grids]
    return {setting: np.array([found[setting] for found in values]) for setting in values[0]}


def named(setting: str) -> str:
    """A setting's key as a reader wants it."""
    return ", ".join(f"{name} {value}" for name, value in json.loads(setting).items())


def winners_table(
    grids: Sequence[Search], halvings: Mapping[str, Sequence[Search]], context: str
) -> Table:
    """What each search picks with one seed, by what the pick reaches with the other seeds.

    Judged by its own seed, a pick would be flattered by the luck that it was picked for.
    """
    found = accuracies(grids)
    picks = {"whole grid": [grid.best.setting for grid in grids]} | {
        name: [search.best.setting for search in each] for name, each in halvings.items()
    }
    picked = {setting for each in picks.values() for setting in each}
    sd = math.sqrt(np.mean([found[setting].var(ddof=1) for setting in picked]))
    error = sd * math.sqrt(2 / (len(grids) - 1))
    elsewhere = {
        name: [float(np.delete(found[pick], seed).mean()) for seed, pick in enumerate(each)]
        for name, each in picks.items()
    }
    mean = {name: sum(each) / len(each) for name, each in elsewhere.items()}
    rows = []
    for seed in range(len(grids)):
        for name, each in picks.items():
            gap = elsewhere[name][seed] - elsewhere["whole grid"][seed]
            verdict = "within it" if gap >= -error else "below it"
            if each[seed] == picks["whole grid"][seed]:
                verdict = "the same"
            rows.append(
                [str(seed), name, named(each[seed]), elsewhere[name][seed]]
                + ([None, None] if name == "whole grid" else [100 * gap, verdict])
            )
    best = max(found, key=lambda setting: found[setting].mean())
    return Table(
        "halving-winners",
        "What each search picks with one seed, and its accuracy in full training with the others.",
        [
            Column("seed"),
            Column("search"),
            Column("pick"),
            Column("accuracy with the other seeds", percent, "%"),
            Column("beside the grid's pick (points)", signed),
            Column("beside one standard error"),
        ],
        rows,
        [
            f"{name}: {signed(100 * (mean[name] - mean['whole grid']))} points beside the grid's "
            "picks, mean over the seeds."
            for name in halvings
        ]
        + [
            f"A seed changes one training of these picks by {percent(sd)} points (sd); the "
            f"standard error of a difference, each side a mean of {len(grids) - 1}, is "
            f"{percent(error)}.",
            f"The best mean over all seeds ({named(best)}) is {percent(found[best].mean())} %, "
            "flattered by being the largest of all on the figures it was picked by.",
        ],
        context,
    )


def cost_table(searches: Mapping[str, Sequence[Search]], context: str) -> Table:
    """What every search cost, seed by seed."""
    rows = []
    for seed, grid in enumerate(searches["whole grid"]):
        whole = grid.cost()
        for name, each in searches.items():
            cost = each[seed].cost()
            rows.append(
                [
                    str(seed),
                    name,
                    len(each[seed].trials),
                    cost["epoch_images"],
                    cost["epoch_images"] / whole["epoch_images"],
                    cost["seconds"],
                    cost["seconds"] / whole["seconds"],
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
            Column("epochs x images, of the grid's", percent, "%"),
            Column("training (s)", decimals(1)),
            Column("training, of the grid's", percent, "%"),
        ],
        rows,
        [
            "Halving's figures include the default's full training, which it is compared with.",
            "Seconds are those of the trainings, and mean little where other work ran beside them.",
        ],
        context,
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Search what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--images", type=int, help="training images per class; default: all")
    parser.add_argument("--epochs", type=int, default=18, help="of full training")
    parser.add_argument("--eta", type=int, nargs="+", default=[3, 6], help="one in so many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench/halving"))
    args = sheet.parse(parser, argv, "halving")

    if args.seeds < 2:
        parser.error("one seed's pick is judged with the others: give --seeds 2 or more")
    faces = thinned(read(args.data), args.images)
    kinds = {"whole grid": ("full", 3)} | {
        f"halving, one in {eta}": ("halving", eta) for eta in args.eta
    }
    searches = {
        name: [searched(faces, seed, fidelity, eta, args) for seed in range(args.seeds)]
        for name, (fidelity, eta) in kinds.items()
    }
    halvings = {name: each for name, each in searches.items() if name != "whole grid"}
    grids = searches["whole grid"]
    first = grids[0]
    context = (
        f"{args.epochs} epochs of {first.objective.images:,} images in full; {first.space.size} "
        f"settings; {first.objective.measured:,} validation images; seeds 0 to {args.seeds - 1}."
    )
    about = [
        f"{faces.name}, fingerprint {first.objective.fingerprint}; {first.objective.text}",
        *(
            f"rungs of {name}: {', '.join(map(str, each[0].fidelity.rungs))}"
            for name, each in halvings.items()
        ),
    ]
    tables = [winners_table(grids, halvings, context), cost_table(searches, context)]
    return sheet.publish("Successive halving beside the whole grid", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
