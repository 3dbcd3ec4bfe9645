"""Seconds from raw pixels to a target accuracy: trainings from scratch, one after another.

The clock starts with the images in memory as they were read (uint8) and stops when the trained
network has given its probabilities for every validation image; reading files is outside it, and so
are short trainings beforehand that compile what is compiled. Every seed is trained anew, nothing
is taken from an earlier call. In the manner of K. Jordan, 94 % on CIFAR-10 in 3.29 seconds on a
single GPU (2024). On an accelerator:

    python bench/speedrun.py --data .data/fer2013 --seeds 5 --views 2 \\
        --set precision=bf16 compile=true --out docs/results/speedrun-gpu.md

where each face is answered for together with its mirror image, as in that speed run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import sheet
import torch
import trials

from mien.cli.train import recipe_of
from mien.report.table import Column, Table, decimals, percent
from mien.runs.recipe import Recipe
from mien.training import fit, predict_probabilities
from mien.training.batches import side_of
from mien.training.views import VIEWS


def one(recipe: Recipe, parts: trials.Parts, device: str, views: int) -> tuple[float, np.ndarray]:
    """Seconds of one training and its predictions, and which validation images it got right."""
    with tempfile.TemporaryDirectory() as runs:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run = fit(recipe, parts.train, runs=runs, device=device, progress="none")
        found = predict_probabilities(run, parts.validation, device, views=views)
        seconds = time.perf_counter() - began
    return seconds, found.argmax(1) == parts.validation.labels


def main(argv: Sequence[str] | None = None) -> str:
    """Train with every seed and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--recipe", default="plain", help="a name, or a TOML file")
    parser.add_argument("--set", nargs="+", default=[], help="NAME=VALUE, as for `mien train`")
    parser.add_argument("--images", type=int, help="training images per class; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--views", type=int, default=1, choices=VIEWS, help="of each face")
    parser.add_argument("--target", type=float, default=71.0, help="accuracy to reach, in %%")
    args = sheet.parse(parser, argv, "speedrun")

    recipe = recipe_of(args.recipe, args.set)
    parts = trials.read_parts(args.data, args.images, votes=recipe.wants_votes)
    timed = partial(one, parts=parts, device=args.device, views=args.views)
    if torch.device(args.device).type == "cuda":
        # Every size of image is compiled by itself.
        for side in {side_of(recipe, epoch) for epoch in range(recipe.epochs)}:
            start = side if side < recipe.image_size else 0
            timed(recipe.but(epochs=1, warmup=0, start_size=start, seed=args.seeds))
    measured = [timed(recipe.but(seed=seed)) for seed in range(args.seeds)]
    seconds = np.array([took for took, _ in measured])
    accuracies = np.array([right.mean() for _, right in measured])
    unseen = np.array([right[parts.unseen].mean() for _, right in measured])
    reached = accuracies.mean() >= args.target / 100
    rows = [
        [str(seed), *figures]
        for seed, figures in enumerate(zip(seconds, accuracies, unseen, strict=True))
    ]
    rows.append(["mean", seconds.mean(), accuracies.mean(), unseen.mean()])
    if args.seeds > 1:
        rows.append(["sd", seconds.std(ddof=1), accuracies.std(ddof=1), unseen.std(ddof=1)])
    table = Table(
        "speedrun",
        f"Seconds to train, and the accuracy reached; target {args.target:g} %: "
        f"{'reached' if reached else 'NOT reached'}.",
        [
            Column("seed"),
            Column("seconds", decimals(2)),
            Column("accuracy", percent, "%"),
            Column("without copies", percent, "%"),
        ],
        rows,
        ["The last averaged weights are taken; validation images are not looked at in training."],
        f"{recipe.title}, {recipe.epochs} epochs of {len(parts.train):,} images; views of a face: "
        f"{args.views}.",
    )
    return sheet.publish("Speed run", [str(parts)], [table], args)


if __name__ == "__main__":
    sheet.run(main)
