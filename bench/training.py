"""How fast training is, beside the usual way, and what attention adds to a step.

Every comparison is made in one run, its parts in turns (a b c a b c ...), so that a drift of the
machine falls on all of them alike; medians over the rounds are shown.

step alone   forward, backward and optimiser step on one fixed batch: the limit of the computation
fit          the loop of `mien.fit` after an epoch of warm-up, with fresh batches, augmentation,
             weight averaging and bookkeeping; step by step in turns with the one above, for a
             shared machine drifts by more within a minute than the two differ
usual way    torchvision's ImageFolder of JPEGs, PIL transforms that do the same augmentation, a
             DataLoader with worker processes, and the same step with weight averaging
loaders      the batches of both ways without a model

The published figures come from

    python bench/training.py --data .data/fer2013 --threads 2 --parts rates --images 512 \\
        --models plain resnet50 vgg19 inceptionv3 --out docs/results/training-rates.md
    python bench/training.py --data .data/fer2013 --threads 2 --parts memory --width 1 \\
        --out docs/results/training-memory.md
    python bench/training.py --data .data/fer2013 --threads 2 --parts attention --images 64 \\
        --rounds 20 --compile --models plain vgg19 resnet50 inceptionv3 \\
        --out docs/results/attention-share.md

and on an accelerator from

    python bench/training.py --data .data/fer2013 --parts rates --width 1 --sizes 48 paper \\
        --precision bf16 --batch 256 --images 5120 --workers 16 --out docs/results/training-gpu.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import numpy as np
import sheet
import torch
from torch import nn
from usual import Step, UsualWay, seconds, write_jpegs

from mien.data import FaceSet, read, roles
from mien.data.splits import sample
from mien.errors import MienError
from mien.images import normalisation
from mien.models.attention import CBAM
from mien.models.cost import cost
from mien.report.table import Column, Table, count, decimals, interval, percent
from mien.runs.averaging import WeightAverage
from mien.runs.recipe import Recipe
from mien.study.scales import PAPER_SIZES, PLAIN, SIX
from mien.training import fit
from mien.training.batches import Batch, Batches
from mien.training.loop import Training, compiled
from mien.training.loss import model_loss
from mien.training.optimiser import add_penalty_gradients, create_optimiser, penalised
from mien.training.predict import build_model

MODELS = ("plain", *(name if kind == "none" else f"{name}-{kind}" for name, kind in SIX))
PARTS = ("rates", "attention", "memory")
PAPER_STRIDE = 32
PEAKS = {"NVIDIA H200": 989.5, "NVIDIA H100 80GB HBM3": 989.5, "NVIDIA A100-SXM4-80GB": 312.0}
"""Dense bf16 TFLOP/s of accelerators by the name that the driver gives, as their makers state."""


def some(faces: FaceSet, number: int) -> FaceSet:
    """About so many faces, equally many of each class as far as there are."""
    return sample(faces, -(-number // len(faces.classes)))


def create_step(model: nn.Module, recipe: Recipe, device: torch.device, averaged: bool) -> Step:
    """A training step made of the parts that `mien.fit` is made of."""
    model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser, weights = create_optimiser(model, recipe), penalised(model)
    average = WeightAverage(model, recipe.ema) if averaged else None
    stepped = compiled(model, device) if recipe.compile else model

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            outputs = stepped(images)
        loss, _ = model_loss(outputs, targets, recipe.auxiliary)
        loss.backward()
        if recipe.l1 or recipe.l2:
            add_penalty_gradients(weights, recipe.l1, recipe.l2)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if average:
            average.update()

    return step


class Turns:
    """A training's batches that take turns, stretch by stretch, with steps on one fixed batch.

    The clock of the training runs from the making of a batch to the end of the step on it, so all
    that the loop does for a step is in it. On an accelerator a stretch is an epoch, since to stop
    for every step would keep host and device from working at the same time.
    """

    def __init__(self, batches: Batches, step: Step, fixed: Batch) -> None:
        self.batches, self.step, self.fixed = batches, step, fixed
        self.steps, self.size = batches.steps, batches.size
        self.stretch = 1 if batches.device.type == "cpu" else batches.steps
        self.seconds: list[tuple[float, float]] = []  # of the step alone and of the training's

    def now(self) -> float:
        if self.batches.device.type == "cuda":
            torch.cuda.synchronize(self.batches.device)
        return perf_counter()

    def epoch(self, number: int) -> Iterator[Batch]:
        self.seconds.clear()  # what is left at the end is the last epoch's
        began = self.now()
        for done, batch in enumerate(self.batches.epoch(number), 1):
            yield batch
            if done % self.stretch == 0:
                paused = self.now()
                for _ in range(self.stretch):
                    self.step(self.fixed.images, self.fixed.targets)
                resumed = self.now()
                self.seconds.append((resumed - paused, paused - began))
                began = resumed


def rates_in_turns(
    recipe: Recipe, faces: FaceSet, step: Step, fixed: Batch, device: torch.device
) -> tuple[float, float]:
    """Images per second of the step alone and of the training loop, as of one long stretch each.

    Stalls count, as they do for `UsualWay`.
    """
    training = Training(recipe, faces, None, device)
    turns = Turns(training.batches, step, fixed)
    training.batches = turns  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        training.begin(Path(folder) / "run")
        training.finish("none")
    alone, fitted = (fmean(times) for times in zip(*turns.seconds, strict=True))
    images = turns.stretch * turns.size
    return images / alone, images / fitted


def no_step(images: torch.Tensor, targets: torch.Tensor) -> None:
    """The step of a loader that is measured alone."""


def measure_rates(
    recipe: Recipe, faces: FaceSet, folder: Path, workers: int, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Images per second of every way, a list with a figure a round."""
    statistics = normalisation(recipe.normalise, faces.images)
    batches = Batches(faces, recipe, statistics, device)
    fixed = next(batches.epoch(0))
    usual = UsualWay(folder, recipe, faces.channels, statistics, batches.steps, workers, device)
    alone, averaged = (
        create_step(
            build_model(recipe, len(faces.classes), faces.channels), recipe, device, average
        )
        for average in (False, True)
    )
    seen = batches.steps * batches.size

    def batches_rate(epochs: int = 4) -> float:
        def work() -> None:
            for epoch in range(epochs):
                for _ in batches.epoch(epoch):
                    pass

        return epochs * seen / seconds(work, device)

    alone(fixed.images, fixed.targets)  # the first step makes the optimiser's state
    ways: dict[str, Callable[[], float]] = {
        "usual": lambda: usual.rate(averaged),
        "batches": batches_rate,
        "loader": lambda: usual.rate(no_step),
    }
    found: dict[str, list[float]] = {name: [] for name in ("step", "fit", *ways)}
    for _ in range(rounds):
        in_turns = rates_in_turns(recipe, faces, alone, fixed, device)
        for name, rate in zip(("step", "fit"), in_turns, strict=True):
            found[name].append(rate)
        for name, way in ways.items():
            found[name].append(way())
    return found


