"""What the paper's whole study costs on the device at hand: measured in small, extrapolated.

The plan is that of `mien study --scale paper`: the six models in the default and the tuned setting,
the 243 settings of Table IV by successive halving, 10-fold cross-validation and the 5x2 tests. Its
trainings are counted, rung by rung, and each model's rates are measured over a few steps at every
batch size that they have, in training and in validating, at native size and at the published 224 or
299 pixels. Then

    seconds = images trained on / training rate + images validated / validating rate

and nothing else: not reading, not starting, not writing checkpoints, not the GAN. How many epochs
the best setting of a search has is not known beforehand: tuned models are counted with the setting
that the paper reports as the best, and rungs with as many epochs as they allow, so that what is
shown is the most it can be. Beside it stands the whole grid, trained in full. On an accelerator:

    python bench/study.py --data .data/fer2013 --out docs/results/study-cost-gpu.md

and on a processor, where a batch of another size is hardly faster:

    python bench/study.py --data .data/fer2013 --sizes native --batch 30 --steps 2 --rounds 1 \\
        --threads 2 --precision bf16 --out docs/results/study-cost.md
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import harmonic_mean, median
from typing import Any

import numpy as np
import sheet
import torch
from training import PAPER_STRIDE, create_step
from usual import seconds

from mien.data import FaceSet, read, roles
from mien.images import normalisation
from mien.images.tensors import as_tensor
from mien.report.table import Column, Table, count, decimals
from mien.runs.recipe import Recipe
from mien.search import Space
from mien.search.fidelity import halving, shortened, subset_of
from mien.study.scales import SIX, PlannedSearch, Scale, paper_recipe, scales
from mien.training.batches import Batches
from mien.training.predict import build_model, probabilities

MODELS = {model if kind == "none" else f"{model}-{kind}": (model, kind) for model, kind in SIX}
SIZES = ("native", "paper")
VALIDATED_AT_ONCE = 256
"""Images that `probabilities` hands to a model at once."""


@dataclass(frozen=True)
class Part:
    """Trainings of one model that are alike, a part of the plan.

    Attributes
    ----------
    batches : batch sizes, each of which equally many of the trainings have
    trainings, epochs : how many, and of how many epochs each at the most
    images, validated : trained on in an epoch, and validated after it
    """

    name: str
    batches: tuple[int, ...]
    trainings: int
    epochs: int
    images: float
    validated: float

    @property
    def trained(self) -> float:
        """Epochs times images of all its trainings."""
        return self.trainings * self.epochs * self.images

    @property
    def looked_at(self) -> float:
        """Images validated in all its trainings."""
        return self.trainings * self.epochs * self.validated


@dataclass(frozen=True)
class Rates:
    """Images per second of one model at one size: in training by batch, and in validating."""

    training: Mapping[int, float]
    validating: float

    def at(self, batches: Sequence[int]) -> float:
        """In training, over equally many images with each of these batches."""
        return harmonic_mean([self.training[batch] for batch in batches])

    def seconds(self, part: Part) -> float:
        return part.trained / self.at(part.batches) + part.looked_at / self.validating


@dataclass(frozen=True)
class Plan:
    """What the study trains of each model, and the whole grid that its search stands for."""

    search: tuple[Part, ...]
    grid: tuple[Part, ...]
    others: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them, the grid last."""
        return (*self.search, *self.others, *self.grid)


def plan_of(train: FaceSet, validation: FaceSet, batch: int | None) -> Plan:
    """The plan of the paper scale; with all trainings at one batch size where that is given."""
    scale = scales()["paper"]
    unseen = int((~validation.stands_in(train)).sum())  # what a search measures on
    plans = {
        Plan(
            *search_parts(planned, train, unseen),
            other_parts(scale, planned.key, train, len(validation)),
        )
        for planned in scale.searches
    }
    (plan,) = plans  # the six have one and the same, which the tables rely on
    if batch is None:
        return plan
    sections = (plan.search, plan.grid, plan.others)
    return Plan(*(tuple(replace(part, batches=(batch,)) for part in parts) for parts in sections))


