"""The precisions of an export beside each other: size, speed, and what they cost in accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mien.data.faceset import FaceSet
from mien.export.onnx import PRECISIONS, onnx_files
from mien.export.parity import Parity, parity
from mien.export.source import source_of
from mien.inference import Classifier
from mien.runs.run import Run

BATCH = 64
ROUNDS_OF_ONE, ROUNDS_OF_BATCH = 50, 9


@dataclass(frozen=True)
class MeasuredPrecision:
    """A precision of an export.

    Attributes
    ----------
    precision : one of `PRECISIONS`
    bytes : of the file
    one, batch : milliseconds for one image alone, and for each of `BATCH` together
    parity : with the run
    refused : why `export_onnx` would not write it, or None
    """

    precision: str
    bytes: int
    one: float
    batch: float
    parity: Parity
    refused: str | None


def compare_precisions(
    run: Run | Sequence[Run],
    faces: FaceSet,
    threads: int = 0,
    *,
    attention: bool = False,
    views: int = 1,
) -> list[MeasuredPrecision]:
    """Export a run, or an ensemble, in each precision and measure size, latency and accuracy.

    Nothing is written.

    Parameters
    ----------
    faces : the data set of the run
    threads : of ONNX Runtime; 0 takes every core
    attention, views : as of `export_onnx`

    Raises
    ------
    RunError, DataError
        as `export_onnx`, but for files that differ too much, which say so in `refused`.
    """
    source = source_of(run, faces, views=views)
    files = onnx_files(source, PRECISIONS, attention)
    models = {precision: Classifier(content, threads) for precision, content in files.items()}
    images = source.checked.images
    first = images[np.arange(BATCH) % len(images)]
    predict = {precision: model.predict_proba for precision, model in models.items()}
    one = _milliseconds(predict, first[:1], ROUNDS_OF_ONE)
    many = _milliseconds(predict, first, ROUNDS_OF_BATCH)
    compared = []
    for precision, predict_proba in predict.items():
        found = parity(source, predict_proba)
        compared.append(
            MeasuredPrecision(
                precision,
                len(files[precision]),
                one[precision],
                many[precision] / BATCH,
                found,
                found.reason(precision),
            )
        )
    return compared


def _milliseconds(
    predict: Mapping[str, Callable[[np.ndarray], np.ndarray]], images: np.ndarray, rounds: int
) -> dict[str, float]:
    """The median time of each over rounds in which they take turns; the first round is not counted.

    In turns, so that other work on the machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in predict}
    for _ in range(rounds + 1):
        for name, function in predict.items():
            began = time.perf_counter()
            function(images)
            times[name].append(time.perf_counter() - began)
    return {name: 1e3 * float(np.median(taken[1:])) for name, taken in times.items()}
