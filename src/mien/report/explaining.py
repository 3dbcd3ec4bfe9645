"""The table and figures of what a network looks at, and whether that is to be believed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mien import plots
from mien.plots.explanation import faithfulness_bars, gate_sheet, map_sheet
from mien.plots.style import figure_of
from mien.report.drawing import Figure, write_figures
from mien.report.table import Column, Table, decimals, write_tables
from mien.runs.atomic import write_json

Explanation = dict[str, Any]
Pictures = dict[str, np.ndarray]

PAIRS = 6
"""Pairs of classes whose errors stand on one sheet."""


def faithfulness(found: Explanation, where: str) -> Table:
    """Deletion and insertion of each kind of map, and what it gains on maps that know nothing."""
    gained = Column("above random, 95 %"), Column("above the centre, 95 %")
    rows: list[list[Any]] = []
    for name, values in found["scores"].items():
        gains = [_gain(values["gains"].get(base)) for base in ("random", "centre")]
        rows.append([name, values["deletion"], values["insertion"], *gains])
    return Table(
        "faithfulness",
        f"Are maps of {found['title']} to be believed? Deletion (lower is better) and insertion "
        "(higher), as mean probability of the predicted class",
        [Column("map"), Column("deletion", decimals(3)), Column("insertion", decimals(3)), *gained],
        rows,
        notes=[verdict(found), f"{found['faces']:,} faces of {found['of']}. {ABOUT}"],
        context=where,
    )


ABOUT = (
    "Deletion: pixels become grey in the map's order; insertion: they come back into a blurred "
    "face (Petsiuk et al. 2018). Above: insertion minus deletion, less that of the baseline, "
    "paired by face. The baselines are smooth noise and a Gaussian in the middle of the picture."
)


def _gain(gain: list[float | None] | None) -> str:
    if gain is None:
        return "–"
    mean, low, high = gain
    if low is None or high is None:
        return f"{mean:+.3f}"
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def verdict(found: Explanation) -> str:
    """Which maps do better than both baselines: the others explain nothing."""
    good: list[str] = []
    bad: list[str] = []
    for name in found["methods"]:
        gains = found["scores"][name]["gains"].values()
        # None: with one face there is no interval, so nothing is shown.
        better = all(low is not None and low > 0 for _, low, _ in gains)
        (good if better else bad).append(name)
    text = f"Better than both baselines: {', '.join(good) or 'none'}."
    return text + (f" Not shown to explain anything: {', '.join(bad)}." if bad else "")


def explanation_figures(
    found: Explanation, pictures: Pictures, pairs: int = PAIRS
) -> Iterator[Figure]:
    """Faces beside their maps, the mean maps of each class, CBAM's gates, scores, and errors.

    Parameters
    ----------
    found, pictures : as `mien.explanation.explain_split` gives them
    pairs : of classes whose errors stand on a sheet, the most frequent first
    """
    methods, title = found["methods"], found["title"]
    yield Figure(
        "explanation-faces",
        f"What {title} looks at in single faces when it calls them so: each map from its least to "
        "its most important place",
        f"{len(found['shown'])} faces in rows, beside each its maps by {', '.join(methods)}.",
        map_sheet(pictures["shown_faces"], _by(methods, pictures["shown_maps"]), found["shown"]),
    )
    if found["faces"] > len(found["called"]):
        yield Figure(
            "explanation-classes",
            f"The same, averaged over the faces that {title} gives a class (their number behind "
            "it), on the mean of these faces",
            f"A row for each of {', '.join(name for name, _ in found['called'])}.",
            map_sheet(
                pictures["class_faces"],
                _by(methods, pictures["class_maps"]),
                [f"{name} ({n})" for name, n in found["called"]],
            ),
        )
    if found["gates"]:
        names = [name for name, *_ in found["gates"]]
        yield Figure(
            "explanation-gates",
            f"CBAM's gates in {title}, means over {found['faces']:,} faces: places above, channels "
            "in rising order below; the last module of each size of map",
            "; ".join(
                f"{name}: places {w[0]:.2f} to {w[1]:.2f}, channels {c[0]:.2f} to {c[1]:.2f}"
                for name, _, w, c in found["gates"]
            ),
            gate_sheet(
                [name.replace(".attention", "").replace("attention.", "") for name in names],
                [pictures[f"spatial_{i}"] for i in range(len(names))],
                [pictures[f"channel_{i}"] for i in range(len(names))],
            ),
        )
    values = found["scores"]
    yield Figure(
        "explanation-faithfulness",
        "Deletion (lower is better) and insertion (higher) of each kind of map; hatched: maps that "
        "know nothing of the network",
        verdict(found),
        figure_of(
            faithfulness_bars(
                None,
                {name: value["deletion"] for name, value in values.items()},
                {name: value["insertion"] for name, value in values.items()},
                [name for name in values if name not in methods],
            )
        ),
    )
    most = range(len(found["errors"]))[:pairs]
    yield from error_sheet(found, pictures, "explanation-errors", most)


def error_sheet(
    found: Explanation, pictures: Pictures, name: str, which: range | list[int]
) -> Iterator[Figure]:
    """The most confident errors of some pairs of classes, by their position in ``errors``."""
    rows = [found["errors"][i] for i in which]
    if rows:
        yield Figure(
            name,
            f"Errors of {found['title']} it was surest of; in brackets how many there are and the "
            "largest probability",
            f"Faces in rows: {'; '.join(f'{t} called {p}' for t, p, *_ in rows)}.",
            plots.sample_sheet(
                [pictures[f"errors_{i}"] for i in which],
                [f"{t} called {p} ({n:,}, {100 * top:.0f} %)" for t, p, n, top in rows],
            ),
        )


def write_explanation(found: Explanation, pictures: Pictures, out: Path) -> list[Path]:
    """Write ``explanation.json``, ``tables/`` and ``figures/``, with a sheet of errors a class.

    Returns
    -------
    list of Path
        the file and the two folders
    """
    today = datetime.now(UTC).date().isoformat()
    where = f"Run {found['run']}; {today}."
    figures = list(explanation_figures(found, pictures, pairs=0))
    for true in dict.fromkeys(row[0] for row in found["errors"]):
        which = [i for i, row in enumerate(found["errors"]) if row[0] == true]
        figures += error_sheet(found, pictures, f"errors-{true}", which)
    write_tables([faithfulness(found, where)], out / "tables")
    write_figures(figures, out / "figures")
    write_json(out / "explanation.json", found)
    return [out / "explanation.json", out / "tables", out / "figures"]


def _by(methods: list[str], maps: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(methods, maps, strict=True))
