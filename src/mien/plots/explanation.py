"""Where a network looks: faces beside maps of them, CBAM's gates, and how faithful maps are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mien.errors import DataError
from mien.plots.sheet import mosaic
from mien.plots.style import FAINT, WIDTH, axis, beside, blank_figure, palette, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT = "inferno"
"""Its lightness rises all the way, so it reads in grey and with every colour vision."""

LAID_OVER = 0.55
"""Share of the map in a face that it is laid over."""


@style()
def map_sheet(
    faces: np.ndarray,
    maps: Mapping[str, np.ndarray],
    row_titles: Sequence[str],
) -> Figure:
    """Faces beside the maps of each method, laid over them; a row a face.

    Parameters
    ----------
    faces : uint8 ``[n, H, W]`` or ``[n, H, W, 3]``
    maps : for each method uint8 ``[n, H, W]``, 255 at the place that matters most
    row_titles : what stands beside each face
    """
    from matplotlib import colormaps

    n, columns = len(faces), 1 + len(maps)
    for name, found in maps.items():
        if found.shape != faces.shape[:3]:
            raise DataError(f"{name}: maps {list(found.shape)} for faces {list(faces.shape)}")
    if not n or n != len(row_titles):
        raise DataError(f"{n} faces for {len(row_titles)} titles of rows")
    side = (WIDTH - 1) / columns
    figure = blank_figure(WIDTH, n * side + 0.55)
    grid = figure.subplots(2, columns, squeeze=False, height_ratios=[n * side, 0.07])
    grey = faces.astype(np.float32) / 255
    colour = grey if grey.ndim == 4 else np.repeat(grey[..., None], 3, 3)
    heat = colormaps[HEAT]
    shown = {"face": colour}
    for name, found in maps.items():
        shown[name] = (1 - LAID_OVER) * colour + LAID_OVER * heat(found)[..., :3]
    for (name, images), above, below in zip(shown.items(), grid[0], grid[1], strict=True):
        picture = np.nan_to_num(mosaic(images, 1), nan=1.0)
        above.imshow(picture, interpolation="none")
        above.set_xticks([])
        above.set_yticks([])
        above.spines[:].set_visible(False)
        above.set_anchor("S")
        above.set_title(name, fontsize=8, fontweight="normal", loc="center")
        if name == "face":
            height = picture.shape[0] / n
            above.set_yticks((np.arange(n) + 0.5) * height - 0.5, list(row_titles))
            above.tick_params(length=0)
            below.set_axis_off()
            continue
        ramp = np.linspace(0, 1, 64)[None]
        below.imshow(ramp, cmap=HEAT, aspect="auto", extent=(0, 1, 0, 1))
        below.set_xticks([0, 1], ["least", "most"], fontsize=6.5)
        left, right = below.get_xticklabels()
        left.set_ha("left")
        right.set_ha("right")
        below.set_yticks([])
        below.spines[:].set_visible(False)
        below.tick_params(length=0, pad=2)
    return figure


@style()
def gate_sheet(
    names: Sequence[str],
    spatial: Sequence[np.ndarray],
    channel: Sequence[np.ndarray],
) -> Figure:
    """CBAM's spatial gates as maps above its channel gates in rising order, a column a module.

    Each map goes from its own lowest to its highest value, which stand below it; the channels
    share one scale from 0 to 1, where a gate that learned nothing lies where it started.

    Parameters
    ----------
    names : of the modules
    spatial : ``[h, w]`` of each, in (0, 1)
    channel : ``[C]`` of each, in (0, 1)
    """
    if not names:
        raise DataError("there are no gates to draw; the network has no CBAM")
    side = WIDTH / len(names)
    figure = blank_figure(WIDTH, 2.0 * side + 0.9)
    grid = figure.subplots(2, len(names), squeeze=False)
    for name, where, which, above, below in zip(names, spatial, channel, *grid, strict=True):
        above.imshow(where, cmap=HEAT, interpolation="none")
        above.set_xticks([])
        above.set_yticks([])
        above.set_title(name, fontsize=7.5, fontweight="normal", loc="center")
        above.set_xlabel(f"{where.min():.2f} to {where.max():.2f}", fontsize=7)
        below.plot(np.linspace(0, 1, len(which)), np.sort(which), color=palette[0])
        below.set_ylim(0, 1)
        below.set_xticks([])
        below.set_xlabel(f"{len(which)} channels", fontsize=7)
        below.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if below is grid[1][0] else [])
        below.grid(axis="y")
    grid[1][0].set_ylabel("channel gate")
    return figure


@style()
def faithfulness_bars(
    ax: Axes | None,
    deletion: Mapping[str, float],
    insertion: Mapping[str, float],
    baselines: Sequence[str],
) -> Axes:
    """Insertion (right, higher is better) and deletion (lower) of each kind of map.

    Parameters
    ----------
    ax : where to draw; None makes a figure
    deletion, insertion : mean probabilities in [0, 1] by method, the baselines among them
    baselines : methods that know nothing of the network; hatched
    """
    if list(deletion) != list(insertion):
        raise DataError("deletion and insertion need the same methods in the same order")
    ax = axis(ax, height=0.9 + 0.4 * len(deletion))
    for row, name in enumerate(deletion):
        for place, (kind, values) in enumerate((("insertion", insertion), ("deletion", deletion))):
            y, value = row + 0.38 * (place - 0.5), values[name]
            blind = name in baselines
            ax.barh(
                y,
                value,
                0.34,
                color="white" if blind else palette[place],
                edgecolor=palette[place],
                hatch="////" if blind else None,
            )
            beside(ax, value, y, f"{value:.3f} {kind}")
    ax.set_yticks(range(len(deletion)), list(deletion))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(deletion) - 0.5, -0.5)
    ax.set_xlim(0, 1.35 * max([*deletion.values(), *insertion.values()]))
    ax.set_xlabel("mean probability of the predicted class")
    ax.grid(axis="x")
    for name in baselines:
        if name in deletion:
            ax.get_yticklabels()[list(deletion).index(name)].set_color(FAINT)
    return ax
