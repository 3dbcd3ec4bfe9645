"""A figure of the report: a drawing with its name and its words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mien import plots
from mien.runs.atomic import instead_of_earlier

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Figure:
    """A drawing with its name in files, its caption, and what it shows in one sentence."""

    name: str
    caption: str
    alt: str
    drawing: Drawing


def write_figures(figures: Iterable[Figure], folder: Path) -> None:
    """Write each figure as SVG and PDF; those that an earlier result left are removed."""
    figures = list(figures)
    names = [f"{figure.name}{ending}" for figure in figures for ending in (".svg", ".pdf")]
    with instead_of_earlier(folder, names):
        for figure in figures:
            plots.save(figure.drawing, folder / figure.name)
