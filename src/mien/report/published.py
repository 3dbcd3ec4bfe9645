"""The tables that put the published figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.report.inputs import value_text
from mien.report.results import (
    Results,
    context,
    find,
    main_split,
    metrics_of,
    named,
)
from mien.report.table import (
    ACCURACY,
    INTERVAL,
    NOT_RUN,
    ONE_SEED,
    Column,
    Table,
    percent,
)
from mien.study import paper

PUBLISHED = (
    "Published figures are on the paper's 20 % of the images, on which its hyperparameters were "
    "chosen too; ours are not comparable with them."
)


def best_settings(results: Results, family: str) -> Table:
    """Published default and best setting beside ours (after Tables V, VII and IX)."""
    best = paper.BEST[family]
    columns = ["hyperparameter", "published default", "published best"]
    ours: list[Mapping[str, Any]] = []
    for setting, words in (("default", "here"), ("tuned", "tuned, here")):
        found = [find(results, family, attention, setting) for attention in ("none", "cbam")]
        ran = [model for model in found if model and model["state"] == "finished"]
        ours += [model["recipe"] for model in ran] or [{}]
        columns += [f"{model['title']}, here" for model in ran] or [words]
    rows = []
    for key, words in paper.HYPERPARAMETERS.items():
        row = [words, value_text(paper.TABLES_V_IX.default[key]), value_text(best.settings[key])]
        rows.append(row + [value_text(r[key]) if key in r else NOT_RUN for r in ours])
    decay = sorted({(r["optimiser"], r["weight_decay"]) for r in ours if r.get("weight_decay")})
    notes = ["With and without CBAM the paper prints the same settings."]
    notes += [f"Here {name} has a weight decay of {value_text(value)}." for name, value in decay]
    return Table(
        _file_name(best.source),
        f"Settings of {family} and {family}-CBAM: published, and here (after {best.source})",
        [Column(title) for title in columns],
        rows,
        notes=notes,
        context=context(results),
    )


def default_and_tuned(results: Results, family: str) -> Table:
    """Published accuracies in default and best setting beside ours (after VI, VIII and X)."""
    source, split = paper.ACCURACY_TABLE[family], main_split(results)
    rows: list[list[Any]] = []
    n = 0
    for attention in ("none", "cbam"):
        for setting, ours in (("default", "default"), ("best", "tuned")):
            model = find(results, family, attention, ours)
            m = metrics_of(model, split) if model and split else None
            n = m.n if m else n
            printed = paper.published_accuracy(family, attention, setting)
            name = _published_name(family, attention)
            row: list[Any] = [name, setting if setting == ours else f"{setting} ({ours})", printed]
            row += [model["title"] if model else NOT_RUN]
            rows.append(row + ([m.accuracy, tuple(m.accuracy_interval)] if m else [NOT_RUN, None]))
    where = f" on {named(results, split)}" if split else ""
    return Table(
        _file_name(source),
        f"Accuracy of {family}: published, and here{where} (after {source})",
        [
            Column("published model"),
            Column("setting"),
            Column("published", percent, "%"),
            Column("model here"),
            Column("here", percent, "%"),
            INTERVAL,
        ],
        rows,
        notes=[PUBLISHED, ONE_SEED],
        context=context(results, split, n) if split else context(results),
    )


def _published_name(family: str, attention: str) -> str:
    return family if attention == "none" else f"{family}-{attention.upper()}"


def _file_name(source: str) -> str:
    return source.lower().replace(" ", "-")


def others(results: Results) -> Table:
    """Ours beside all published figures (after Tables I and XI)."""
    split = main_split(results)
    rows: list[list[Any]] = []
    n = 0
    for model in results["models"]:
        m = metrics_of(model, split) if split else None
        n = m.n if m else n
        where = named(results, split) if split else "no split"
        figures = [m.accuracy, tuple(m.accuracy_interval)] if m else [NOT_RUN, None]
        rows.append([model["title"], *figures, "this report", where, "", "measured here"])
    ours = frozenset(range(len(rows)))
    for row in (*paper.TABLE_XI, *paper.TABLE_I, *paper.RECORDS):
        who = ", ".join(str(part) for part in (row.authors, row.year) if part)
        source = f"{row.source}: {who}" if who else row.source
        rows.append([row.model, row.accuracy, None, source, row.split, row.note, "published, no"])
    low, high = (paper.HUMAN_ACCURACY[0] + s * paper.HUMAN_ACCURACY[1] for s in (-1, 1))
    return Table(
        "table-xi",
        "Our models beside published results on FER-2013 (after Tables I and XI)",
        [
            Column("model"),
            ACCURACY,
            INTERVAL,
            *map(Column, ("source", "split", "what it rests on", "comparable")),
        ],
        rows,
        notes=[
            "Published figures are not comparable with ours: split, protocol or scale differ, or "
            "are not known.",
            f"People agree with FER-2013's labels on about {percent(low)} to {percent(high)} %.",
            ONE_SEED,
        ],
        context=context(results, split, n) if split else context(results),
        marked=ours,
    )


def contradictions(results: Results) -> Table:
    """Where the paper contradicts itself."""
    return Table(
        "contradictions",
        "Where the paper contradicts itself",
        [Column(title) for title in ("where", "the paper says", "what is so")],
        [[row.where, row.paper, row.so] for row in paper.CONTRADICTIONS],
        notes=["This system follows the right-hand column."],
        context=context(results),
    )
