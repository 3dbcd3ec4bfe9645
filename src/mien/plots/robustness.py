"""Accuracy as pictures get worse, and accuracy of groups of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.plots.style import WIDTH, axis, beside, blank_figure, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Measured = Mapping[str, Any]
"""With ``n``, ``accuracy`` in [0, 1] and ``accuracy_interval`` (low, high)."""


@style()
def corruption_curves(
    axes: Sequence[Axes] | None,
    clean: Mapping[str, Measured],
    corrupted: Mapping[str, Mapping[str, Sequence[Measured]]],
) -> list[Axes]:
    """Accuracy of each model over the strength of each corruption, with its interval as a band.

    Parameters
    ----------
    axes : one for each corruption; None makes a figure with two in a row
    clean : by model, on the images as they are (strength 0)
    corrupted : by title of the corruption and by model, one for each strength

    Returns
    -------
    the axes, one for each corruption
    """
    if axes is None:
        rows = -(-len(corrupted) // 2)
        grid = blank_figure(WIDTH, 0.6 + 1.7 * rows).subplots(
            rows, 2, sharex=True, sharey=True, squeeze=False
        )
        axes = list(grid.flat)
        for spare in axes[len(corrupted) :]:
            spare.set_visible(False)
            axes[axes.index(spare) - 2].tick_params(labelbottom=True)
    axes = [axis(ax) for ax in axes[: len(corrupted)]]
    for ax, (title, models) in zip(axes, corrupted.items(), strict=True):
        for i, (name, rows_of) in enumerate(models.items()):
            shown, colour = [clean[name], *rows_of], palette[i % len(palette)]
            low, high = np.array([row["accuracy_interval"] for row in shown]).T
            ax.fill_between(range(len(shown)), low, high, color=colour, alpha=0.2, lw=0)
            accuracy = [row["accuracy"] for row in shown]
            ax.plot(accuracy, "o-", color=colour, markersize=3, label=name)
        ax.set_title(title)
        ax.set_xticks(range(6))
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        ax.grid(axis="y")
    for ax in axes[::2]:
        ax.set_ylabel("accuracy")
    for ax in axes[-2:]:
        ax.set_xlabel("strength")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return axes


@style()
def group_bars(
    axes: Sequence[Axes] | None,
    groupings: Mapping[str, Mapping[str, Mapping[str, Measured]]],
    small: Mapping[str, Sequence[str]],
) -> list[Axes]:
    """Accuracy of each model on each group, with intervals and the number of images.

    Parameters
    ----------
    axes : one for each grouping; None makes a figure with one above the other
    groupings : by grouping, by model and by group; the models of a grouping have the same groups
    small : by grouping, the groups that are too small to be compared; they are hatched

    Returns
    -------
    the axes, one for each grouping
    """
    heights = [
        0.4 + (0.2 * len(models) + 0.1) * len(next(iter(models.values())))
        for models in groupings.values()
    ]
    if axes is None:
        figure = blank_figure(WIDTH, 0.7 + sum(heights))
        grid = figure.subplots(len(groupings), 1, sharex=True, squeeze=False, height_ratios=heights)
        axes = list(grid.flat)
    axes = [axis(ax) for ax in axes]
    for ax, (grouping, models) in zip(axes, groupings.items(), strict=True):
        _bars(ax, models, small.get(grouping, ()))
        ax.set_title(grouping)
    axes[-1].set_xlabel("accuracy")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return axes


def _bars(ax: Axes, models: Mapping[str, Mapping[str, Measured]], small: Sequence[str]) -> None:
    groups = list(next(iter(models.values())))
    thickness = 0.84 / len(models)
    for i, (name, found) in enumerate(models.items()):
        for place, group in enumerate(groups):
            y = place + (i - (len(models) - 1) / 2) * thickness
            row, colour, marked = found[group], palette[i % len(palette)], group in small
            ax.barh(
                y,
                row["accuracy"],
                0.9 * thickness,
                color="white" if marked else colour,
                edgecolor=colour,
                hatch="////" if marked else None,
                label=name if place == 0 else None,
            )
            ax.plot(row["accuracy_interval"], [y, y], "-|", color="black", lw=1, markersize=4)
            beside(ax, row["accuracy_interval"][1], y, f"{row['accuracy']:.1%}  (n = {row['n']:,})")
    ax.set_yticks(range(len(groups)), groups)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(groups) - 0.45, -0.55)
    ax.set_xlim(0, 1.35)  # room for the numbers, which are no part of the scale
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.grid(axis="x")
