"""Why do plain stacks of convolutions learn FER-2013 faster from scratch than residual networks?

From `plain` to ResNet50 step by step, each network as wide as makes its multiply-adds those of
`plain`: more convolutions, shortcuts around two of them, branches that start at 0, bottlenecks, and
ResNet50 itself. All have the same recipe, images and batches, and so many passes that none is near
its end: what is compared is how fast they learn. Trainings are kept under ``--runs``; the same
command given twice shares the work. The published sheet comes from

    python bench/stacks.py --data .data/fer2013 --images 2000 --epochs 5 --seeds 3 --threads 1 \\
        --out docs/results/stacks.md

and, with another optimiser, `stacks-muon.md` from the same with ``--lr 0.03 --set optimiser=muon
weight_decay=0.05 precision=bf16``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from typing import Any

import sheet
import torch
import torch.nn.functional as F
import trials
from torch import nn

from mien.cli.app import settings_given
from mien.data import FaceSet
from mien.models import registry
from mien.models.cost import cost
from mien.models.layers import convolution, scaled
from mien.models.registry import Entry
from mien.report.table import ACCURACY, Column, Table, count, decimals, percent, signed
from mien.runs.recipe import Recipe
from mien.study.scales import PLAIN
from mien.training.predict import build_model

CHANNELS = (32, 64, 128, 256, 256)
"""Of the stages of `plain`, the first of which is one convolution at full size."""

EXPANSION = 4
"""Channels of a bottleneck's output for each in the middle, as in ResNet50."""


@dataclass(frozen=True)
class Design:
    """What the last four of five stages are made of.

    Attributes
    ----------
    kernels : sizes of the convolutions of a block, one of them 1 where it is a bottleneck
    blocks : in each stage
    shortcut : whether the input of a block is added to what it makes
    zero : whether the weight of a block's last normalisation starts at 0, as ResNet50's does
    """

    kernels: tuple[int, ...]
    blocks: int
    shortcut: bool = False
    zero: bool = False


DESIGNS = {
    "5 convolutions": Design((3,), 1),
    "9 convolutions": Design((3, 3), 1),
    "9 convolutions, shortcuts": Design((3, 3), 1, shortcut=True),
    "17 convolutions": Design((3, 3), 2),
    "17 convolutions, shortcuts": Design((3, 3), 2, shortcut=True),
    "17 convolutions, shortcuts, start at 0": Design((3, 3), 2, shortcut=True, zero=True),
    "13 in bottlenecks, shortcuts, start at 0": Design((1, 3, 1), 1, shortcut=True, zero=True),
    "49 in bottlenecks, shortcuts, start at 0": Design((1, 3, 1), 4, shortcut=True, zero=True),
}
"""One step shallower than `plain`, of seven convolutions, and what is between it and ResNet50."""


