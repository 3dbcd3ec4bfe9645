"""The tables and figures of a generator: what it added, and whether its faces are any good."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mien import plots
from mien.balance.gan.watch import COLLAPSE
from mien.evaluation.outcome import rounded_p
from mien.plots.style import figure_of
from mien.report.drawing import Figure, write_figures
from mien.report.table import Column, Table, count, percent, write_tables
from mien.runs.atomic import write_json
from mien.study import paper

Balance = dict[str, Any]


def balance_tables(balance: Balance, where: str) -> list[Table]:
    """Table III as ours, and the quality of the faces where it was assessed."""
    tables = [counts(balance, where)]
    if balance["quality"]:
        tables.append(quality(balance, where))
    return tables


def counts(balance: Balance, where: str) -> Table:
    """Images before and after, beside the printed Table III where the classes are its own."""
    real, made, classes = balance["real"], balance["generated"], balance["classes"]
    printed = paper.TABLE_III if set(classes) == set(paper.TABLE_III) else {}
    rows: list[list[Any]] = [
        [name, r, g, r + g, printed.get(name)]
        for name, r, g in zip(classes, real, made, strict=True)
    ]
    total = sum(printed.values()) if printed else None
    rows.append(["in all", sum(real), sum(made), sum(real) + sum(made), total])
    return Table(
        "generated",
        "Images of the training part, and those the generator adds (after Table III)",
        [
            Column("class"),
            Column("real", count),
            Column("generated", count),
            Column("in all", count),
            Column("generated, published", count),
        ],
        rows,
        notes=[f"Lifted by '{balance['lift']}'. {_how(balance)}"],
        context=where,
        marked=frozenset({len(rows) - 1}),
    )


def _how(balance: Balance) -> str:
    run = balance["generator"]
    ended = f"{run['epochs']} epochs"
    if run["good_epoch"] < run["epochs"]:
        ended += f", of which the faces are from epoch {run['good_epoch']}, the last in order"
    troubled = sum(row["trouble"] is not None for row in run["log"])
    return (
        f"Generator {run['name']}: {ended}, {run['train_seconds'] / 60:.1f} min; epochs out of "
        f"order: {troubled}."
    )


def quality(balance: Balance, where: str) -> Table:
    """Every measure of the generated faces, over all and class by class, with its floor."""
    found = balance["quality"]
    per_class = found["per_class"]

    def values(title: str, of_all: Any, of_class: list[Any]) -> list[Any]:
        return [title, of_all, *of_class]

    def pick(key: str, inner: str, show: Any) -> list[Any]:
        return [show(c[key][inner]) if c[key] else None for c in per_class]

    def milli(value: float) -> str:
        return f"{1000 * value:,.1f}"

    def share(value: float | None) -> str | None:
        return None if value is None else percent(value)

    def chance(p: float | None) -> str | None:
        return None if p is None else rounded_p(p)

    memory = found["memorisation"]

    def ratio(measured: dict[str, Any]) -> str:
        return f"{measured['generated_median'] / measured['held_out_median']:.2f}"

    rows = [
        values(
            "faces on a side", found["fid"] and count(found["fid"]["n"]), pick("kid", "n", count)
        ),
        values("KID x 1,000", None, pick("kid", "generated", milli)),
        values("KID x 1,000, real against real", None, pick("kid", "real", milli)),
        values("... its deviation", None, pick("kid", "real_sd", milli)),
        values(
            "taken for its class (%; all: mean of classes)",
            share(found["agreement"]),
            pick("agreement", "share", share),
        ),
        values(
            "... real held-out faces (%)",
            share(found["real_agreement"]),
            pick("real_agreement", "share", share),
        ),
        values(
            "distance to the nearest training face, held-out: 1",
            memory and ratio(memory),
            [c["memorisation"] and ratio(c["memorisation"]) for c in per_class],
        ),
        values(
            "nearer than 5 % of held-out faces (%)",
            memory and share(memory["nearer_than_5th_percentile"]),
            pick("memorisation", "nearer_than_5th_percentile", share),
        ),
        values(
            "... p of their being nearer (Mann-Whitney)",
            memory and chance(memory["p"]),
            pick("memorisation", "p", chance),
        ),
    ]
    notes = [_overall(found)]
    notes.append(
        f"Distances in {found['dimensions']} directions of the features of "
        f"{balance['features']} ({100 * found['variance_kept']:.0f} % of their variance); "
        f"classes asked of {balance['classifier']}; held-out: {balance['held_out']}"
        + (
            f" without {found['held_out_copies']} copies of training images."
            if found["held_out_copies"]
            else "."
        )
    )
    return Table(
        "balance-quality",
        f"Are the {found['generated']:,} generated faces any good?",
        [Column("measure"), Column("all", str), *(Column(c["name"], str) for c in per_class)],
        rows,
        notes=notes,
        context=where,
    )


def _overall(found: dict[str, Any]) -> str:
    parts = []
    for key, measured in [("FID", found["fid"]), *(found["prdc"] or {}).items()]:
        if measured:
            parts.append(f"{key} {measured['generated']:.3g} ({measured['real']:.3g})")
    text = "Over all, real against real in brackets: " + ", ".join(parts) + ". " if parts else ""
    text += f"Pixel-for-pixel duplicates: {found['duplicates']}"
    near = found["near_duplicates"]
    if near and near["share"] is not None:
        text += (
            f"; as near to another as 1 in 100 real faces is: {percent(near['share'])} % "
            f"({percent(near['expected'])} % if nothing repeats)"
        )
    return text + "."


def balance_figures(balance: Balance, sheets: dict[str, np.ndarray]) -> Iterator[Figure]:
    """Contact sheets, nearest neighbours, the course of the training, and the quality.

    Parameters
    ----------
    sheets : uint8 images: ``real`` and ``generated`` ``[C, k, ...]`` (fewer are padded with grey),
        and, where there are features, ``sample`` and ``nearest`` ``[k, ...]``
    """
    classes = balance["classes"]
    rows, titles = [], []
    for number, name in enumerate(classes):
        for kind in ("real", "generated"):
            rows.append(sheets[kind][number])
            titles.append(f"{name}, {kind}")
    yield Figure(
        "balance-contact",
        "Real faces of each class above generated ones, neither chosen by hand",
        f"Two rows of faces for each of {len(classes)} classes.",
        plots.sample_sheet(rows, titles),
    )
    if "nearest" in sheets:
        yield Figure(
            "balance-nearest",
            "Generated faces above the training faces nearest to them in the features",
            f"{len(sheets['sample'])} pairs of faces.",
            plots.sample_sheet([sheets["sample"], sheets["nearest"]], ["generated", "nearest"]),
        )
    yield Figure(
        "balance-training",
        "The generator's training: losses of both networks, and the spread of the faces over the "
        "classes (line: mean, band: least to most)",
        "Curves over the epochs.",
        figure_of(plots.generator_curves(None, balance["generator"]["log"], COLLAPSE)[0]),
    )
    if balance["quality"]:
        found = balance["quality"]["per_class"]

        def column(key: str, inner: str, factor: float = 1) -> np.ndarray:
            return np.array([factor * c[key][inner] if c[key] else np.nan for c in found])

        yield Figure(
            "balance-quality",
            "Generated faces beside real ones, class by class",
            "Bars of KID and of agreement for each class.",
            figure_of(
                plots.generator_quality(
                    None,
                    {
                        "generated": column("kid", "generated", 1000),
                        "real": column("kid", "real", 1000),
                    },
                    {
                        "generated": column("agreement", "share"),
                        "real": column("real_agreement", "share"),
                    },
                    classes,
                )[0]
            ),
        )


def write_balance(balance: Balance, sheets: dict[str, np.ndarray], out: Path) -> list[Path]:
    """Write ``balance.json``, ``tables/`` and ``figures/`` of a generator by itself.

    Returns
    -------
    list of Path
        the file and the two folders
    """
    run = balance["generator"]
    today = datetime.now(UTC).date().isoformat()
    where = (
        f"{run['data']['name']}, seed {run['recipe']['seed']}; {run['hardware']['cpu']}; {today}."
    )
    write_tables(balance_tables(balance, where), out / "tables")
    write_figures(balance_figures(balance, sheets), out / "figures")
    write_json(out / "balance.json", balance)
    return [out / "balance.json", out / "tables", out / "figures"]
