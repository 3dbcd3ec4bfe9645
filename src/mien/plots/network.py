"""Diagrams of networks, drawn from the built model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import TYPE_CHECKING, Any

from mien.errors import DataError
from mien.plots.style import ATTENTION, FAINT, INK, PALE, axis, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX = dict(edgecolor=INK, linewidth=0.7)
GAP = 0.42


@style()
def network(ax: Axes | None, rows: Sequence[Mapping[str, Any]], title: str = "") -> Axes:
    """A network from input to output, a box for each stage (the paper's Figs. 10-12).

    The width of a box tells the size of its maps and its height their number, both on a
    logarithmic scale; an orange band under it is its attention.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    rows : for each stage ``name``, ``kind``, ``shape`` (C, h, w) or (C,), ``parameters``,
        ``attention`` (``"none"`` where there is none) and ``blocks``
    title : name of the model
    """
    if not rows:
        raise DataError("a network diagram needs at least one stage")
    shapes = [(*row["shape"], 1, 1)[:3] for row in rows]
    widest = max(log2(1 + shape[2]) for shape in shapes)
    deepest = max(log2(1 + shape[0]) for shape in shapes)
    heights = [0.45 + 0.55 * log2(1 + shape[0]) / deepest for shape in shapes]
    ax = axis(ax, height=0.6 + 0.42 * (sum(heights) + GAP * len(rows)))
    ax.set_axis_off()
    ax.set_title(title)
    middle, y = 2.0, 0.0
    for i, (row, shape, height) in enumerate(zip(rows, shapes, heights, strict=True)):
        width = 0.3 + 3.5 * log2(1 + shape[2]) / widest
        if i:
            _arrow(ax, (middle, y - GAP), (middle, y))
        attended = row["attention"] != "none"
        _box(ax, middle - width / 2, y, width, height, palette[5])
        if attended:
            _box(ax, middle - width / 2, y + height - 0.2, width, 0.2, ATTENTION)
        _describe(ax, y + height / 2, row, attended)
        y += height + GAP
    key = "width: size of the maps, height: channels (log scale)"
    if any(row["attention"] != "none" for row in rows):
        key += "; orange: attention"
    ax.text(0, y, key, fontsize=7, color=FAINT, va="center")
    ax.set_xlim(0, 10)
    ax.set_ylim(y + 0.15, -0.1)
    return ax


@style()
def cbam_diagram(ax: Axes | None, channels: int, hidden: int, size: int) -> Axes:
    """The convolutional block attention module at one place of a network (the paper's Fig. 3).

    Parameters
    ----------
    ax : where to draw; None makes a figure
    channels : channels of the maps
    hidden : width of the shared perceptron, `channels` / reduction ratio
    size : height and width of the maps in pixels

    References
    ----------
    Woo et al., "CBAM: Convolutional block attention module", ECCV 2018, Figs. 1-2.
    """
    ax = axis(ax, height=4.0)
    ax.set_axis_off()
    ax.set_xlim(0, 10)
    ax.set_ylim(7.3, 0)
    maps, vector, plane = f"{channels}×{size}×{size}", f"{channels}×1×1", f"1×{size}×{size}"
    _gate(
        ax,
        0.0,
        "1  Channel attention: which maps matter",
        ("maps", maps),
        (("mean over space", vector), ("max over space", vector)),
        ("shared perceptron", f"{channels} → {hidden} → {channels}"),
        "+",
    )
    _gate(
        ax,
        3.75,
        "2  Spatial attention: where they matter",
        ("scaled maps", maps),
        (("mean over channels", plane), ("max over channels", plane)),
        ("7×7 convolution", "2 → 1 channels"),
        None,
    )
    # The scaled maps of the first gate are the input of the second.
    ax.plot([9.6, 9.6, 0.1, 0.1], [2.12, 3.35, 3.35, 5.62], color=FAINT, linewidth=0.9)
    _arrow(ax, (0.1, 5.62), (0.4, 5.62))
    _arrow(ax, (9.6, 5.87), (9.6, 6.6))
    ax.text(10, 6.9, f"attended maps {maps}", ha="right", va="center", fontsize=7.5)
    return ax


def _gate(
    ax: Axes,
    y: float,
    title: str,
    source: tuple[str, str],
    pools: Sequence[tuple[str, str]],
    layer: tuple[str, str],
    join: str | None,
) -> None:
    """One attention gate in a lane: pool twice, transform, squash, multiply with the input."""
    middle = y + 1.87
    ax.text(0.4, y + 0.15, title, fontweight="bold", fontsize=8.5, va="center")
    _label_box(ax, 0.4, middle, 1.55, source, PALE)
    for pool, place in zip(pools, (middle - 0.62, middle + 0.62), strict=True):
        _label_box(ax, 2.4, place, 2.3, pool, "white")
        _arrow(ax, (1.95, middle), (2.4, place))
        _arrow(ax, (4.7, place), (5.15, middle))
    _label_box(ax, 5.15, middle, 2.15, layer, palette[5])
    marks = [*([(7.85, join, "white")] if join else []), (8.65, "σ", ATTENTION)]
    end = 7.3
    for x, text, colour in [*marks, (9.6, "×", "white")]:
        _arrow(ax, (end, middle), (x - 0.27, middle))
        ax.text(
            x,
            middle,
            text,
            ha="center",
            va="center",
            fontsize=9,
            color="white" if colour == ATTENTION else INK,
            bbox={"boxstyle": "circle,pad=0.22", "facecolor": colour, **BOX},
        )
        end = x + 0.27
    # The input itself goes over the gate to the product.
    top = middle - 1.27
    ax.plot([1.17, 1.17, 9.6], [middle - 0.4, top, top], color=FAINT, linewidth=0.9)
    _arrow(ax, (9.6, top), (9.6, middle - 0.27))


def _describe(ax: Axes, y: float, row: Mapping[str, Any], attended: bool) -> None:
    blocks = f"{row['blocks']} × " if row["blocks"] > 1 else ""
    shape = " × ".join(f"{n:,}" for n in row["shape"])
    parameters = f"{row['parameters']:,} parameters" if row["parameters"] else "no parameters"
    ax.text(4.25, y - 0.2, row["name"], fontsize=8.5, fontweight="bold", va="center")
    ax.text(10, y - 0.2, f"{blocks}{row['kind']}", fontsize=8, va="center", ha="right")
    ax.text(4.25, y + 0.22, f"{shape},  {parameters}", fontsize=7.2, va="center")
    if attended:
        ax.text(
            10,
            y + 0.22,
            row["attention"].upper(),
            fontsize=7.5,
            fontweight="bold",
            color=ATTENTION,
            va="center",
            ha="right",
        )


def _box(ax: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), width, height, facecolor=colour, **BOX))  # type: ignore[arg-type]


def _label_box(
    ax: Axes, x: float, middle: float, width: float, lines: tuple[str, str], colour: str
) -> None:
    _box(ax, x, middle - 0.43, width, 0.86, colour)
    for text, dy, size in zip(lines, (-0.18, 0.2), (7, 6.6), strict=True):
        ax.text(x + width / 2, middle + dy, text, ha="center", va="center", fontsize=size)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": FAINT,
            "linewidth": 0.9,
            "mutation_scale": 7,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
