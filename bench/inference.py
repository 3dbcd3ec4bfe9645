"""Faces per second, latency and memory of a trained model in several engines, and its accuracy.

Every engine goes from uint8 pixels in memory to float32 probabilities in memory, has a process of
its own, so that its memory is its own too, and takes turns with the others, so that a drift of the
machine falls on all of them alike. ONNX Runtime runs on the processor also where PyTorch has an
accelerator. A precision that `mien export` refuses, because it differs from its run, is measured
all the same, and a note says so.

The published figures come from

    python bench/inference.py --data .data/fer2013 --run runs/plain-81e1512c5f \\
        --out docs/results/inference.md
    python bench/inference.py --data .data/fer2013 --out docs/results/inference-packaged.md
    python bench/inference.py --data .data/fer2013 \\
        --engines onnx-fp16 onnx-int8-weights onnx-int8 --out docs/results/inference-precisions.md

where the run is one of recipe `best`; without a run it is the packaged model that is measured, as
it is and as `mien export packaged` converts it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.data import FaceSet, read, roles
from mien.errors import MienError, RunError
from mien.inference import load
from mien.metrics import wilson_interval
from mien.packaged import PACKAGED
from mien.runs.environment import peak_memory
from mien.runs.run import Run

# What has torch in it is imported where it is needed: this file is all that the processes of ONNX
# Runtime import, and they are to be as small as those of the base install.
if TYPE_CHECKING:
    from mien.report.table import Table

PRECISIONS = ("fp32", "fp16", "int8-weights", "int8")  # those of mien.export.onnx, without torch
ONNX = {f"onnx-{precision}": precision for precision in PRECISIONS}
ENGINES = ("eager", "compiled", *ONNX)
BATCHES = (1, 64)
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Engine:
    """What predicts: its name in `ENGINES`, run folders or an ONNX file, device, threads, views."""

    name: str
    sources: tuple[Path, ...]
    device: str
    threads: int
    views: int = 1


@dataclass
class Measured:
    """Of one engine: seconds of every call by batch and round, labels, and peak memory in GiB."""

    seconds: dict[int, list[list[float]]] = field(default_factory=lambda: {n: [] for n in BATCHES})
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    memory: float | None = None
    device_memory: float | None = None

    def rates(self, batch: int) -> np.ndarray:
        """Faces per second of every round."""
        return np.array([batch * len(calls) / sum(calls) for calls in self.seconds[batch]])


@cache
def opened(engine: Engine) -> Predict:
    """The engine of this process: from uint8 ``[N, S, S(, 3)]`` to probabilities ``[N, C]``."""
    if engine.name in ONNX:
        return load(engine.sources[0], threads=engine.threads).predict_proba
    import torch

    from mien.export.graph import Graph, Member
    from mien.images import Normalisation
    from mien.training.predict import load_model

    torch.set_num_threads(engine.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 is to be float32 on an accelerator too
    members = []
    for run in map(Run.open, engine.sources):
        how = Normalisation.from_dict(run.info["normalisation"])
        size = run.recipe.image_size
        members.append(Member(load_model(run, engine.device), None, how, size, engine.views))
    whole: Any = Graph(members, temperature=1.0).eval()
    if engine.name == "compiled":
        whole = torch.compile(whole, mode="reduce-overhead", dynamic=False)

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        return whole(torch.from_numpy(images).to(engine.device))[0].cpu().numpy()

    return predict


def timed(engine: Engine, images: np.ndarray, seconds: float) -> list[float]:
    """Seconds of each call on one batch, for so many seconds; those of a tenth before are left."""
    predict, taken = opened(engine), []
    for _ in range(3):  # a new batch size may be compiled, then recorded
        predict(images)
    now = perf_counter()
    start, end = now + seconds / 10, now + 1.1 * seconds
    while now < end or not taken:
        began = now
        predict(images)
        now = perf_counter()
        if began >= start:
            taken.append(now - began)
    return taken


def predicted(engine: Engine, images: np.ndarray) -> np.ndarray:
    """The label of each image, int ``[N]``."""
    # Every batch is full, with images from the beginning: another size would be compiled anew.
    batch = max(BATCHES)
    rows = np.arange(-(-len(images) // batch) * batch) % len(images)
    predict = opened(engine)
    found = [predict(images[part]).argmax(1) for part in rows.reshape(-1, batch)]
    return np.concatenate(found)[: len(images)]


def measure(
    engines: Sequence[Engine], images: np.ndarray, rounds: int, seconds: float
) -> dict[str, Measured]:
    """Let the engines take turns, each in a fresh process that waits while others are measured.

    Each round begins with another of them, so that none always follows the same one.
    """
    found = {engine.name: Measured() for engine in engines}
    with ExitStack() as stack:
        # Spawned, for a forked process would begin with all that this one holds.
        spawn = multiprocessing.get_context("spawn")
        pools = {
            engine: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
            for engine in engines
        }
        # All labels first, so that every engine is open before the first round.
        for engine, pool in pools.items():
            found[engine.name].labels = pool.submit(predicted, engine, images).result()
        for number in range(rounds):
            for batch in BATCHES:
                some = images[np.arange(batch) % len(images)]
                for place in range(len(engines)):
                    engine = engines[(number + place) % len(engines)]
                    taken = pools[engine].submit(timed, engine, some, seconds).result()
                    found[engine.name].seconds[batch].append(taken)
        for engine, pool in pools.items():
            measured = found[engine.name]
            measured.memory = pool.submit(peak_memory).result()
            if engine.device != "cpu":
                measured.device_memory = pool.submit(peak_memory, engine.device).result()
    return found


def engines_of(
    args: argparse.Namespace, faces: FaceSet, folder: Path
) -> tuple[list[Engine], dict[str, str]]:
    """The engines that were asked for, and why `mien export` would refuse some of them.

    Raises
    ------
    RunError
        if the run cannot be used, or engines are asked for that need one and there is none.
    """
    make = partial(Engine, threads=args.threads, views=args.views)
    if args.run is None:
        return engines_of_the_packaged(args, faces, folder)
    from mien.export.onnx import onnx_files
    from mien.export.parity import parity
    from mien.export.source import source_of

    engines, refused = [], {}
    source = source_of([Run.open(run) for run in args.run], faces, views=args.views)
    names = args.engines or ENGINES
    asked = [ONNX[name] for name in names if name in ONNX]
    files = onnx_files(source, asked) if asked else {}
    for name in names:
        if name not in ONNX:
            engines.append(make(name, tuple(args.run), args.device))
            continue
        file = folder / f"{name}.onnx"
        file.write_bytes(files[ONNX[name]])
        reason = parity(source, load(file, detector="none").predict_proba).reason(ONNX[name])
        if reason is not None:
            refused[name] = reason
        engines.append(make(name, (file,), "cpu"))
    return engines, refused


def engines_of_the_packaged(
    args: argparse.Namespace, faces: FaceSet, folder: Path
) -> tuple[list[Engine], dict[str, str]]:
    """The packaged model as it is, and in the precisions that were asked for."""
    own = "onnx-" + load(PACKAGED).metadata["precision"]
    names = args.engines or [own]
    if args.views != 1 or not ONNX.keys() >= set(names):
        raise RunError(
            f"the packaged model has views of its own and runs in {', '.join(ONNX)}; for others "
            "give finished runs with --run"
        )
    engines, refused = [], {}
    for name in names:
        file = PACKAGED
        if name != own:
            from mien.export.convert import converted, parity_with

            split, file = roles(faces)[1], folder / f"{name}.onnx"
            file.write_bytes(converted(PACKAGED, ONNX[name], faces[split.train]))
            found = parity_with(PACKAGED, file.read_bytes(), faces[split.validation])
            if reason := found.reason(ONNX[name]):
                refused[name] = reason
        engines.append(Engine(name, (file,), "cpu", args.threads))
    return engines, refused


def speed_table(
    found: Mapping[str, Measured],
    refused: Mapping[str, str],
    labels: np.ndarray,
    engines: Sequence[Engine],
    context: str,
) -> Table:
    """Rate and latency of every engine and batch, beside its accuracy and memory."""
    from mien.report.table import Column, Table, count, decimals, percent

    first, accelerated = engines[0].name, any(engine.device != "cpu" for engine in engines)
    rows: list[list[Any]] = []
    for batch in BATCHES:
        for engine in engines:
            measured = found[engine.name]
            rates, calls = measured.rates(batch), 1000 * np.concatenate(measured.seconds[batch])
            ratios = rates / found[first].rates(batch)
            accuracy = (measured.labels == labels).mean()
            row = [engine.name, engine.device, batch, median(rates), median(ratios)]
            row += [(ratios.min(), ratios.max()), *np.percentile(calls, (50, 95, 99))]
            row += [accuracy, measured.memory]
            rows.append([*row, measured.device_memory] if accelerated else row)
    columns = [
        Column("engine"),
        Column("on"),
        Column("batch", count),
        Column("faces/s", count),
        Column(f"times {first}", decimals(2)),
        Column("of all rounds", lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}"),
        Column("latency, 50 %", decimals(2), "ms", "ms"),
        Column("95 %", decimals(2), "ms", "ms"),
        Column("99 %", decimals(2), "ms", "ms"),
        Column("accuracy", percent, "%"),
        Column("peak memory", decimals(2), "GiB", "GiB"),
    ]
    if accelerated:
        columns.append(Column("of the accelerator", decimals(2), "GiB", "GiB"))
    notes = [
        "From uint8 pixels to probabilities, both in the processor's memory. Rates and ratios are "
        "medians over the rounds, latencies percentiles of all calls.",
        "Peak memory: of the process since its start, with Python, the engine, and what it loaded "
        "and compiled; processes of the compiler are not in it.",
        *(f"`mien export` refuses {name}: {why}." for name, why in refused.items()),
    ]
    return Table("inference", "Faces per second and latency.", columns, rows, notes, context)


def accuracy_table(
    found: Mapping[str, Measured], engines: Sequence[Engine], faces: FaceSet, seen: np.ndarray
) -> Table:
    """What the engines say of the validation images, and how far they agree."""
    from mien.report.table import ACCURACY, INTERVAL, Column, Table, decimals, percent

    first, rows = engines[0].name, []
    for engine in engines:
        labels = found[engine.name].labels
        right = labels == faces.labels
        file = engine.sources[0]
        size = file.stat().st_size / 2**20 if file.is_file() else None
        row = [engine.name, right.mean(), wilson_interval(int(right.sum()), len(right))]
        row += [right[~seen].mean(), (labels == found[first].labels).mean(), size]
        rows.append(row)
    columns = [
        Column("engine"),
        ACCURACY,
        INTERVAL,
        Column("without copies", percent, "%"),
        Column(f"labels as {first}'s", percent, "%"),
        Column("file", decimals(2), "MiB", "MiB"),
    ]
    context = (
        f"{len(faces):,} images of {faces.split[0]} (validation), {(~seen).sum():,} without the "
        "copies of training images."
    )
    return Table("inference-accuracy", "What the engines say.", columns, rows, context=context)


def main(argv: Sequence[str] | None = None) -> str:
    """Measure the engines that are asked for and publish the sheet, which is returned."""
    import sheet

    parser = sheet.parser(__doc__)
    parser.add_argument(
        "--run", type=Path, nargs="+", help="finished runs, averaged; default: the packaged model"
    )
    parser.add_argument("--views", type=int, default=1, help="of an image, by the runs: 1, 2 or 10")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: all of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one batch in one round")
    parser.set_defaults(threads=2)
    args = sheet.parse(parser, argv, "inference")

    faces, found = roles(read(args.data))
    train, validation = faces[found.train], faces[found.validation]
    if not validation.labelled:
        raise MienError(f"{faces.name}: '{found.validation}' has no labels to compare with")
    with tempfile.TemporaryDirectory() as folder:
        engines, refused = engines_of(args, faces, Path(folder))
        measured = measure(engines, validation.images, args.rounds, args.seconds)
        names = " and ".join(run.name for run in args.run or ()) or "the packaged model"
        views = f" with {args.views} views" if args.views > 1 else ""
        context = (
            f"{names}{views}, {args.threads} threads, "
            f"{args.rounds} rounds of {args.seconds:g} seconds."
        )
        tables = [
            speed_table(measured, refused, validation.labels, engines, context),
            accuracy_table(measured, engines, validation, validation.stands_in(train)),
        ]
    about = [
        f"data: {faces.name}, {len(validation):,} images of {found.validation}",
        f"ONNX Runtime {version('onnxruntime')}; PyTorch in float32",
    ]
    return sheet.publish("Inference: rate, latency, memory, accuracy", about, tables, args)


if __name__ == "__main__":
    import sheet

    sheet.run(main)
