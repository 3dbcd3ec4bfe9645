"""How a generator's training went, and how its faces compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.plots.bars import class_values
from mien.plots.style import FAINT, WIDTH, axis, blank_figure, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@style()
def generator_curves(
    axes: Sequence[Axes] | None, log: Sequence[Mapping[str, Any]], least: float
) -> tuple[Axes, Axes]:
    """Losses of both networks, and how far the faces of each class differ, by epoch.

    Parameters
    ----------
    axes : two axes; None makes a figure with one above the other
    log : rows with ``epoch``, ``loss`` (the generator's), ``loss_discriminator`` and ``diversity``
        (a number a class, 1 where generated faces differ as much as real ones)
    least : the diversity below which a class counts as collapsed
    """
    if axes is None:
        axes = list(blank_figure(WIDTH, 4.4).subplots(2, 1, sharex=True))
    losses, diversity = (axis(ax) for ax in axes)
    finite = [row for row in log if row["loss"] is not None]
    epochs = [row["epoch"] for row in finite]
    for number, (key, name) in enumerate(
        (("loss_discriminator", "discriminator"), ("loss", "generator"))
    ):
        losses.plot(epochs, [row[key] for row in finite], color=palette[number], label=name)
    losses.set_ylabel("loss")
    losses.legend()
    values = np.array([row["diversity"] for row in finite], float).reshape(len(finite), -1)
    if values.size:
        low, high = values.min(1), values.max(1)
        diversity.fill_between(epochs, low, high, color=palette[2], alpha=0.25, linewidth=0)
        diversity.plot(epochs, values.mean(1), color=palette[2])
    diversity.axhline(least, color=FAINT, linestyle=":", linewidth=1)
    diversity.set_ylabel("diversity of the faces\n(1: as the real ones)")
    diversity.set_xlabel("epoch")
    for ax in (losses, diversity):
        ax.grid(axis="y")
    return losses, diversity


@style()
def generator_quality(
    axes: Sequence[Axes] | None,
    distance: Mapping[str, np.ndarray],
    agreement: Mapping[str, np.ndarray],
    classes: Sequence[str],
) -> tuple[Axes, Axes]:
    """Distance from real faces and agreement with the class asked for, class by class.

    Parameters
    ----------
    axes : two axes; None makes a figure with one above the other
    distance : KID times 1,000, ``[C]``, of generated faces and of real ones; NaN where not taken
    agreement : shares ``[C]`` in [0, 1], likewise
    classes : names of the classes
    """
    if axes is None:
        height = 1.0 + (0.16 * len(agreement) + 0.08) * len(classes)
        axes = list(blank_figure(WIDTH, 2 * height).subplots(2, 1))

    def number(_: str, value: float) -> str:
        return "too few" if np.isnan(value) else f"{value:,.1f}"

    def share(_: str, value: float) -> str:
        return "none" if np.isnan(value) else f"{value:.0%}"

    above = class_values(axes[0], distance, classes, number)
    above.set_xlabel("KID x 1,000 (lower is better; real faces are the floor)")
    below = class_values(axes[1], agreement, classes, share)
    below.set_xlabel("taken by the classifier for the class asked for")
    below.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    return above, below
