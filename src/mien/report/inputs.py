"""The tables of what went in: the data, the settings and the grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mien.report.results import (
    Results,
    context,
    named,
)
from mien.report.table import (
    NOT_RUN,
    Column,
    Table,
    count,
)
from mien.study import paper


def counts(results: Results) -> Table:
    """Images per class and split beside the printed ones (after Table II)."""
    data = results["data"]
    printed = {row.name: row for row in (*paper.TABLE_II, paper.TABLE_II_TOTAL)}
    columns = list(dict.fromkeys([*data["counts"], *data["unlabelled"]]))
    counted = {split: data["counts"].get(split, [0] * len(data["classes"])) for split in columns}
    rows = []
    for i, name in enumerate(data["classes"]):
        ours = [counted[split][i] for split in columns]
        rows.append([name, *ours, sum(ours), *_printed_counts(printed.get(name))])
    ours = [sum(counted[split]) for split in columns]
    rows.append(["in total", *ours, sum(ours), *_printed_counts(printed["in total"])])
    if any(data["unlabelled"].values()):
        without = [data["unlabelled"].get(split, 0) for split in columns]
        rows.append(["without labels", *without, sum(without), None, None, None])
    splits = [Column(named(results, split), count) for split in columns]
    return Table(
        "counts",
        "Images per class and split, and the printed ones (after Table II)",
        [
            Column("class"),
            *splits,
            Column("in all", count),
            *(Column(f"printed {what}", count) for what in ("train", "test", "total")),
        ],
        rows,
        notes=[
            *data["notes"],
            "Printed: the paper's Table II of FER-2013. Its total of 3,589 test images, the 5,002 "
            "of surprise and the sum of 32,298 are misprints: the rows give 7,178, 4,002, 35,887.",
        ],
        context=context(results),
        marked=frozenset({len(data["classes"])}),
    )


def _printed_counts(row: paper.ClassRow | None) -> list[int | None]:
    return [None] * 3 if row is None else [row.train, row.test, row.total]


def generated(results: Results) -> Table:
    """Images a generator would add to each class (after Table III)."""
    rows: list[list[Any]] = [[name, n, NOT_RUN] for name, n in paper.TABLE_III.items()]
    rows.append(["in total", sum(paper.TABLE_III.values()), NOT_RUN])
    return Table(
        "generated",
        "Generated images per class (after Table III)",
        [Column("class"), Column("printed", count), Column("here", count)],
        rows,
        notes=[
            "The rule behind the printed numbers: every class of Training below 5,670 images is "
            f"lifted to 5,670; {paper.TABLE_III_TOTAL:,} training images after it.",
        ],
        context=context(results),
        marked=frozenset({len(rows) - 1}),
    )


def audit(results: Results) -> Table:
    """What the audit of the data found."""
    data = results["data"]
    rows = [[what, where, n] for what, where, n in data["audit"]]
    return Table(
        "audit",
        "Audit of the data: copies, labels, blank images",
        [Column("finding"), Column("where"), Column("images", count)],
        rows or [["no audit was made", "", None]],
        context=context(results),
    )


def _recipes(results: Results) -> dict[str, Mapping[str, Any]]:
    return {m["title"]: m["recipe"] for m in results["models"] if m.get("recipe")}


def common_settings(results: Results) -> Table:
    """Settings of the recipe that all models share."""
    recipes = list(_recipes(results).values())
    shared = [k for k in (recipes[0] if recipes else {}) if _shared(recipes, k)]
    return Table(
        "settings-common",
        "Settings that all models share",
        [Column("setting"), Column("value", str)],
        [[_setting(key), value_text(recipes[0][key])] for key in shared],
        notes=["Names are those of a recipe file; what a value of 0 or none turns off is off."],
        context=context(results),
    )


def differing_settings(results: Results) -> Table:
    """Settings of the recipe in which the models differ."""
    recipes = _recipes(results)
    first = next(iter(recipes.values()), {})
    keys = [k for k in first if not _shared(list(recipes.values()), k)]
    return Table(
        "settings-differ",
        "Settings in which the models differ",
        [Column("name"), *(Column(_setting(key)) for key in keys)],
        [[title, *(value_text(recipe.get(k)) for k in keys)] for title, recipe in recipes.items()],
        context=context(results),
    )


def _shared(recipes: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(recipe.get(key) == recipes[0][key] for recipe in recipes)


def _setting(key: str) -> str:
    words = paper.HYPERPARAMETERS.get(key)
    return f"{key} ({words})" if words and words != key else key


def value_text(value: Any) -> str:
    if value is None:
        return "the model's own"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def grid(results: Results, published: paper.Grid) -> Table:
    """One of the paper's two grids of hyperparameters (after Table IV)."""
    searched = [s for s in results.get("searches", []) if published.source in s["source"]]
    rows = []
    for key, words in paper.HYPERPARAMETERS.items():
        default = published.default[key]
        further = [value_text(level) for level in published.levels[key] if level != default]
        levels = [search["space"]["parameters"].get(key, []) for search in searched]
        here = list(dict.fromkeys(value_text(level) for one in levels for level in one))
        rows.append([words, value_text(default), ", ".join(further), ", ".join(here) or NOT_RUN])
    name = "table-iv" if published is paper.TABLE_IV else "tables-v-ix"
    of = "after Table IV" if published is paper.TABLE_IV else "after Tables V, VII and IX"
    return Table(
        f"grid-{name}",
        f"The grid of {published.source}, {len(published.settings())} settings a model ({of})",
        [
            Column(title)
            for title in ("hyperparameter", "default", "further levels", "searched here")
        ],
        rows,
        notes=[published.note.capitalize() + "."],
        context=context(results),
    )
