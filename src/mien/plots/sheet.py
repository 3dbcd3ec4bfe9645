"""Sheets of images: samples, the steps of preparation, feature maps.

Images of a sheet are laid into one raster, at their own pixels: a hundred small pictures then
cost an SVG a few kilobytes, and a viewer scales them.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from mien.errors import DataError
from mien.plots.style import WIDTH, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUDGET = 240_000
"""Pixels a sheet may hold; from there on images are shrunk by whole factors. More would not be
seen at a sheet's size, and would make a report heavy."""


@style()
def sample_sheet(images: Sequence[np.ndarray], row_titles: Sequence[str]) -> Figure:
    """Images in rows, such as a row of examples of each class (the paper's Fig. 1).

    Parameters
    ----------
    images : for each row, ``[k, H, W]`` or ``[k, H, W, 3]`` of one size, uint8, or float in
        [0, 1]; rows may differ in k
    row_titles : name of each row
    """
    if not len(images) or len(images) != len(row_titles):
        raise DataError(f"{len(images)} rows of images for {len(row_titles)} titles")
    columns = max(len(row) for row in images)
    rows = [_shrink(_unit(row), len(images) * columns) for row in images]
    picture = np.concatenate([mosaic(row, columns) for row in rows])
    height = picture.shape[0] / len(rows)
    width = WIDTH - 0.2 - 0.064 * max(map(len, row_titles))  # beside the titles, in inches
    figure = blank_figure(WIDTH, width * picture.shape[0] / picture.shape[1] + 0.1)
    ax = figure.add_subplot()
    _show(ax, picture)
    ax.set_yticks((np.arange(len(rows)) + 0.5) * height - 0.5, list(row_titles))
    ax.tick_params(length=0)
    return figure


@style()
def steps_sheet(columns: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """The same images after each step of preparation, a column a step (the paper's Figs. 7-9).

    Under each column stand the size of its images and, for grey ones, a scale from the lowest
    to the highest value in it: a normalised image looks like the original, and only its scale
    tells them apart.

    Parameters
    ----------
    columns : for each step its title and its images ``[n, H, W]`` or ``[n, H, W, 3]``, of any
        size and range; n is the same for all
    """
    counts = {len(images) for _, images in columns}
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"the steps show {sorted(counts)} images; every step needs the same number")
    n, c = counts.pop(), len(columns)
    side = WIDTH / c
    figure = blank_figure(WIDTH, n * side + 0.6)
    grid = figure.subplots(2, c, squeeze=False, height_ratios=[n * side, 0.09])
    for (title, images), above, below in zip(columns, grid[0], grid[1], strict=True):
        images = np.asarray(images)
        h, w = images.shape[1:3]
        grey = images.ndim == 3
        low, high = (float(images.min()), float(images.max())) if grey else (0.0, 1.0)
        if images.dtype == np.uint8:
            low, high = 0.0, 255.0
        shown = _shrink(images if grey else _unit(images), n * c)
        shown = shown.astype(np.float32)
        if grey:
            shown = (shown - low) / ((high - low) or 1)
        _show(above, mosaic(shown, 1))
        above.set_anchor("S")
        title = fill(title, max(8, round(13 * side)))
        above.set_title(title, fontsize=8, fontweight="normal", loc="center")
        below.set_xlabel(f"{h}×{w}", fontsize=7.5, labelpad=2)
        if grey:
            ramp = np.linspace(0, 1, 64)[None]
            below.imshow(ramp, cmap="gray", aspect="auto", extent=(0, 1, 0, 1))
            below.set_xticks([0, 1], [_number(low), _number(high)], fontsize=6.5)
            left, right = below.get_xticklabels()
            left.set_ha("left")
            right.set_ha("right")
        else:
            below.spines[:].set_visible(False)
            below.set_xticks([])
        below.tick_params(length=0, pad=2)
        below.set_yticks([])
    return figure


@style()
def feature_sheet(maps: np.ndarray, title: str = "") -> Figure:
    """Feature maps of one image in a grid, each on a scale from its own lowest to highest value.

    Parameters
    ----------
    maps : float ``[K, h, w]``
    title : which layer they come from
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3 or not len(maps):
        raise DataError(f"feature maps must be [K, h, w], not {list(maps.shape)}")
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    scaled = (maps - low) / np.where(high > low, high - low, 1)
    columns = min(len(maps), max(4, round(np.sqrt(2 * len(maps)))))
    picture = mosaic(_shrink(scaled, len(scaled)), columns)
    figure = blank_figure(WIDTH, WIDTH * picture.shape[0] / picture.shape[1] + 0.3)
    ax = figure.add_subplot()
    _show(ax, picture, cmap="viridis")
    ax.set_title(title)
    return figure


def mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images ``[n, H, W(, 3)]`` into a grid, row by row, with a margin right and below each.

    Returns
    -------
    float ``[rows * (H + gap), columns * (W + gap)(, 3)]``; NaN where there is no image
    """
    n, h, w, *rest = images.shape
    gap = max(1, h // 24)
    rows = -(-n // columns)
    tiles = np.full((rows * columns, h + gap, w + gap, *rest), np.nan, np.float32)
    tiles[:n, :h, :w] = images
    tiles = tiles.reshape(rows, columns, h + gap, w + gap, *rest).swapaxes(1, 2)
    return tiles.reshape(rows * (h + gap), columns * (w + gap), *rest)


def _show(ax: Axes, picture: np.ndarray, cmap: str = "gray") -> None:
    if picture.ndim == 3:
        picture = np.nan_to_num(picture, nan=1.0)  # RGB rasters have no colour for 'nothing here'
    # 'none' keeps a vector file at the picture's own pixels.
    ax.imshow(picture, cmap=cmap, vmin=0, vmax=1, interpolation="none")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _unit(images: np.ndarray) -> np.ndarray:
    """Images as float in [0, 1]."""
    images = np.asarray(images)
    return images / np.float32(255) if images.dtype == np.uint8 else images


def _shrink(images: np.ndarray, n: int) -> np.ndarray:
    """Average blocks of pixels until `n` images of this size are within the budget."""
    h, w = images.shape[1:3]
    k = int(np.ceil(np.sqrt(n * h * w / BUDGET)))
    if k == 1:
        return images
    whole = images[:, : h // k * k, : w // k * k]
    return whole.reshape(len(images), h // k, k, w // k, k, *images.shape[3:]).mean(axis=(2, 4))


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.2g}"
