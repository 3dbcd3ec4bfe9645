"""What test-time views and an ensemble are worth: finished runs alone, and averaged.

Each run with one view, two and ten, then the mean of all of them with as many, which is also what
`mien export A B` writes into one file. A tuned choice of members would have to be judged on other
images, so the members are those that are named, all of them:

    python bench/ensemble.py runs/A runs/B --predictions predictions/ensemble.csv

``--predictions`` also keeps what the ensemble says, with the most views, of the final test split.
``--subsets`` shows the means of some of the runs too: how much is left to gain by any choice.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import sheet
from trials import read_parts

from mien.data import read, roles
from mien.errors import DataError
from mien.evaluation.outcome import rounded_p
from mien.evaluation.ranks import holm
from mien.evaluation.significance import mcnemar
from mien.metrics import evaluate
from mien.report.table import ACCURACY, INTERVAL, Column, Table, count, decimals, percent, signed
from mien.runs.atomic import write_text
from mien.runs.run import Run
from mien.training import predict_probabilities
from mien.training.predict import check_ensemble
from mien.training.views import VIEWS

EVERY = "mean of all"


def main(argv: Sequence[str] | None = None) -> str:
    """Predict with every run and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--views", nargs="+", type=int, default=list(VIEWS), choices=VIEWS)
    parser.add_argument("--predictions", type=Path, help="a CSV for the final test split")
    parser.add_argument("--subsets", action="store_true", help="the mean of each two or more")
    args = sheet.parse(parser, argv, "ensemble")

    runs = [Run.open(folder) for folder in args.runs]
    check_ensemble(runs)
    parts = read_parts(args.data, None)
    labels, new = parts.validation.labels, parts.unseen
    views = sorted(set(args.views))
    names = [f"{run.recipe.title}, {run.name[-10:]}" for run in runs]
    right: dict[tuple[str, int], np.ndarray] = {}
    rows = []
    for number in views:
        found, seconds = [], []
        for run in runs:
            began = time.perf_counter()
            found.append(predict_probabilities(run, parts.validation, args.device, views=number))
            seconds.append(time.perf_counter() - began)
        if len(runs) > 1:
            found.append(np.mean(found, axis=0))
            seconds.append(sum(seconds))
        for name, p, took in zip([*names, EVERY], found, seconds, strict=False):
            right[name, number] = p.argmax(1) == labels
            merits = evaluate(p, labels, parts.validation.classes)
            copies_left_out = float(right[name, number][new].mean())
            rows.append(
                [name, number, merits.accuracy, merits.accuracy_interval, copies_left_out,
                 merits.balanced_accuracy, merits.macro_f1, took]
            )  # fmt: skip
    networks = Table(
        "networks",
        "Networks alone and together.",
        [
            Column("network"),
            Column("views", count),
            ACCURACY,
            INTERVAL,
            Column("without copies", percent, "%"),
            Column("balanced", percent, "%"),
            Column("macro F1", decimals(3)),
            Column("seconds", decimals(1)),
        ],
        rows,
        [f"Seconds for all {len(labels):,} images; they mean little where other work ran beside."],
        "Probabilities averaged over views, and over networks.",
    )
    pairs = [((name, views[0]), (name, number)) for name in names for number in views[1:]]
    if len(runs) > 1:
        pairs += [((name, n), (EVERY, n)) for n in views for name in names]
        # Several networks with fewer views cost as much as one with more.
        pairs += [((name, views[-1]), (EVERY, n)) for n in views[:-1] for name in names]
    if args.predictions:
        _write_predictions(args, runs, views[-1])
    tables = [networks, *([_tests(pairs, right, new)] if pairs else [])]
    if args.subsets:
        answers = dict(zip([run.name[-10:] for run in runs], found, strict=False))
        tables.insert(1, _subsets(answers, labels, new, views[-1]))
    return sheet.publish("Views and ensembles", [str(parts)], tables, args)


def between(ends: tuple[float, float]) -> str:
    """An interval of a difference, in points."""
    return f"{signed(100 * ends[0])} to {signed(100 * ends[1])}"


def _subsets(
    answers: dict[str, np.ndarray], labels: np.ndarray, new: np.ndarray, views: int
) -> Table:
    """The mean of each two or more networks, of their answers ``[N, C]`` by name."""
    rows = []
    for size in range(2, len(answers) + 1):
        for members in combinations(answers, size):
            right = np.mean([answers[name] for name in members], axis=0).argmax(1) == labels
            rows.append([", ".join(members), float(right.mean()), float(right[new].mean())])
    return Table(
        "subsets",
        "Means of some.",
        [Column("networks"), ACCURACY, Column("without copies", percent, "%")],
        rows,
        ["The best of so many on the images it is measured on is flattered by the choice."],
        f"{len(rows)} means, views: {views}.",
    )


def _tests(
    pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]],
    right: dict[tuple[str, int], np.ndarray],
    new: np.ndarray,
) -> Table:
    """McNemar's test of each pair on the images that do not stand in the training part."""
    found = [mcnemar(right[second][new], right[first][new]) for first, second in pairs]
    rows = [
        [
            *(f"{name}, {views} view{'s' if views > 1 else ''}" for name, views in pair),
            100 * test.difference,
            test.interval,
            test.p,
            adjusted,
        ]
        for pair, test, adjusted in zip(pairs, found, holm([t.p for t in found]), strict=True)
    ]
    return Table(
        "tests",
        "Is it more than chance?",
        [
            Column("of"),
            Column("with"),
            Column("difference (points)", signed),
            Column("95 % interval", between),
            Column("p", rounded_p),
            Column("p, Holm", rounded_p),
        ],
        rows,
        ["What the spread of seeds adds is not in these intervals: one training of each network."],
        f"McNemar's test on the {int(new.sum()):,} images without copies.",
    )


def _write_predictions(args: argparse.Namespace, runs: Sequence[Run], views: int) -> None:
    """Predict the final test split, without looking at labels it may have."""
    faces, parts = roles(read(args.data))
    if not parts.test:
        raise DataError(f"{args.data}: has no final test split to predict")
    part = faces[parts.test]
    found = predict_probabilities(runs, part, args.device, views=views)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "label", *part.classes])
    for name, p in zip(part.names, found, strict=True):
        rows.writerow([name, part.classes[p.argmax()], *(f"{value:.6f}" for value in p)])
    write_text(args.predictions, text.getvalue())


if __name__ == "__main__":
    sheet.run(main)
