"""How CBAM's gates start: at 0.5 as published, or near identity, beside no attention.

A gate of 0.5 twice in each block leaves a quarter of the signal. Shown are what is left of it in a
fresh network, how the trainings begin, and where they end. What is trained is kept under
``--runs``, so the same command goes on where it was stopped. The published figure comes from

    python bench/gates.py --data .data/fer2013 --networks plain vgg19-without-norm --images 150 \\
        --epochs 3 --threads 1 --out docs/results/gates.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import exp, log
from statistics import fmean

import sheet
import torch
import trials
from torch import nn
from trials import SHORT

from mien.data import FaceSet
from mien.data.splits import sample
from mien.images import normalisation
from mien.images.tensors import as_tensor
from mien.report.table import (
    ACCURACY,
    INTERVAL,
    Column,
    Table,
    percent,
    signed,
)
from mien.runs.recipe import Recipe
from mien.runs.seed import random_seed
from mien.study.scales import PLAIN
from mien.training.batches import prepared
from mien.training.predict import build_model

NETWORKS = {
    "plain": PLAIN,
    "vgg19": SHORT.but(model="vgg19"),
    # Without normalisation the rate of the others, 2e-3, throws the weights about.
    "vgg19-without-norm": SHORT.but(model="vgg19", batch_norm=False, lr=3e-4, clip=1.0),
    "resnet50": SHORT.but(model="resnet50"),
}
STARTS = {
    "no attention": {"attention": "none"},
    "CBAM, paper's gates": {"attention": "cbam", "gates": "paper"},
    "CBAM, identity gates": {"attention": "cbam", "gates": "identity"},
}

SIGNAL_IMAGES = 140
"""Images on which the signal at the start is measured."""

LABELS = (Column("network"), Column("start"))


def title(recipe: Recipe) -> str:
    """The network's name, whatever its attention."""
    plain = recipe.but(attention="none").title
    return plain if recipe.batch_norm else f"{plain} without batch norm"


@torch.no_grad()
def signal_left(recipe: Recipe, faces: FaceSet, seed: int) -> float:
    """Standard deviation of a fresh network's last map, divided by that of its first convolution's.

    The weights are those that `mien.fit` starts from with this seed; batch norm, where there is
    any, uses the statistics of these faces, as in training.
    """
    torch.manual_seed(random_seed(seed, "weights"))
    model = build_model(recipe, len(faces.classes), faces.channels).train()
    deviations: list[float] = []

    def note(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if not deviations:
            deviations.append(float(output.std()))

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    statistics = normalisation(recipe.normalise, faces.images)
    images = prepared(as_tensor(faces.images, "cpu"), statistics, recipe.image_size)
    last = model.forward_features(images)  # type: ignore[operator]
    return float(last.std()) / deviations[0]


def signal_table(
    recipes: Sequence[Recipe], labels: Sequence[list[str]], faces: FaceSet, seeds: int
) -> Table:
    """What each network passes on before it has learned anything."""
    rows = []
    for recipe, label in zip(recipes, labels, strict=True):
        left = [signal_left(recipe, faces, seed) for seed in range(seeds)]
        rows.append([*label, exp(fmean(map(log, left)))])
    return Table(
        "gates-signal",
        "Signal left in fresh networks: standard deviation of the last map, divided by that of the "
        "first convolution's.",
        [*LABELS, Column("last/first", lambda share: f"{share:.2g}")],
        rows,
        ["ResNet50's residual branches start at zero: its gates have no signal to shrink."],
        f"{len(faces)} images, geometric mean of {seeds} seed(s).",
    )


def epochs_table(
    found: Sequence[trials.Trial], labels: Sequence[list[str]], epochs: int, context: str
) -> Table:
    """How the trainings go."""
    return Table(
        "gates-epochs",
        "Validation accuracy (%) after each epoch, without copies of the images trained on.",
        [*LABELS, *(Column(str(epoch + 1), percent) for epoch in range(epochs))],
        [[*label, *trial.curve] for trial, label in zip(found, labels, strict=True)],
        ["Mean over the seeds, of the averaged weights."],
        context,
    )


def final_table(
    found: Sequence[trials.Trial], labels: Sequence[list[str]], images: int, context: str
) -> Table:
    """Where the trainings end."""
    return Table(
        "gates-final",
        "Final validation accuracy.",
        [
            *LABELS,
            ACCURACY,
            INTERVAL,
            Column("sd of seeds (points)", percent),
            Column("each seed (%)"),
        ],
        [
            [
                *label,
                trial.mean,
                trial.interval,
                trial.spread,
                ", ".join(percent(accuracy) for accuracy in trial.accuracies),
            ]
            for trial, label in zip(found, labels, strict=True)
        ],
        [
            f"On all {images:,} validation images; the interval is what their number leaves open "
            "about the mean, the sd is what the seed changes."
        ],
        context,
    )


def pairs_table(found: Sequence[trials.Trial], labels: Sequence[list[str]], context: str) -> Table:
    """Each start against each other one, network by network."""
    rows = []
    for (one, first), (other, second) in combinations(zip(labels, found, strict=True), 2):
        if one[0] == other[0]:
            compared = trials.difference(first.unseen_accuracies, second.unseen_accuracies)
            rows.append([one[0], f"{other[1]} − {one[1]}", *compared])
    return Table(
        "gates-differences",
        "Differences in final accuracy, without copies of the images trained on, paired by seed.",
        [
            Column("network"),
            Column("difference"),
            Column("points", signed),
            Column("95 % interval", lambda pair: f"{signed(pair[0])} to {signed(pair[1])}"),
            Column("which is"),
        ],
        rows,
        ["Intervals are not corrected for the number of comparisons."],
        context,
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Train what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    trials.add_arguments(parser)
    parser.add_argument("--networks", nargs="+", default=tuple(NETWORKS), choices=NETWORKS)
    args = sheet.parse(parser, argv, "gates")

    parts = trials.read_parts(args.data, args.images)
    recipes = [NETWORKS[name].but(**start) for name in args.networks for start in STARTS.values()]
    found = trials.train_all(recipes, parts, args)
    labels = [[title(NETWORKS[name]), start] for name in args.networks for start in STARTS]
    context = f"{trials.scale(parts, args)}; 48 pixels, stride 16, batch 64, fp32, from scratch."
    few = sample(parts.train, SIGNAL_IMAGES // len(parts.train.classes))
    tables = [
        signal_table(recipes, labels, few, args.seeds),
        epochs_table(found, labels, args.epochs, context),
        final_table(found, labels, len(parts.validation), context),
        pairs_table(found, labels, context),
    ]
    return sheet.publish("How CBAM's gates start", [str(parts)], tables, args)


if __name__ == "__main__":
    sheet.run(main)
