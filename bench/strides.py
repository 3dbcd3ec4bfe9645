"""Accuracy and cost of the total strides 32, 16 and 8 at the faces' own 48 pixels.

All trainings have the same images, epochs and recipe; only the stride differs. What is trained is
kept under ``--runs``, so the same command goes on where it was stopped. The published figure comes
from

    python bench/strides.py --data .data/fer2013 --images 500 --epochs 8 \\
        --threads 2 --out docs/results/strides.md
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import sheet
import torch
import trials
from trials import SHORT

from mien.models.cost import cost
from mien.report.table import ACCURACY, INTERVAL, Column, Table, count, decimals, percent
from mien.runs.recipe import Recipe
from mien.study.scales import PLAIN
from mien.training.predict import build_model

STRIDES = (32, 16, 8)
MODELS = ("plain", "resnet50")


def recipe_of(model: str, stride: int, width: float) -> Recipe:
    """The recipe of `plain`, or that of the six models at cpu scale."""
    if model == "plain":
        return PLAIN.but(stride=stride)
    return SHORT.but(model=model, stride=stride, width=width)


def row_of(trial: trials.Trial, parts: trials.Parts) -> list:
    """A trial's size, cost and accuracy."""
    recipe, channels = trial.recipe, parts.train.channels
    model = build_model(recipe, len(parts.train.classes), channels).eval()
    with torch.no_grad():
        faces = torch.zeros(1, channels, recipe.image_size, recipe.image_size)
        height, width = model.forward_features(faces).shape[-2:]  # type: ignore[operator]
    return [
        recipe.title,
        recipe.stride,
        f"{height}x{width}",
        cost(model, recipe.image_size, channels).multiply_adds / 1e6,
        median(run.info["training_images_per_second"] for run in trial.runs),
        median(run.info["train_seconds"] for run in trial.runs),
        trial.mean,
        trial.interval,
        trial.spread,
        float(trial.unseen_accuracies.mean()),
    ]


def main(argv: Sequence[str] | None = None) -> str:
    """Train what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    trials.add_arguments(parser)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--width", type=float, default=0.25, help="of ResNet50, not of plain")
    args = sheet.parse(parser, argv, "strides")

    parts = trials.read_parts(args.data, args.images)
    recipes = [recipe_of(model, stride, args.width) for model in args.models for stride in STRIDES]
    found = trials.train_all(recipes, parts, args)
    table = Table(
        "strides",
        "Accuracy and cost of the total stride.",
        [
            Column("model"),
            Column("stride", count),
            Column("last map"),
            Column("multiply-adds (M)", decimals(1)),
            Column("training images/s", count),
            Column("training (s)", decimals(1)),
            ACCURACY,
            INTERVAL,
            Column("sd of seeds (points)", percent),
            Column("without copies (%)", percent),
        ],
        [row_of(trial, parts) for trial in found],
        [
            f"Accuracy: mean over the seeds on all {len(parts.validation):,} validation images. "
            "The interval is what their number leaves open, the sd is what the seed changes.",
            "Rate and time: median over the seeds, with validation after every epoch in the time.",
        ],
        f"{trials.scale(parts, args)}; 48 pixels, batch 64, fp32, from scratch.",
    )
    return sheet.publish("Total strides 32, 16 and 8", [str(parts)], [table], args)


if __name__ == "__main__":
    sheet.run(main)
