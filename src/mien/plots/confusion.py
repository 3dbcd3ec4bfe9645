"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mien.errors import DataError
from mien.plots.style import axis, figure_of, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@style()
def confusion_matrix(
    ax: Axes | None, confusion: np.ndarray, classes: Sequence[str], title: str = ""
) -> Axes:
    """A confusion matrix: colour and percentage are shares of the true class, below the count.

    Type follows the size of the cells, so that six matrices in a grid of three by two (the
    paper's Fig. 16) stay readable.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    confusion : int ``[C, C]``, rows are the true classes
    classes : names of the classes
    title : name of the model
    """
    confusion, c = np.asarray(confusion), len(classes)
    if confusion.shape != (c, c):
        raise DataError(f"a confusion matrix of {list(confusion.shape)} does not fit {c} classes")
    ax = axis(ax, width=4.4, height=4.3)
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.zeros((c, c)), where=support > 0)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(c) - 0.5, minor=True)
    ax.set_yticks(np.arange(c) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.2)
    ax.tick_params(which="both", length=0)

    # Cells are square; the labels take about a fifth of the axis once it is laid out.
    cell = 0.8 * 72 / figure_of(ax).dpi * min(ax.bbox.width, ax.bbox.height) / c
    large, small = min(9.0, 0.36 * cell), min(7.0, 0.28 * cell)
    for row in range(c):
        for col in range(c):
            ink = "white" if shares[row, col] > 0.5 else "#222222"
            percent = f"{shares[row, col]:.0%}" if support[row, 0] else "–"
            ax.text(col, row - 0.14, percent, ha="center", va="center", fontsize=large, color=ink)
            ax.text(
                col, row + 0.24, f"{confusion[row, col]:,}", ha="center", va="center",
                fontsize=small, color=ink,
            )  # fmt: skip
    label = min(8.0, 0.36 * cell + 1)
    ax.set_xticks(range(c), classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(c), classes)
    ax.tick_params(labelsize=label)
    ax.set_xlabel("predicted", fontsize=label + 0.5)
    ax.set_ylabel("true", fontsize=label + 0.5)
    ax.set_title(title, fontsize=min(9.5, label + 2))
    return ax
