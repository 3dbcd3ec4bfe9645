"""The tables of what came out on a split: figures of merit, whole and by class."""

from __future__ import annotations

from typing import Any

from mien.metrics import Metrics
from mien.report.results import (
    Model,
    Results,
    context,
    finished,
    metrics_of,
    named,
    pairs,
)
from mien.report.table import (
    ACCURACY,
    INTERVAL,
    NOT_RUN,
    ONE_SEED,
    Column,
    Table,
    count,
    decimals,
    percent,
    signed,
)


def merits(results: Results, split: str, subset: str = "all") -> Table:
    """Figures of merit of every model on a split, whole or without the copies."""
    without = subset == "without_copies"
    rows, sizes = [], []
    for model in results["models"]:
        m = metrics_of(model, split, subset)
        rows.append(
            [model["title"], *(_merit_cells(m) if m else [NOT_RUN] + [None] * 6), _epochs(model)]
        )
        sizes += [m.n] if m else []
    training = results["data"]["roles"]["train"]
    notes = [ONE_SEED, *_collapses(results)]
    if len({_epochs(model) for model in finished(results)}) > 1:
        notes.append("The models were not trained for the same number of epochs.")
    if without:
        notes.append(f"Left out: images that stand, pixel for pixel, in {training} too.")
    elif not has_copies(results, split):
        notes.append(f"None of these images stands, pixel for pixel, in {training} too.")
    return Table(
        f"results-{split}" + ("-without-copies" if without else ""),
        f"Results on {named(results, split)}" + (", without the copies" if without else ""),
        [
            Column("model"),
            ACCURACY,
            INTERVAL,
            Column("balanced accuracy", percent, "%"),
            *(Column(what, decimals(3)) for what in ("macro F1", "log-loss", "calibration error")),
            Column("n", count),
            Column("epochs", count),
        ],
        rows,
        notes=notes,
        context=context(results, split, max(sizes, default=0)),
    )


def has_copies(results: Results, split: str) -> bool:
    """Whether images of a split that was predicted stand in the training split too."""
    both = (
        [metrics_of(model, split, subset) for subset in ("all", "without_copies")]
        for model in results["models"]
    )
    return any(whole and new and new.n < whole.n for whole, new in both)


def _epochs(model: Model) -> int | None:
    return len(model["log"]) if model["state"] == "finished" else None


def _merit_cells(m: Metrics) -> list[Any]:
    low_high = tuple(m.accuracy_interval)
    return [m.accuracy, low_high, m.balanced_accuracy, m.macro_f1, m.log_loss,
            m.calibration_error, m.n]  # fmt: skip


def _collapses(results: Results) -> list[str]:
    return [
        f"{model['title']} collapsed: it calls (almost) every image {model['collapsed_to']}."
        for model in finished(results)
        if model.get("collapsed_to")
    ]


def by_class(results: Results, split: str, merit: str) -> Table:
    """Recall or precision of every model in every class."""
    rows: list[list[Any]] = []
    n = 0
    for model in results["models"]:
        m = metrics_of(model, split)
        if m is None:
            blank = [NOT_RUN] + [None] * (len(results["data"]["classes"]) - 1)
            rows.append([model["title"], *blank])
        else:
            rows.append([model["title"], *(float(value) for value in getattr(m, merit))])
            n = m.n
    what = {
        "recall": "of the images of a class, the share that is called so",
        "precision": "of the images called a class, the share that is of it",
    }[merit]
    return Table(
        f"{merit}-by-class",
        f"{merit.capitalize()} per class in % on {named(results, split)}",
        [Column("model"), *(Column(name, percent) for name in results["data"]["classes"])],
        rows,
        notes=[f"{merit.capitalize()}: {what}. A dash: none such.", ONE_SEED],
        context=context(results, split, n),
    )


def cbam_by_class(results: Results, split: str) -> Table:
    """Recall of each class without and with attention, and the difference."""
    rows = []
    n = 0
    for _, a, b in pairs(results):
        without, with_ = metrics_of(a, split), metrics_of(b, split)
        if without is None or with_ is None:
            continue
        n = with_.n
        for i, name in enumerate(with_.classes):
            x, y = float(without.recall[i]), float(with_.recall[i])
            rows.append([b["title"], name, int(with_.support[i]), x, y, 100 * (y - x)])
    return Table(
        "cbam-by-class",
        f"Recall per class without and with CBAM on {named(results, split)}",
        [
            Column("model"),
            Column("class"),
            Column("images", count),
            Column("without CBAM", percent, "%"),
            Column("with CBAM", percent, "%"),
            Column("gain", signed, "points", "points"),
        ],
        rows,
        notes=["Without: the same network without attention, in the same study.", ONE_SEED],
        context=context(results, split, n),
    )


def neutral_and_sad(results: Results, split: str) -> Table:
    """How often neutral and sad are taken for each other, which the paper claims CBAM mends."""
    classes = list(results["data"]["classes"])
    rows = []
    n = 0
    if {"neutral", "sad"} <= set(classes):
        i, j = classes.index("neutral"), classes.index("sad")
        for model in finished(results):
            if m := metrics_of(model, split):
                n = m.n
                shares = [_share(m.confusion[a, b], m.support[a]) for a, b in ((i, j), (j, i))]
                rows.append([model["title"], *shares])
    return Table(
        "neutral-and-sad",
        f"Neutral and sad taken for each other, share of the true class on {named(results, split)}",
        [
            Column("model"),
            Column("neutral called sad", percent, "%"),
            Column("sad called neutral", percent, "%"),
        ],
        rows,
        notes=[ONE_SEED],
        context=context(results, split, n),
    )


def _share(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None
