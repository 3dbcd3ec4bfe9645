"""The tables of a search: what it chose, what it tried, what it cost, what decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mien import plots
from mien.plots.style import figure_of
from mien.report.drawing import Figure, write_figures
from mien.report.inputs import value_text
from mien.report.results import Results, study_of
from mien.report.table import (
    ACCURACY,
    INTERVAL,
    Column,
    Table,
    count,
    decimals,
    minutes,
    percent,
    write_tables,
)
from mien.runs.atomic import write_json, write_text
from mien.runs.recipe import Recipe
from mien.study import paper

Search = dict[str, Any]


def searches(results: Results) -> list[Search]:
    """The searches of a study; an older one has none."""
    return results.get("searches", [])


def search_tables(results: Results) -> list[Table]:
    """The tables of every search."""
    return [
        table
        for search in searches(results)
        for table in _tables(search, study_of(results), str(results["date"])[:10])
    ]


def write_search(search: Search, out: Path) -> Path:
    """Write a search by itself: ``search.json``, ``best.toml``, ``tables/`` and ``figures/``.

    Parameters
    ----------
    search : `mien.search.Search.to_dict` with ``key``, ``title`` and ``source``

    Returns
    -------
    Path
        of ``search.json``
    """
    today = datetime.now(UTC).date().isoformat()
    write_tables(_tables(search, search["source"], today), out / "tables")
    write_figures(_figures(search), out / "figures")
    best = Recipe.from_dict(search["space"]["base"]).but(**search["best"]["setting"])
    write_text(out / "best.toml", best.to_toml())
    write_json(out / "search.json", search)
    return out / "search.json"


def _tables(search: Search, where: str, date: str) -> list[Table]:
    context = _context(search, where, date)
    return [
        best_and_default(search, context),
        cost(search, context),
        importance(search, context),
        trials(search, context),
    ]


def _context(search: Search, where: str, date: str) -> str:
    data = search["data"]
    return "; ".join(
        [
            where,
            f"{search['protocol']} protocol",
            f"{data['name']}, {search['objective']} (chosen on), n = {data['measured']:,}",
            f"{data['images']:,} training images",
            f"seed {search['seed']}, one training a setting",
            f"{date}.",
        ]
    )


def words(parameter: str) -> str:
    """A hyperparameter in the paper's words, or by its own name."""
    return paper.HYPERPARAMETERS.get(parameter, parameter)


def best_and_default(search: Search, context: str) -> Table:
    """The chosen setting beside the default, with their accuracies (after Tables V to X)."""
    best, default = search["best"], search["default"]
    rows: list[list[Any]] = [
        [words(name), value_text(default["setting"][name]), value_text(value)]
        for name, value in best["setting"].items()
    ]
    for what, key, show in (
        ("accuracy (%)", "value", percent),
        ("95 % interval", "interval", lambda pair: " to ".join(map(percent, pair))),
    ):
        cells = (trial[key] for trial in (default, best))
        rows.append([what, *(default["reason"] or "–" if c is None else show(c) for c in cells)])
    tried = sum(bracket["settings"] for bracket in search["fidelity"]["brackets"])
    return Table(
        f"search-{search['key']}",
        f"{search['title']}: default and best setting found (after Tables V to X)",
        [Column("hyperparameter"), Column("default"), Column("best found")],
        rows,
        notes=[
            *search["notes"],
            f"{tried:,} settings entered by {search['sampler']}; {_ladder(search)}.",
        ],
        context=context,
        marked=frozenset({len(rows) - 2}),
    )


def _ladder(search: Search) -> str:
    fidelity = search["fidelity"]
    rungs = []
    for number, rung in enumerate(fidelity["rungs"]):
        n = sum(trial["rung"] == number for trial in search["trials"])
        rungs.append(f"{n} settings for {_rung(rung)}")
    return f"{fidelity['name']}: " + ", ".join(rungs)


def cost(search: Search, context: str) -> Table:
    """What the search cost beside what every setting in full would."""
    spent, whole = search["cost"], search["cost"]["exhaustive"]
    rows = [["this search", spent["epoch_images"], spent["seconds"], 1.0]]
    if whole is not None:
        ratio = whole["epoch_images"] / spent["epoch_images"]
        rows.append(["every setting in full", whole["epoch_images"], whole["seconds"], ratio])
    notes = [
        "The time of the whole grid follows from the measured pace of each setting"
        + ("." if search["fidelity"]["name"] == "full" else "; it was not run.")
    ]
    if search["failed"]:
        notes.append(f"What failed trials ({search['failed']}) trained before that is not counted.")
    return Table(
        f"search-cost-{search['key']}",
        f"{search['title']}: cost of the search, and of the whole grid in full",
        [
            Column("what"),
            Column("images times epochs", count),
            Column("device time", minutes, "min", "s"),
            Column("times the search", decimals(1)),
        ],
        rows,
        notes=notes,
        context=context,
    )


