"""Expressions of faces over the time of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mien.plots.style import WIDTH, axis, blank_figure, palette, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style()
def expression_timeline(
    faces: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
) -> Figure:
    """Probabilities of each class over time as a stacked area, one panel a face.

    Parameters
    ----------
    faces : for each name, starts and ends in seconds ``[n, 2]``, in order, and the mean
        probabilities in between ``[n, C]``; nothing is drawn where no span lies
    classes : names of the C classes
    """
    figure = blank_figure(WIDTH, 0.9 + 0.85 * len(faces))
    panels = figure.subplots(len(faces), 1, sharex=True, squeeze=False)[:, 0]
    colours = [palette[i % len(palette)] for i in range(len(classes))]
    for ax, (name, (spans, probabilities)) in zip(panels, faces.items(), strict=True):
        axis(ax)
        times, heights = steps(spans, probabilities)
        ax.stackplot(times, heights.T, colors=colours, labels=classes, linewidth=0)
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 1])
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.set_xmargin(0)
    panels[-1].set_xlabel("seconds")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4, handlelength=1)
    return figure


def steps(spans: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a curve that is level within each span, and 0 where a gap lies between two.

    Parameters
    ----------
    spans : starts and ends, ``[n, 2]``, in order
    heights : in each span, ``[n, C]``

    Returns
    -------
    times ``[m]`` and heights ``[m, C]``
    """
    times, corners, none = [], [], np.zeros(heights.shape[1])
    for i, ((start, end), height) in enumerate(zip(spans, heights, strict=True)):
        if i and start > spans[i - 1, 1] + 1e-6:
            times += [spans[i - 1, 1], start]
            corners += [none, none]
        times += [start, end]
        corners += [height, height]
    return np.array(times), np.array(corners).reshape(-1, heights.shape[1])
