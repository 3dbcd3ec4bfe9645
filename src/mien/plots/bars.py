"""Bars and points with their numbers beside them: classes, recall, accuracy, cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import DataError
from mien.plots.style import FAINT, axis, beside, figure_of, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@style()
def class_bars(ax: Axes | None, counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Axes:
    """Images per class and split, with each class's share of its split (the paper's Figs. 5-6).

    Parameters
    ----------
    ax : where to draw; None makes a figure
    counts : for each split, int ``[C]``
    classes : names of the classes
    """
    total = {split: max(int(np.sum(values)), 1) for split, values in counts.items()}

    def write(split: str, value: float) -> str:
        return f"{value:,.0f}  ({value / total[split]:.1%})"

    ax = class_values(ax, counts, classes, write)
    ax.set_xlabel("images")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return ax


@style()
def recall_bars(ax: Axes | None, recall: Mapping[str, np.ndarray], classes: Sequence[str]) -> Axes:
    """Recall of each class by model, such as with and without CBAM.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    recall : for each model, float ``[C]`` in [0, 1]; NaN where a class has no images
    classes : names of the classes
    """

    def write(_: str, value: float) -> str:
        return "no images" if np.isnan(value) else f"{value:.1%}"

    ax = class_values(ax, recall, classes, write)
    ax.set_xlabel("recall")
    ax.set_xlim(0, 1.12)
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    return ax


@style()
def accuracy_bars(ax: Axes | None, rows: Sequence[Mapping[str, Any]]) -> Axes:
    """Accuracy of models with intervals; published figures are hatched and marked as such.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    rows : in drawing order from the top: ``name``, ``accuracy`` in [0, 1], and where they are
        known ``interval`` (low, high) and ``published`` (bool)
    """
    ax = axis(ax, height=0.7 + 0.26 * len(rows))
    for y, row in enumerate(rows):
        accuracy, interval = row["accuracy"], row.get("interval")
        published = bool(row.get("published"))
        ax.barh(
            y,
            accuracy,
            0.68,
            color="white" if published else palette[0],
            edgecolor=FAINT if published else palette[0],
            hatch="////" if published else None,
        )
        text = f"{accuracy:.1%}"
        if published:
            text += "  published"
        if interval is not None:
            low, high = interval
            ax.plot([low, high], [y, y], color="black", linewidth=1.2)
            ax.plot([low, high], [y, y], "|", color="black", markersize=5)
            text += f"  ({100 * low:.1f} to {100 * high:.1f})"
        beside(ax, max(accuracy, interval[1]) if interval else accuracy, y, text)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    # Room for the numbers: they are part of the picture, not of the scale.
    ends = [max((row["accuracy"], *(row.get("interval") or ()))) for row in rows]
    ax.set_xlim(0, 1.35 * max(ends, default=1))
    ax.set_xticks(np.linspace(0, 1, 6)[np.linspace(0, 1, 6) <= ax.get_xlim()[1]])
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.set_xlabel("accuracy")
    ax.grid(axis="x")
    return ax


@style()
def cost_scatter(
    ax: Axes | None,
    names: Sequence[str],
    multiply_adds: Sequence[float],
    accuracy: Sequence[float],
    interval: Sequence[tuple[float, float]] | None = None,
) -> Axes:
    """Accuracy against the multiply-adds of one image, each model with its name and interval.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    names, multiply_adds, accuracy : one entry a model
    interval : (low, high) of each accuracy
    """
    from matplotlib.ticker import LogLocator

    if not len(names) == len(multiply_adds) == len(accuracy):
        raise DataError("names, multiply_adds and accuracy need one entry for each model")
    ax = axis(ax, height=3.6)
    x, y = np.asarray(multiply_adds, float), np.asarray(accuracy, float)
    colours = [palette[i % len(palette)] for i in range(len(names))]
    ends = np.column_stack([y, y]) if interval is None else np.asarray(interval, float)
    ax.vlines(x, ends[:, 0], ends[:, 1], colors=colours, linewidth=1.2)
    ax.scatter(x, y, c=colours, s=34, zorder=3)
    ax.set_xscale("log")
    ax.set_xlim(x.min() / 1.6, x.max() * 1.6)
    ax.margins(y=0.12)
    ax.set_xlabel("multiply-adds of one image")
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.1%}")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda v, _: _si(v))
    ax.xaxis.set_minor_formatter(lambda v, _: "")
    ax.grid()
    _name_points(ax, names, x, y, ends)
    return ax


def class_values(
    ax: Axes | None,
    series: Mapping[str, np.ndarray],
    groups: Sequence[str],
    write: Callable[[str, float], str],
) -> Axes:
    """Horizontal bars, a group for each class: names and numbers are read without turning."""
    for name, values in series.items():
        if np.shape(values) != (len(groups),):
            raise DataError(f"{name} has {np.size(values)} values for {len(groups)} classes")
    ax = axis(ax, height=0.9 + (0.16 * len(series) + 0.08) * len(groups))
    thickness = 0.84 / max(len(series), 1)
    for i, (name, values) in enumerate(series.items()):
        y = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * thickness
        ax.barh(
            y,
            np.nan_to_num(np.asarray(values, float)),
            0.9 * thickness,
            color=palette[i % len(palette)],
            label=name,
        )
        for place, value in zip(y, values, strict=True):
            beside(ax, float(np.nan_to_num(value)), float(place), write(name, float(value)))
    ax.set_yticks(range(len(groups)), groups)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(groups) - 0.45, -0.55)
    ax.margins(x=0.2)
    ax.grid(axis="x")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(series), 3), borderaxespad=0.2)
    return ax


def _si(value: float) -> str:
    """1.2 G for 1.2e9."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g} {unit}"
    return f"{value:g}"


def _name_points(
    ax: Axes, names: Sequence[str], x: np.ndarray, y: np.ndarray, ends: np.ndarray
) -> None:
    """Put each name beside its point where it covers no point, no interval and no other name.

    `ends` is float ``[n, 2]``, the interval of each `y`.
    """
    size = 7.5
    ax.autoscale_view()
    # The layout is yet to come, so places are reckoned in points on the axis as it stands.
    inches = 72 / figure_of(ax).dpi
    points, low, high = (
        ax.transData.transform(np.column_stack([x, v])) * inches for v in (y, *ends.T)
    )
    right_edge = ax.bbox.x1 * inches
    taken = [(px - 4, py - 4, px + 4, py + 4) for px, py in points]
    taken += [(px - 1, a, px + 1, b) for (px, a), (_, b) in zip(low, high, strict=True)]
    for name, place, (px, py) in zip(names, zip(x, y, strict=True), points, strict=True):
        width = 0.62 * size * len(name)
        sides = [(dx, dy) for dy in (0, 11, -11, 20, -20, 29, -29) for dx in (7, -7 - width)]
        boxes = [(px + dx, py + dy - 5, px + dx + width, py + dy + 5) for dx, dy in sides]
        costs = [
            sum(_overlap(box, other) for other in taken) + 50 * max(0, box[2] - right_edge)
            for box in boxes
        ]
        best = int(np.argmin(costs))
        dx, dy = sides[best]
        taken.append(boxes[best])
        ax.annotate(
            name,
            place,
            xytext=(7 if dx > 0 else -7, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right",
            va="center",
            fontsize=size,
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes (left, low, right, high) share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
