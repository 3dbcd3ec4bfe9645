"""The research framework as a picture (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mien.errors import DataError
from mien.plots.style import FAINT, INK, PALE, axis, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Data understanding",
        ("images per class and split", "sample sheet", "copies, near-copies", "blank images"),
    ),
    (
        "Data preparation",
        ("resize, aspect ratio kept", "normalise", "augment each image", "balance the classes"),
    ),
    (
        "Modelling",
        ("VGG19, ResNet50, InceptionV3", "with and without CBAM", "cross-entropy", "L1 and L2"),
    ),
    (
        "Tuning",
        ("five hyperparameters", "three levels each", "grid or optimiser", "on validation alone"),
    ),
    (
        "Evaluation",
        ("accuracy with intervals", "cost of attention", "learning curves", "confusion matrices"),
    ),
    ("Deployment", ("report and tables", "weights of every run", "predictions", "new photos")),
)


@style()
def framework(
    ax: Axes | None = None,
    phases: Sequence[tuple[str, Sequence[str]]] = PHASES,
    not_run: Collection[str] = (),
) -> Axes:
    """The phases of the study from top to bottom, each with its parts (the paper's Fig. 4).

    Parameters
    ----------
    ax : where to draw; None makes a figure
    phases : for each phase its name and its parts, at most four
    not_run : names of the phases that this study left out; they are dashed and say so
    """
    if unknown := set(not_run) - {name for name, _ in phases}:
        raise DataError(f"the framework has no phase {', '.join(sorted(unknown))}")
    ax = axis(ax, height=0.8 * len(phases))
    ax.set_axis_off()
    ax.set_xlim(0, 10)
    ax.set_ylim(1.25 * len(phases) - 0.2, -0.05)
    for i, (name, parts) in enumerate(phases):
        _phase(ax, 1.25 * i, i + 1, name, parts, name not in not_run)
        if i + 1 < len(phases):
            ax.annotate(
                "",
                (1.7, 1.25 * i + 1.26),
                (1.7, 1.25 * i + 0.99),
                arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0},
            )
    return ax


def _phase(ax: Axes, y: float, number: int, name: str, parts: Sequence[str], run: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    line = "-" if run else (0, (3, 2))
    colour = palette[0] if run else FAINT
    for x, width, fill in ((0.1, 3.2, colour), (3.4, 6.5, PALE)):
        ax.add_patch(
            FancyBboxPatch(
                (x + 0.06, y + 0.06),
                width - 0.12,
                0.86,
                boxstyle="round,pad=0.06",
                facecolor=fill if run else "white",
                edgecolor=colour,
                linestyle=line,
                linewidth=0.8,
            )
        )
    ink = "white" if run else FAINT
    ax.text(
        1.7,
        y + (0.49 if run else 0.36),
        f"{number} {name}",
        ha="center",
        va="center",
        color=ink,
        fontweight="bold",
        fontsize=8,
    )
    if not run:
        ax.text(1.7, y + 0.68, "not run", ha="center", va="center", color=FAINT, fontsize=8)
    for i, part in enumerate(parts):
        column, row = divmod(i, 2)
        ax.text(
            3.6 + 3.65 * column,
            y + (0.28 + 0.42 * row if len(parts) > 1 else 0.49),
            part,
            va="center",
            fontsize=7.2,
            color=INK if run else FAINT,
        )
