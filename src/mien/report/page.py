"""The report: one page of HTML, and its tables and figures as files."""

from __future__ import annotations

import re
from pathlib import Path

from mien import plots
from mien.report.comparisons import scheme_of, validations
from mien.report.drawing import Figure, write_figures
from mien.report.figures import all_figures
from mien.report.provenance import phases_not_run
from mien.report.results import (
    Results,
    evaluated_splits,
    finished,
    listed,
    main_split,
    metrics_of,
    named,
    pairs,
    read_results,
    read_sheets,
    scale,
    seeds,
)
from mien.report.searches import searches
from mien.report.table import ONE_SEED, Table, interval, percent, signed, write_tables
from mien.report.tables import all_tables
from mien.runs.atomic import write_text


def write_report(out: Path) -> Path:
    """Write the report of a study: ``report.html``, ``tables/`` and ``figures/``.

    The page stands alone: it loads nothing, from nowhere. Each table is also written as CSV,
    Markdown and LaTeX, each figure as SVG and PDF, each file whole or not at all.

    Parameters
    ----------
    out : the folder of the study, with ``results.json`` and, for the pictures, ``sheets.npz``

    Returns
    -------
    the path of the page

    Raises
    ------
    RunError
        if ``results.json`` is missing or damaged, ``sheets.npz`` is damaged, or the disk is full
    """
    out = Path(out)
    results, sheets = read_results(out), read_sheets(out)
    tables, figures = all_tables(results), all_figures(results, sheets)
    write_tables(tables.values(), out / "tables")
    write_figures(figures.values(), out / "figures")
    page = out / "report.html"
    write_text(page, render(results, tables, figures))
    return page


def render(results: Results, tables: dict[str, Table], figures: dict[str, Figure]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mien.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = {name: Markup(table.to_html()) for name, table in tables.items()}
    drawn = {
        name: {
            "name": name,
            "caption": figure.caption,
            "svg": Markup(plots.svg_text(figure.drawing, f"{figure.caption}. {figure.alt}")),
        }
        for name, figure in figures.items()
    }
    return environment.get_template("template.html.j2").render(
        results=results,
        summary=summary(results),
        tables=shown,
        figures=drawn,
        splits=evaluated_splits(results),
        main=main_split(results),
        one_seed=len(seeds(results)) < 2,
        balance=results.get("balance"),
        explanation=results.get("explanation"),
        searches=searches(results),
        validations=validations(results),
        **{"named": named, "scale": scale(results), "scheme_of": scheme_of},
    )


def summary(results: Results) -> list[tuple[str, str]]:
    """The study in plain words: (what, sentence) in the order of reading."""
    done, data, models = finished(results), results["data"], results["models"]
    split = main_split(results)
    train = data["roles"]["train"]
    n_train = data.get("trained_on") or sum(data["counts"].get(train, []))
    size = f"{len(done)} of {len(models)}" if len(done) < len(models) else f"All {len(models)}"
    lines = [
        (
            "What was run",
            f"{size} models were trained on {n_train:,} {train} images of {data['name']}. "
            f"{scale(results)}."
            + (" This is not a result about the full models." if results["toy"] else ""),
        )
    ]
    if split:
        lines += [
            ("Best model", _best(results, split)),
            ("What CBAM did", _attention(results, split)),
        ]
    for model in done:
        if model.get("collapsed_to"):
            lines.append(
                (
                    "Collapse",
                    f"{model['title']} calls (almost) every image {model['collapsed_to']}.",
                )
            )
    if role_note := _test(results):
        lines.append(("The test split", role_note))
    lines.append(("What was not run", _not_run(results)))
    return [(what, re.sub(r"(?<=\d) %", "\u00a0%", sentence)) for what, sentence in lines]


def _best(results: Results, split: str) -> str:
    """The best model: chosen on validation also where its figure is one on the test split.

    Images that stand in training too are left out of what is chosen.
    """
    shown = [(m, x) for m in finished(results) if (x := metrics_of(m, split)) is not None]
    validation = results["data"]["roles"]["validation"]
    first = {m["key"]: metrics_of(m, validation) or x for m, x in shown}
    fresh = {m["key"]: metrics_of(m, validation, "without_copies") or x for m, x in shown}
    best, metrics = max(shown, key=lambda pair: fresh[pair[0]["key"]].accuracy)
    low, high = metrics.accuracy_interval
    within = [
        m["title"]
        for m, x in shown
        if m is not best and x.accuracy_interval[0] <= high and x.accuracy_interval[1] >= low
    ]
    figure = (
        f"{percent(metrics.accuracy)} % (95 % interval {interval((low, high))} %, "
        f"{metrics.n:,} images)."
    )
    chosen = fresh[best["key"]]
    left = first[best["key"]].n - chosen.n
    text = f"{best['title']} has the highest accuracy on {named(results, validation)}"
    text += f", without the {left:,} images that stand in training too: " if left else ": "
    if split != validation:
        text += f"{percent(chosen.accuracy)} %. On {named(results, split)}: {figure}"
    elif left:
        text += f"{percent(chosen.accuracy)} %. With them it is {figure}"
    else:
        text += figure
    if within:
        text += f" Its interval overlaps with {_those_of(within)}."
    copies = metrics_of(best, split, "without_copies")
    if split != validation and copies is not None and copies.n < metrics.n:
        text += (
            f" Without the {metrics.n - copies.n:,} images that stand in training too it is "
            f"{percent(copies.accuracy)} %."
        )
    return text


def _those_of(titles: list[str]) -> str:
    return f"that of {titles[0]}" if len(titles) == 1 else f"those of {listed(titles)}"


def _attention(results: Results, split: str) -> str:
    parts = []
    for _, a, b in pairs(results):
        first, second = metrics_of(a, split), metrics_of(b, split)
        if first and second:
            parts.append(f"{signed(100 * (second.accuracy - first.accuracy))} for {a['title']}")
    if not parts:
        return "No network was run both with and without it."
    text = f"Points of accuracy on {named(results, split)}: {listed(parts)}."
    return f"{text} {ONE_SEED}" if len(seeds(results)) < 2 else text


def _test(results: Results) -> str:
    data = results["data"]
    test = data["roles"]["test"]
    unlabelled = {split: n for split, n in data["unlabelled"].items() if n}
    if test in evaluated_splits(results) and test is not None:
        first = min(
            (o["date"] for o in results.get("openings", []) if o["split"] == test), default=""
        )
        if late := [m["title"] for m in finished(results) if first and m["finished"] > first]:
            return (
                f"{test} had been opened, on {first[:10]}, before these were trained: "
                f"{listed(late)}. What is chosen after that has been chosen on it."
            )
        return f"{test} was opened after all training of this study, and nothing was chosen on it."
    if unlabelled:
        names = listed(f"{split} ({n:,} images)" for split, n in unlabelled.items())
        return f"There are no labels for {names}: no test result is claimed."
    return "This study opened no test split: no test result is claimed."


def _not_run(results: Results) -> str:
    missing = [m["title"] for m in results["models"] if m["state"] != "finished"]
    phases = [what for what, *_ in phases_not_run(results)] or ["nothing of the paper's phases"]
    text = f"{listed(phases).capitalize()}."
    if missing:
        text += f" Models not run: {listed(missing)}."
    return text