def rates_table(
    recipes: Sequence[Recipe], faces: FaceSet, args: argparse.Namespace, context: str
) -> Table:
    """The rates of all models. Comparisons are medians of what each round gives."""
    device, rows = torch.device(args.device), []
    peak = args.peak
    if peak is None and device.type == "cuda" and args.precision == "bf16":
        peak = PEAKS.get(torch.cuda.get_device_name(device))
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(faces, Path(folder))
        for recipe in recipes:
            found = measure_rates(recipe, faces, Path(folder), args.workers, args.rounds, device)
            overheads = [1 - b / a for a, b in zip(found["step"], found["fit"], strict=True)]
            ratios = [b / c for b, c in zip(found["fit"], found["usual"], strict=True)]
            a, b, c, ours, theirs = (median(found[way]) for way in found)
            row = [recipe.title, a, b, median(overheads), (min(overheads), max(overheads))]
            row += [c, median(ratios), ours, theirs, ours / theirs]
            if peak:
                model = build_model(recipe, len(faces.classes), faces.channels)
                operations = 6 * cost(model, recipe.image_size, faces.channels).multiply_adds
                row += [operations * a / (peak * 1e12), operations * b / (peak * 1e12)]
            rows.append([*row, "its loader" if theirs < a else "the step"])
    columns = [
        Column("model"),
        Column("(a) step alone", count),
        Column("(b) fit", count),
        Column("overhead 1 - b/a (%)", percent),
        Column("of all rounds (%)", interval),
        Column("(c) usual way", count),
        Column("b/c", decimals(2)),
        Column("our batches alone", count),
        Column("DataLoader alone", count),
        Column("ours/theirs", decimals(1)),
    ]
    notes = [
        "(a) is the limit of the computation, 'our batches alone' and 'DataLoader alone' those of "
        "the loaders; what limits (c) is the slower of the two.",
        "(a) and (b) in turns, step by step; fit's validation, and the checkpoint it writes "
        "after an epoch, are not in (b).",
        f"(c) and 'DataLoader alone' with {args.workers} workers, on JPEGs of {faces.size} pixels.",
    ]
    if peak:
        columns += [Column("(a) of peak (%)", percent), Column("(b) of peak (%)", percent)]
        notes.append(
            "Of peak: images/s times 6 operations per multiply-add of a forward pass (2 forward, 4 "
            f"backward), of {peak:g} TFLOP/s."
        )
    columns.append(Column("(c) is limited by"))
    return Table("rates", "Training images per second.", columns, rows, notes, context)