def search_parts(
    planned: PlannedSearch, train: FaceSet, validated: int
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """A search by successive halving, a part a rung and the default in full; and the whole grid."""
    space = Space(planned.key, planned.default.to_dict(), planned.levels)
    grid = [space.recipe(setting) for setting in space.grid()]
    ladder = halving(len(grid), space.epochs)
    batches = tuple(dict.fromkeys(recipe.batch_size for recipe in grid))
    parts, before = [], len(grid)
    for number, rung in enumerate(ladder.rungs):
        settings = ladder.places(0, number)
        # On a rung below their epochs, settings that differ in nothing else are one training, and
        # those that were one training so far come to the next rung together.
        distinct = len({shortened(recipe, rung.epochs) for recipe in grid})
        trainings = math.ceil(math.ceil(settings * before / len(grid)) * distinct / before)
        before = distinct
        images = len(subset_of(train, rung.share)) if rung.share < 1 else len(train)
        name = f"search, rung {number + 1}: {settings} settings"
        parts.append(Part(name, batches, trainings, rung.epochs, images, validated))
    alone, epochs = (planned.default.batch_size,), planned.default.epochs
    default = Part("search: the default in full", alone, 1, epochs, len(train), validated)
    whole = tuple(
        Part(f"whole grid: {epochs} epochs", batches, settings, epochs, len(train), validated)
        for epochs, settings in sorted(Counter(recipe.epochs for recipe in grid).items())
    )
    return (*parts, default), whole


def other_parts(scale: Scale, key: str, train: FaceSet, validation: int) -> tuple[Part, ...]:
    """The cross-validations and the final trainings of the model with this key."""
    plan = {one.setting: one.recipe for one in scale.plan if one.recipe.key == key}
    parts = []
    for planned in scale.validations:
        # Every image is held out once by k-fold, and once in each of the five divisions of 5x2.
        folds = planned.folds if planned.scheme == "k-fold" else 10
        held_out = len(train) / (folds if planned.scheme == "k-fold" else 2)
        for model in planned.models:
            if model.recipe.key == key:
                recipe = plan["tuned"] if model.search else model.recipe
                kind = "tuned" if model.search else "default"
                rest = len(train) - held_out
                name, batches = f"{planned.key}, {kind}", (recipe.batch_size,)
                parts.append(Part(name, batches, folds, recipe.epochs, rest, held_out))
    for setting, recipe in plan.items():
        batches, images = (recipe.batch_size,), len(train)
        parts.append(Part(f"final, {setting}", batches, 1, recipe.epochs, images, validation))
    return tuple(parts)


def recipe_at(size: str, name: str, native: int, args: argparse.Namespace) -> Recipe:
    """The paper's recipe of a model at one of `SIZES`, from scratch, which costs the same."""
    model, attention = MODELS[name]
    recipe = paper_recipe(model, attention).but(
        weights="none",
        width=args.width,
        stride=PAPER_STRIDE,
        precision=args.precision,
        compile=args.compile,
    )
    return recipe.but(image_size=native, stride=args.stride) if size == "native" else recipe


def measure_rates(
    recipe: Recipe, faces: FaceSet, batches: Sequence[int], args: argparse.Namespace
) -> Rates:
    """The rates of one model: medians over the rounds, the batch sizes in turns."""
    device = torch.device(args.device)
    statistics = normalisation(recipe.normalise, faces.images)
    model = build_model(recipe, len(faces.classes), faces.channels)
    step = create_step(model, recipe, device, averaged=recipe.ema > 0)
    rates: dict[int, list[float]] = {batch: [] for batch in batches}
    validating = []

    def train(loader: Batches) -> None:
        for batch in loader.epoch(0):
            step(batch.images, batch.targets)

    def of(number: int) -> FaceSet:
        return faces[np.arange(number) % len(faces)]

    loaders = {
        batch: Batches(of(batch * args.steps), recipe.but(batch_size=batch), statistics, device)
        for batch in batches
    }
    images = as_tensor(of(min(VALIDATED_AT_ONCE, max(batches) * args.steps)).images, device)

    def validate() -> None:
        probabilities(model, images, statistics, recipe.image_size, precision=recipe.precision)

    for loader in loaders.values():  # warms up
        first = next(loader.epoch(0))
        step(first.images, first.targets)
    for _ in range(args.rounds):
        for batch, loader in loaders.items():
            rates[batch].append(batch * args.steps / seconds(partial(train, loader), device))
        validating.append(len(images) / seconds(validate, device))
    return Rates({batch: median(found) for batch, found in rates.items()}, median(validating))


def plan_table(plan: Plan, train: FaceSet) -> Table:
    """How much is trained and validated for one model; every row multiplies."""
    rows = []
    for part in plan.parts:
        row = [part.name, together(part.batches), part.trainings, part.epochs, part.images]
        rows.append([*row, part.validated, part.trained / 1e6, part.looked_at / 1e6])
    columns = [
        Column("part"),
        Column("batch"),
        Column("trainings", count),
        Column("epochs, at most", count),
        Column("images an epoch", decimals(1)),
        Column("validated after it", decimals(1)),
        Column("trained on", decimals(3), "M", "M"),
        Column("validated", decimals(3), "M", "M"),
    ]
    notes = [
        "Trained on: trainings x epochs x images. Each of the six models has this plan; the whole "
        "grid is what the search stands for.",
        "Settings that differ only in epochs are one training on a rung that is shorter, so a rung "
        "has fewer trainings than settings.",
        "Tuned: counted with the best setting that the paper reports.",
    ]
    return Table(
        "study-plan",
        "What the study trains, for one model.",
        columns,
        rows,
        notes,
        f"{train.name}, {len(train):,} images of {train.split[0]}.",
    )


def cost_table(size: str, rates: Mapping[str, Rates], plan: Plan, context: str) -> Table:
    """Seconds of every part by model, below the rates that they follow from."""

    def shown(what: str, batches: str | None, measured: Iterable[float]) -> list[Any]:
        return [what, batches, None, None, *map("{:,.2f}".format, measured), None]

    known = []
    for batches in dict.fromkeys(part.batches for part in plan.parts):
        training = (rate.at(batches) for rate in rates.values())
        known.append(shown("measured: training images/s", together(batches), training))
    validating = (rate.validating for rate in rates.values())
    known.append(shown("measured: validating images/s", None, validating))

    def row(name: str, parts: Sequence[Part]) -> list[Any]:
        batches = {part.batches for part in parts}
        taken = [sum(map(rate.seconds, parts)) for rate in rates.values()]
        return [
            name,
            together(*batches) if len(batches) == 1 else None,
            sum(part.trained for part in parts) / 1e6,
            sum(part.looked_at for part in parts) / 1e6,
            *taken,
            sum(taken) / 3600,
        ]

    parts = [row(part.name, [part]) for part in (*plan.search, *plan.others)]
    totals = [
        row("the search", plan.search),
        row("the whole grid instead", plan.grid),
        row("the study", (*plan.search, *plan.others)),
        row("the study with the whole grid", (*plan.grid, *plan.others)),
    ]
    columns = [
        Column("part"),
        Column("batch"),
        Column("trained on", decimals(3), "M", "M"),
        Column("validated", decimals(3), "M", "M"),
        *(Column(name, count, "s", "s") for name in rates),
        Column("these models", decimals(1), "h", "h"),
    ]
    rows = [*known, *parts, *totals]
    marked = frozenset(range(len(rows) - 2, len(rows)))
    notes = [
        "Seconds = images trained on / training images/s at that batch + images validated / "
        "validating images/s. At several batches alike the rate is their harmonic mean.",
        "Rates are measured; seconds and hours are extrapolated from them, on this device alone.",
    ]
    caption = f"What the study costs at {size} size: rates measured, the rest extrapolated."
    return Table(f"study-cost-{size}", caption, columns, rows, notes, context, marked)


def together(batches: Sequence[int]) -> str:
    """Batch sizes as text."""
    return ", ".join(map(str, batches)) + (" alike" if len(batches) > 1 else "")


def main(argv: Sequence[str] | None = None) -> str:
    """Count the plan, measure the rates and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=MODELS, metavar="MODEL")
    parser.add_argument("--sizes", nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--stride", type=int, default=16, help="at native size")
    parser.add_argument("--batch", type=int, help="measured alone; default: all of the plan")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="default: bf16 on an accelerator, else fp32"
    )
    parser.add_argument("--compile", action="store_true", help="as a recipe's compile = true")
    parser.add_argument("--steps", type=int, default=10, help="training steps of one timed part")
    parser.add_argument("--rounds", type=int, default=3)
    args = sheet.parse(parser, argv, "study")
    args.precision = args.precision or (
        "fp32" if torch.device(args.device).type == "cpu" else "bf16"
    )

    faces, found = roles(read(args.data))
    train, validation = faces[found.train], faces[found.validation]
    plan = plan_of(train, validation, args.batch)
    batches = sorted({n for part in plan.parts for n in part.batches})
    tables = [plan_table(plan, train)]
    for size in args.sizes:
        recipes = [recipe_at(size, name, train.size, args) for name in args.models]
        rates = {recipe.title: measure_rates(recipe, train, batches, args) for recipe in recipes}
        pixels = " and ".join(str(n) for n in sorted({recipe.image_size for recipe in recipes}))
        context = (
            f"{pixels} pixels, stride {recipes[0].stride}, {recipes[0].precision}, "
            f"{'compiled' if args.compile else 'not compiled'}, "
            f"{torch.get_num_threads()} threads, {args.device}; medians of {args.rounds} rounds of "
            f"{args.steps} steps."
        )
        tables.append(cost_table(size, rates, plan, context))
    about = [
        f"plan: the paper scale of `mien study` without its GAN; data: {train.name}",
        "measured in small and extrapolated: no training of this plan was made",
    ]
    if args.batch:
        about.append(f"every part is counted at the rate of batch {args.batch}, not of its own")
    return sheet.publish("The cost of the whole study", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
