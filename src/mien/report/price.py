"""The tables of what attention costs and what it buys."""

from __future__ import annotations

from typing import Any

from mien.report.results import (
    Results,
    context,
    finished,
    is_missing,
    machine,
    main_split,
    metrics_of,
    named,
    pairs,
)
from mien.report.table import (
    NOT_RUN,
    ONE_SEED,
    TRAINING,
    Column,
    Table,
    count,
    decimals,
    percent,
    signed,
)

ALIKE = (
    "Rates of training are of each training by itself, and compare only where all had the machine "
    "alike."
)


def cost(results: Results) -> Table:
    """Size, arithmetic, speed and time of every model."""
    keys = {
        "parameters": Column("parameters", count),
        "attention_parameters": Column("of them attention's", count),
        "multiply_adds": Column("multiply-adds", lambda value: f"{value / 1e6:,.1f}", "M"),
        "training_images_per_second": Column("training images/s", decimals(0)),
        "latency_ms": Column("latency", decimals(1), "ms", "ms"),
        "train_seconds": TRAINING,
        "peak_memory_gb": Column("peak memory", decimals(2), "GB", "GB"),
    }
    rows = []
    for model in results["models"]:
        known = model.get("cost") or {}
        row = [model["title"], *(known.get(key) for key in keys)]
        if model["state"] != "finished":
            row[1 + list(keys).index("train_seconds")] = NOT_RUN
        rows.append(row)
    return Table(
        "cost",
        "What each model costs",
        [Column("model"), *keys.values()],
        rows,
        notes=[
            "Multiply-adds and latency: one image, forward.",
            _latency(results),
            ALIKE,
        ],
        context=context(results),
    )


def learning(results: Results) -> Table:
    """How fast and how steadily every model learnt."""
    models = finished(results)
    reached_by = [model["efficiency"]["epochs_to"] for model in models]
    marks = sorted({float(mark) for by in reached_by for mark, n in by.items() if n is not None})
    last = max((model["efficiency"]["last_epochs"] for model in models), default=0)
    rows: list[list[Any]] = []
    for model in results["models"]:
        if model["state"] != "finished":
            rows.append([model["title"], NOT_RUN, *[None] * (len(marks) + 2)])
            continue
        efficiency, log = model["efficiency"], model["log"]
        reached = {float(mark): n for mark, n in efficiency["epochs_to"].items()}
        spread = efficiency["last_epochs_spread"]
        rows.append(
            [model["title"], len(log)]
            + [reached[m] if reached.get(m) is not None else "not reached" for m in marks]
            + [log[-1]["validation_accuracy"] if log else None, spread]
        )
    split = results["data"]["roles"]["validation"]
    watched = [n for m in models if (n := m["efficiency"].get("watched"))]
    return Table(
        "learning",
        f"How fast and how steadily each model learns, on {named(results, split)}, without the "
        "images that stand in what they were trained on",
        [
            Column("model"),
            Column("epochs", count),
            *(Column(f"epochs to {percent(mark)} %", count) for mark in marks),
            Column("accuracy after the last", percent, "%"),
            Column(f"spread of the last {last}", lambda value: f"{100 * value:.2f}", "points"),
        ],
        rows,
        notes=[
            "Accuracies that no model reached are left out. Spread: standard deviation of "
            "validation accuracy over the last epochs.",
        ],
        context=context(results, split, watched[0] if watched else None),
    )


def price_of_attention(results: Results) -> Table:
    """What CBAM adds to cost and to accuracy, pair by pair."""
    split = main_split(results)
    rows = []
    n = 0
    for _, a, b in pairs(results):
        row: list[Any] = [b["title"]]
        for key in ("parameters", "multiply_adds", "training_images_per_second", "latency_ms"):
            row.append(_change(a["cost"].get(key), b["cost"].get(key)))
        first, second = (metrics_of(m, split) if split else None for m in (a, b))
        both = first and second
        n = first.n if first else n
        row.append(100 * (second.accuracy - first.accuracy) if both else None)  # type: ignore[union-attr]
        rows.append(row)
    where = f" on {named(results, split)}" if split else ""
    return Table(
        "price-of-attention",
        f"What CBAM adds to its network, in %, and to accuracy{where}, in points",
        [
            Column("model"),
            *(
                Column(what, signed, "%", "%")
                for what in ("parameters", "multiply-adds", "training images/s", "latency")
            ),
            Column("accuracy", signed, "points", "points"),
        ],
        rows,
        notes=[
            "Against the same network without attention, in the same study.",
            _latency(results),
            ALIKE,
            ONE_SEED,
        ],
        context=context(results, split, n) if split else context(results),
    )


def _latency(results: Results) -> str:
    """Where latencies were measured, which is not where the models were trained."""
    where = machine(results["hardware"])
    return f"Latency: in single precision, one image at a time, on {where}."


def _change(before: float | None, after: float | None) -> float | None:
    if is_missing(before) or is_missing(after) or not before or after is None:
        return None
    return 100 * (after / before - 1)