def importance(search: Search, context: str) -> Table:
    """The share of the variance of accuracy that each hyperparameter explains."""
    found = search["importance"]
    values = found["values"] or {}
    return Table(
        f"search-importance-{search['key']}",
        f"{search['title']}: which hyperparameter decided, by functional ANOVA",
        [Column("hyperparameter"), Column("share of the variance", percent, "%")],
        [[words(name), value] for name, value in values.items()]
        or [["not computed", found["note"]]],
        notes=[
            f"From {found['settings']} settings" + (f", {found['note']}" if found["note"] else ""),
            "Of each by itself: what several explain only together is in no share.",
        ],
        context=context,
    )


def trials(search: Search, context: str) -> Table:
    """Every trial of a search, the highest rungs first."""
    names = list(search["space"]["parameters"])
    chosen = search["best"]["number"], search["best"]["rung"]
    found = sorted(search["trials"], key=lambda t: (-t["rung"], -(t["value"] or 0)))
    rows = [
        [
            str(trial["number"]),
            *(value_text(trial["setting"][name]) for name in names),
            trial["epochs"],
            trial["images"],
            trial["value"],
            trial["interval"],
            trial["seconds"],
            trial["reason"] or trial["state"],
        ]
        for trial in found
    ]
    marked = {i for i, t in enumerate(found) if (t["number"], t["rung"]) == chosen}
    return Table(
        f"search-trials-{search['key']}",
        f"{search['title']}: every trial, those with most training first",
        [
            Column("setting"),
            *(Column(words(name)) for name in names),
            Column("epochs trained", count),
            Column("training images", count),
            ACCURACY,
            INTERVAL,
            Column("time", minutes, "min", "s"),
            Column("state"),
        ],
        rows,
        context=context,
        marked=frozenset(marked),
    )


def search_figures(results: Results) -> list[Figure]:
    """The figures of every search."""
    return [figure for search in searches(results) for figure in _figures(search)]


def _figures(search: Search) -> Iterator[Figure]:
    """How a search went: who was promoted, what each level came to, what decided."""
    key, title, found = search["key"], search["title"], search["trials"]
    known = [trial for trial in found if trial["value"] is not None]
    if not known:
        return
    counts = Counter(trial["rung"] for trial in known)
    rungs = [_rung(rung) for rung in search["fidelity"]["rungs"]]
    if len(rungs) > 1:
        yield Figure(
            f"search-funnel-{key}",
            f"{title}: the accuracy of every setting at each amount of training; the setting "
            "chosen stands out",
            "; ".join(f"{rung}: {counts[i]} settings" for i, rung in enumerate(rungs)),
            figure_of(plots.halving_funnel(None, found, rungs)),
        )
    widest = [trial for trial in known if trial["rung"] == min(counts)]
    lowest = rungs[min(counts)]
    yield Figure(
        f"search-parallel-{key}",
        f"{title}: every setting and its accuracy after {lowest}; the setting chosen in the end "
        "stands out",
        f"A line for each of {len(widest)} settings through its hyperparameters.",
        figure_of(plots.parallel_coordinates(None, widest, search["best"]["number"])),
    )
    for name in search["space"]["parameters"]:
        yield Figure(
            f"search-slice-{key}-{name}",
            f"{title}: accuracy after {lowest} by {words(name)}, with the mean of each level",
            f"Points for {len(widest)} settings.",
            figure_of(plots.slice_plot(None, widest, name)),
        )
    if shares := search["importance"]["values"]:
        yield Figure(
            f"search-importance-{key}",
            f"{title}: share of the variance of accuracy that each hyperparameter explains",
            "; ".join(f"{words(name)}: {percent(share)} %" for name, share in shares.items()),
            figure_of(plots.importance_bars(None, shares)),
        )


def _rung(rung: dict[str, Any]) -> str:
    part = "" if rung["share"] == 1 else f" on 1/{1 / rung['share']:.3g} of the images"
    return f"{rung['epochs']} epoch{'s' if rung['epochs'] != 1 else ''}{part}"