class Block(nn.Module):
    """Convolutions with batch norm and ReLU, and the addition of what came in, if so."""

    def __init__(self, inputs: int, outputs: int, design: Design) -> None:
        super().__init__()
        middle = outputs // EXPANSION if 1 in design.kernels else outputs
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        came = inputs
        for place, kernel in enumerate(design.kernels, 1):
            last = place == len(design.kernels)
            goes = outputs if last else middle
            layers[f"conv{place}"] = convolution(came, goes, kernel, padding=kernel // 2)
            layers[f"bn{place}"] = nn.BatchNorm2d(goes)
            if not last:
                layers[f"relu{place}"] = nn.ReLU(inplace=True)
            elif design.zero:
                nn.init.zeros_(layers[f"bn{place}"].weight)  # type: ignore[arg-type]
            came = goes
        self.branch = nn.Sequential(layers)
        self.shortcut: nn.Module | None = None
        if design.shortcut:
            self.shortcut = nn.Identity()
            if inputs != outputs:
                self.shortcut = nn.Sequential(
                    convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs)
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.branch(x)
        return F.relu(made if self.shortcut is None else made + self.shortcut(x), inplace=True)


class Stack(nn.Module):
    """The stages of `plain` out of other blocks; logits ``[N, classes]`` of ``[N, C, H, W]``."""

    stage_names = ("stage1", "stage2", "stage3", "stage4", "stage5")

    def __init__(
        self, design: Design, *, classes: int, channels: int, width: float, dropout: float | None,
        **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        inputs = scaled(CHANNELS[0], width)
        self.stage1 = nn.Sequential(
            convolution(channels, inputs, 3, padding=1), nn.BatchNorm2d(inputs), nn.ReLU()
        )
        for name, base in zip(self.stage_names[1:], CHANNELS[1:], strict=True):
            layers: list[nn.Module] = [nn.MaxPool2d(2)]
            for _block in range(design.blocks):
                layers.append(Block(inputs, scaled(base, width), design))
                inputs = scaled(base, width)
            setattr(self, name, nn.Sequential(*layers))
        self.dropout = nn.Dropout(dropout or 0.0)
        self.fc = nn.Linear(inputs, classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map."""
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.forward_features(x).mean((2, 3))))


def builder(name: str) -> str:
    """The model's name of a design."""
    return "stack_" + "".join(c if c.isalnum() else "_" for c in name)


def register() -> None:
    """Make the designs models that recipes can name."""
    for name, design in DESIGNS.items():
        globals()[builder(name)] = partial(Stack, design)
        registry.REGISTRY[builder(name)] = Entry(f"{__name__}:{builder(name)}", {16: 16})


def work(recipe: Recipe, train: FaceSet) -> float:
    """Multiply-adds of one image."""
    model = build_model(recipe, len(train.classes), train.channels)
    return cost(model, recipe.image_size, train.channels).multiply_adds


def as_wide(recipe: Recipe, aim: float, train: FaceSet) -> Recipe:
    """The recipe at the width, in 32nds, whose multiply-adds are nearest to the aim."""

    def beyond(share: int) -> float:
        return work(recipe.but(width=share / 32), train) - aim

    reached = bisect_left(range(64), 0, lo=1, key=beyond)  # wider is never less work
    nearest = min((max(1, reached - 1), reached), key=lambda share: abs(beyond(share)))
    return recipe.but(width=nearest / 32)


def recipes(base: Recipe, train: FaceSet) -> dict[str, Recipe]:
    """What is compared, by what it is called: `base` itself first, ResNet50 last."""
    models = {name: builder(name) for name in DESIGNS} | {"ResNet50": "resnet50"}
    aim = work(base, train)
    return {"plain, 7 convolutions": base} | {
        name: as_wide(base.but(model=model), aim, train) for name, model in models.items()
    }


def convolutions(model: nn.Module) -> int:
    """How many there are, without those in shortcuts."""
    return sum(
        isinstance(m, nn.Conv2d) and "shortcut" not in name and "downsample" not in name
        for name, m in model.named_modules()
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Train what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    trials.add_arguments(parser)
    parser.add_argument("--width", type=float, default=0.5, help="of plain")
    parser.add_argument("--image-size", type=int, default=24)
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-3], help="all are tried")
    parser.add_argument("--set", nargs="+", default=[], help="NAME=VALUE, as for `mien train`")
    args = sheet.parse(parser, argv, "stacks")

    register()
    parts = trials.read_parts(args.data, args.images)
    classes, channels = len(parts.train.classes), parts.train.channels
    base = PLAIN.but(width=args.width, image_size=args.image_size, dropout=0.0, ema=0.99)
    base = base.but(**settings_given(args.set))
    named = recipes(base, parts.train)
    asked = [recipe.but(lr=lr) for recipe in named.values() for lr in args.lr]
    found = iter(trials.train_all(asked, parts, args))
    rows, firsts = [], {}
    for name, recipe in named.items():
        model = build_model(recipe, classes, channels)
        size = cost(model, recipe.image_size, channels)
        for lr in args.lr:
            trial = next(found)
            first = firsts.setdefault(lr, trial)
            beside = trials.difference(first.unseen_accuracies, trial.unseen_accuracies)[:2]
            rows.append(
                [
                    name, recipe.width, convolutions(model), size.multiply_adds / 1e6,
                    size.parameters / 1e6, f"{lr:g}",
                    mean(run.log[-1]["loss"] for run in trial.runs),
                    trial.curve[0], trial.mean, trial.spread,
                    *(beside if trial is not first else (None, None)),
                    median(run.info["train_seconds"] for run in trial.runs),
                ]
            )  # fmt: skip
    table = Table(
        "stacks",
        "From plain to ResNet50, at equal multiply-adds.",
        [
            Column("network"),
            Column("width", decimals(2)),
            Column("convolutions", count),
            Column("multiply-adds (M)", decimals(1)),
            Column("parameters (M)", decimals(2)),
            Column("learning rate"),
            Column("training loss, last epoch", decimals(3)),
            Column("after one epoch, without copies (%)", percent),
            ACCURACY,
            Column("sd of seeds (points)", percent),
            Column("beside plain (points)", signed),
            Column("95 % interval", lambda pair: f"{signed(pair[0])} to {signed(pair[1])}"),
            Column("training (s)", count),
        ],
        rows,
        [
            "Convolutions: without those in shortcuts. Start at 0: the weight of a block's last "
            "normalisation, as in ResNet50.",
            "Beside plain: at the same learning rate, without copies of the images trained on, by "
            "a paired t interval over the seeds.",
            "Seconds mean little where other work ran beside it.",
        ],
        f"{base.image_size} pixels, stride 16, batch {base.batch_size}; "
        f"{trials.scale(parts, args)}; {base.optimiser}, {base.schedule}, from scratch.",
    )
    return sheet.publish("Plain stacks and residual networks", [str(parts)], [table], args)


if __name__ == "__main__":
    sheet.run(main)