def with_timm_cbam(model: nn.Module, compiled: bool = False) -> nn.Module:
    """Put timm's CBAM in the place of each of ours; compiled, if so, one by one."""
    from timm.layers.cbam import CbamModule

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, CBAM):
                theirs = CbamModule(child.fc1.in_features)
                if compiled:
                    theirs.compile(dynamic=False)
                setattr(parent, name, theirs)
    return model


def step_times(
    recipe: Recipe, faces: FaceSet, rounds: int, device: torch.device
) -> dict[str, tuple[np.ndarray, bool]]:
    """Seconds ``[turns]`` of a step on one fixed batch without CBAM, with ours, and with timm's.

    On a CPU only CBAM is compiled, if anything, and is timed beside what it is without. Beside the
    seconds stands whether all weights are numbers after these steps.
    """
    torch.compiler.reset()  # else PyTorch gives up compiling after a few kinds of map
    batches = Batches(faces, recipe, normalisation(recipe.normalise, faces.images), device)
    fixed = next(batches.epoch(0))
    # An accelerator is timed over many steps: one alone would show the time to launch it.
    at_once = 1 if device.type == "cpu" else batches.steps

    models = []

    def create(attention: str, theirs: bool = False, compiled: bool = recipe.compile) -> Step:
        model = build_model(recipe.but(attention=attention), len(faces.classes), faces.channels)
        if theirs:
            model = with_timm_cbam(model, compiled and device.type == "cpu")
        models.append(model)
        return create_step(model, recipe.but(compile=compiled), device, averaged=False)

    def timed(step: Step) -> float:
        def work() -> None:
            for _ in range(at_once):
                step(fixed.images, fixed.targets)

        return seconds(work, device) / at_once

    steps = {"none": create("none")}
    if recipe.compile and device.type == "cpu":
        steps |= {
            "ours": create("cbam", compiled=False),
            "ours, compiled": create("cbam"),
            "timm's": create("cbam", theirs=True, compiled=False),
            "timm's, compiled": create("cbam", theirs=True),
        }
    else:
        steps |= {"ours": create("cbam"), "timm's": create("cbam", theirs=True)}
    for step in steps.values():
        timed(step)
    turns = max(3, rounds * batches.steps // at_once)
    measured = [[timed(step) for step in steps.values()] for _ in range(turns)]
    numbers = [all(bool(p.isfinite().all()) for p in model.parameters()) for model in models]
    return dict(zip(steps, zip(np.array(measured).T, numbers, strict=True), strict=True))


def attention_table(
    recipes: Sequence[Recipe], faces: FaceSet, args: argparse.Namespace, context: str
) -> Table:
    """What CBAM takes of a step, ours and timm's, for each backbone."""
    rows = []
    for recipe in recipes:
        times = step_times(recipe, faces, args.rounds, torch.device(args.device))
        (none, _), title = times.pop("none"), recipe.but(attention="none").title
        # Within a turn, for a shared machine drifts from one to the next.
        adds = {way: float(np.median(took / none)) - 1 for way, (took, _) in times.items()}
        usual = adds["timm's"]
        for way, added in adds.items():
            # Beside what of timm's is lost in the noise, ours has no ratio.
            ratio = added / usual if usual > 0 else None
            took, sound = times[way]
            medians = (1000 * float(np.median(each)) for each in (none, took))
            share = 1 - 1 / (1 + added)
            rows.append([title, way, *medians, share, added, ratio, "yes" if sound else "no"])
    return Table(
        "attention",
        "What CBAM adds to a training step on one fixed batch: ours, and timm's in its places.",
        [
            Column("model"),
            Column("CBAM"),
            Column("step without (ms)", decimals(1)),
            Column("with (ms)", decimals(1)),
            Column("share (%)", percent),
            Column("adds (%)", percent),
            Column("of what timm's adds", decimals(2)),
            Column("weights stay numbers"),
        ],
        rows,
        [
            "Adds: with/without - 1 in each turn, the median. Share: what is so added, of the "
            "whole. Milliseconds are medians by themselves."
        ],
        context,
    )


def peak_of_training(recipe: Recipe, faces: FaceSet, device: str) -> float | None:
    """Largest memory in GiB of a training by `mien.fit`, of this process or of the accelerator."""
    with tempfile.TemporaryDirectory() as runs:
        run = fit(recipe, faces, runs=runs, device=device, progress="none")
    return run.info["peak_memory_gb"]


def memory_table(
    recipes: Sequence[Recipe], train: FaceSet, args: argparse.Namespace, context: str
) -> Table:
    """Peak memory, each model in a process of its own.

    The resident peak comes from the system's count for the process' own memory (``VmHWM``), for
    Linux lets a new process' ``ru_maxrss`` begin at the peak of the process that started it.
    """
    rows, spawn = [], multiprocessing.get_context("spawn")
    few = some(train, 3 * args.batch)  # the peak is reached in the first steps
    for recipe in recipes:
        model = build_model(recipe, len(train.classes), train.channels)
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            peak = process.submit(peak_of_training, recipe, few, args.device).result()
        rows.append([recipe.title, sum(p.numel() for p in model.parameters()) / 1e6, peak])
    return Table(
        "memory",
        "Peak memory of training, in a fresh process for each model.",
        [
            Column("model"),
            Column("parameters (M)", decimals(2)),
            Column("peak memory (GiB)", decimals(2)),
        ],
        rows,
        [
            f"Python, torch and {len(few):,} images are in it, as are optimiser, averaged weights "
            "and the writing of a checkpoint; FER-2013 whole is 0.08 GiB more.",
        ],
        context,
    )


def image_size(text: str) -> int | None:
    """The size an argument names: pixels, or None for the published one."""
    return None if text == "paper" else int(text)


def recipes_at(size: int | None, args: argparse.Namespace) -> list[Recipe]:
    """A recipe for each model at so many pixels; at its published size where that is None."""
    # Small rates: the weights hardly move, so every round does the same work.
    base = PLAIN.but(
        batch_size=args.batch, precision=args.precision, epochs=2, lr=1e-5, compile=args.compile
    )
    recipes = []
    for model, _, attention in (name.partition("-") for name in args.models):
        if size is None and model not in PAPER_SIZES:
            continue  # plain is our own
        recipes.append(
            base.but(
                model=model,
                attention=attention or "none",
                width=1.0 if model == "plain" else args.width,
                image_size=size or PAPER_SIZES[model],
                stride=args.stride if size else PAPER_STRIDE,
            )
        )
    if not recipes:
        raise MienError(f"{', '.join(args.models)}: has no published size; give pixels to --sizes")
    return recipes


def main(argv: Sequence[str] | None = None) -> str:
    """Measure what is asked for and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--width", type=float, default=0.25, help="of the six; plain keeps its own")
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=image_size,
        default=[48],
        help="pixels the models take; 'paper': the published 224 or 299, at stride 32",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--images", type=int, default=256, help="images of one timed part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--compile", action="store_true", help="compile the network; on a CPU CBAM")
    parser.add_argument(
        "--peak", type=float, help="the chip's bf16 TFLOP/s, if it is none of those known"
    )
    args = sheet.parse(parser, argv, "training")

    every, found = roles(read(args.data))
    train = every[found.train]
    faces = some(train, max(args.images, args.batch))
    tables = []
    for size in args.sizes:
        recipes = recipes_at(size, args)
        backbones = {recipe.model: recipe for recipe in recipes}
        pixels = " and ".join(str(n) for n in sorted({recipe.image_size for recipe in recipes}))
        context = (
            f"Batch {args.batch}, {pixels} pixels, stride {recipes[0].stride}, {args.precision}"
            f"{', compiled' if args.compile else ''}, {torch.get_num_threads()} threads, "
            f"{args.device}."
        )
        if "rates" in args.parts:
            tables.append(rates_table(recipes, faces, args, context))
        if "attention" in args.parts:
            tables.append(attention_table(list(backbones.values()), faces, args, context))
        if "memory" in args.parts:
            tables.append(memory_table(recipes, train, args, context))
    about = [
        f"data: {train.name}, {len(faces):,} images of {found.train}",
        f"medians of {args.rounds} rounds, the compared ways in turns; augmentation: flip, shift, "
        "rotation, zoom, brightness, contrast, erasing; AdamW, averaged weights",
    ]
    return sheet.publish("Training: rates, attention's share, memory", about, tables, args)


if __name__ == "__main__":
    sheet.run(main)
