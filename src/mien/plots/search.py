"""What a hyperparameter search found: each setting, each parameter, and who was promoted.

Trials are the rows of ``Search.to_dict()["trials"]``: of each are read ``number``, ``rung``,
``setting`` and ``value`` (None where it failed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import DataError
from mien.plots.style import ATTENTION, FAINT, axis, beside, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TICKS = 6
"""Values of a parameter up to which each has its own tick; more are placed as numbers."""


@style()
def parallel_coordinates(
    ax: Axes | None, trials: Sequence[Mapping[str, Any]], chosen: int | None = None
) -> Axes:
    """A line for each trial through its values to its accuracy, one of them standing out.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    trials : measured alike, such as those of one rung; failed ones are left out
    chosen : the number of the one that stands out; None, or one not among them, means the best
    """
    trials = _measured(trials)
    names = list(trials[0]["setting"])
    ax = axis(ax, width=1.2 * (len(names) + 1))
    accuracy = np.array([trial["value"] for trial in trials])
    columns, ticks = [], []
    for name in names:
        places, labels = _places([trial["setting"][name] for trial in trials])
        columns.append(_unit(np.log(places) if not labels and _wide(places) else places))
        ticks.append(list(zip(*_ends(columns[-1], places, labels), strict=True)))
    columns.append(_unit(accuracy))
    low, high = float(accuracy.min()), float(accuracy.max())
    ticks.append(
        [(0.0, f"{low:.1%}"), (1.0, f"{high:.1%}")] if low < high else [(0.5, f"{low:.1%}")]
    )
    numbers = [trial["number"] for trial in trials]
    out = numbers.index(chosen) if chosen in numbers else int(accuracy.argmax())
    for i in np.argsort(accuracy, kind="stable"):
        ax.plot(
            range(len(columns)),
            [column[i] for column in columns],
            color=ATTENTION if i == out else palette[0],
            alpha=1 if i == out else 0.15 + 0.6 * columns[-1][i],
            linewidth=2 if i == out else 0.9,
            zorder=3 if i == out else 2,
        )
    for x, marks in enumerate(ticks):
        ax.axvline(x, color=FAINT, linewidth=0.7, zorder=0)
        for y, text in marks:
            ax.annotate(
                text,
                (x, y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
            )
    ax.set_xticks(range(len(columns)), [*(n.replace("_", " ") for n in names), "accuracy"])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xlim(-0.1, len(columns) - 0.6)
    return ax


@style()
def slice_plot(ax: Axes | None, trials: Sequence[Mapping[str, Any]], parameter: str) -> Axes:
    """Accuracy against one parameter, a point for each trial, with the mean of each level.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    trials : measured alike; failed ones are left out
    parameter : one that the settings have
    """
    trials = _measured(trials)
    if parameter not in trials[0]["setting"]:
        raise DataError(f"no parameter '{parameter}' among {', '.join(trials[0]['setting'])}")
    ax = axis(ax, height=2.8)
    places, labels = _places([trial["setting"][parameter] for trial in trials])
    accuracy = np.array([trial["value"] for trial in trials])
    ax.scatter(places, accuracy, s=16, color=palette[0], alpha=0.5, linewidths=0)
    if labels:
        means = [accuracy[places == x].mean() for x in range(len(labels))]
        ax.plot(range(len(labels)), means, "_", color=ATTENTION, markersize=18, markeredgewidth=2)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlim(-0.5, len(labels) - 0.5)
    elif _wide(places):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel(parameter.replace("_", " "))
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.grid(axis="y")
    return ax


@style()
def importance_bars(ax: Axes | None, importance: Mapping[str, float]) -> Axes:
    """The share of the variance of accuracy that each parameter explains, the greatest first.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    importance : share of 1 by parameter
    """
    names = sorted(importance, key=lambda name: -importance[name])
    ax = axis(ax, height=0.7 + 0.3 * len(names))
    ax.barh(range(len(names)), [importance[name] for name in names], 0.68, color=palette[0])
    for y, name in enumerate(names):
        beside(ax, importance[name], y, f"{importance[name]:.0%}")
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1.12 * max([*importance.values(), 0.1]))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.set_xlabel("share of the variance of accuracy")
    ax.grid(axis="x")
    return ax


@style()
def halving_funnel(
    ax: Axes | None, trials: Sequence[Mapping[str, Any]], rungs: Sequence[str]
) -> Axes:
    """Each setting's accuracy on each rung it was trained on: who was promoted, and from where.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    trials : all of a search; failed ones are left out
    rungs : what each rung is, such as ``"3 epochs"``
    """
    trials = _measured(trials)
    ax = axis(ax)
    path_of: dict[int, list[tuple[int, float]]] = {}
    for trial in sorted(trials, key=lambda trial: trial["rung"]):
        path_of.setdefault(trial["number"], []).append((trial["rung"], trial["value"]))
    best = max((path for path in path_of.values()), key=lambda path: path[-1])
    for path in path_of.values():
        colour = ATTENTION if path is best else palette[0]
        shade = 1 if path is best else 0.35
        ax.plot(*zip(*path, strict=True), "o-", color=colour, alpha=shade, markersize=3)
    counts = np.bincount([trial["rung"] for trial in trials], minlength=len(rungs))
    ax.set_xticks(
        range(len(rungs)),
        [f"{fill(rung, 14)}\n{n:,} settings" for rung, n in zip(rungs, counts, strict=True)],
    )
    ax.set_xlim(-0.3, len(rungs) - 0.7)
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.grid(axis="y")
    return ax


def _measured(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = [trial for trial in trials if trial["value"] is not None]
    if not found:
        raise DataError("no trial has a value, so there is nothing to draw")
    return found


def _places(values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
    """Where each value stands, and the labels of the places 0, 1, ...; none for a number line."""
    numbers = all(isinstance(value, int | float) for value in values)
    distinct = sorted(
        set(map(_hashable, values)), key=lambda v: (v is None, v if numbers else str(v))
    )
    if numbers and len(distinct) > MOST_TICKS:
        return np.array(values, float), []
    place_of = {value: place for place, value in enumerate(distinct)}
    return np.array([place_of[_hashable(v)] for v in values]), [_label(v) for v in distinct]


def _ends(
    unit: np.ndarray, places: np.ndarray, labels: Sequence[str]
) -> tuple[Sequence[float], Sequence[str]]:
    """Heights and texts of an axis's ticks: every level, or both ends of a number line."""
    if not labels:
        return (0.0, 1.0), (f"{places.min():.3g}", f"{places.max():.3g}")
    heights = {int(place): float(y) for place, y in zip(places, unit, strict=True)}
    return [heights[i] for i in range(len(labels))], labels


def _unit(values: np.ndarray) -> np.ndarray:
    span = np.ptp(values)
    return (values - values.min()) / span if span else np.full(len(values), 0.5)


def _wide(places: np.ndarray) -> bool:
    """Whether numbers are so far apart that only their ratios can be shown."""
    return bool(places.min() > 0 and places.max() > 20 * places.min())


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _label(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
