"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.metrics.learning import column
from mien.plots.style import FAINT, WIDTH, axis, blank_figure, figure_of, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_SCALE_FROM = 50
"""Largest over smallest loss from which the loss axis is logarithmic: penalties summed over
millions of weights start hundreds of times above the cross-entropy."""


@style()
def learning_curves(
    axes: Sequence[Axes] | None, logs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[Axes, Axes]:
    """Loss and accuracy by epoch, training (dashed) and validation (the paper's Figs. 13-15).

    Parameters
    ----------
    axes : two axes, for loss and accuracy; None makes a figure with one above the other
    logs : for each model the rows of its log, with ``epoch``, ``loss``, ``accuracy``,
        ``validation_loss`` and ``validation_accuracy`` (None or NaN where not measured)

    Returns
    -------
    the axes of loss and accuracy
    """
    from matplotlib.ticker import MaxNLocator

    if axes is None:
        axes = list(blank_figure(WIDTH, 5.4).subplots(2, 1, sharex=True))
    loss, accuracy = (axis(ax) for ax in axes)
    for ax, key in ((loss, "loss"), (accuracy, "accuracy")):
        ends = []
        for i, (name, log) in enumerate(logs.items()):
            colour = palette[i % len(palette)]
            epochs = column(log, "epoch")
            training, validation = column(log, key), column(log, f"validation_{key}")
            ax.plot(epochs, training, "--", color=colour, linewidth=1.1, alpha=0.8)
            ax.plot(epochs, validation, color=colour)
            shown = validation if np.isfinite(validation).any() else training
            if np.isfinite(shown).any():
                last = np.flatnonzero(np.isfinite(shown))[-1]
                ends.append((name, epochs[last], shown[last], colour))
        if key == "loss":
            _scale(ax, logs)
        ax.set_ylabel(key)
        ax.grid(axis="y")
        ax.set_xmargin(0.01)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_ends(ax, ends)
    accuracy.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.4g}%")
    accuracy.set_xlabel("epoch")
    if not accuracy.get_shared_x_axes().joined(loss, accuracy):
        loss.set_xlabel("epoch")
    _line_key(loss)
    return loss, accuracy


def _scale(ax: Axes, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    losses = np.concatenate(
        [column(log, key) for log in logs.values() for key in ("loss", "validation_loss")]
        or [np.empty(0)]
    )
    losses = losses[np.isfinite(losses) & (losses > 0)]
    if len(losses) and losses.max() > LOG_SCALE_FROM * losses.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")


def _name_ends(ax: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """The name of each model right of where its curve ends, moved apart where they would meet."""
    if not ends:
        return
    ax.autoscale_view()
    size = 8.0
    height = ax.bbox.height * 72 / figure_of(ax).dpi
    place = ax.transData.transform([(x, y) for _, x, y, _ in ends])[:, 1]
    shares = (place - ax.bbox.y0) / ax.bbox.height
    for (name, _, _, colour), y in zip(ends, spread(shares, 1.35 * size / height), strict=True):
        ax.annotate(
            name,
            (1, y),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=size,
            color=colour,
        )


def _line_key(ax: Axes) -> None:
    from matplotlib.lines import Line2D

    ax.legend(
        handles=[
            Line2D([], [], color=FAINT, label="validation"),
            Line2D([], [], color=FAINT, linestyle="--", linewidth=1.1, label="training"),
        ],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        borderaxespad=0.2,
    )


def spread(values: np.ndarray, gap: float) -> np.ndarray:
    """Move values as little as possible (in squares) until all lie at least `gap` apart.

    With the gaps taken off, that is isotonic regression.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(values))
    moved = np.empty(len(values))
    moved[order] = steps + isotonic_regression(values[order] - steps).x
    return moved
