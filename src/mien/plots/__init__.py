"""Displays that draw on a given axis and return it; matplotlib is imported when one draws."""

from mien.plots.bars import accuracy_bars, class_bars, cost_scatter, recall_bars
from mien.plots.confusion import confusion_matrix
from mien.plots.curves import learning_curves
from mien.plots.framework import framework
from mien.plots.generator import generator_curves, generator_quality
from mien.plots.network import cbam_diagram, network
from mien.plots.search import (
    halving_funnel,
    importance_bars,
    parallel_coordinates,
    slice_plot,
)
from mien.plots.sheet import feature_sheet, sample_sheet, steps_sheet
from mien.plots.style import palette, save, style, svg_text

__all__ = [
    "accuracy_bars",
    "cbam_diagram",
    "class_bars",
    "confusion_matrix",
    "cost_scatter",
    "feature_sheet",
    "framework",
    "generator_curves",
    "generator_quality",
    "halving_funnel",
    "importance_bars",
    "learning_curves",
    "network",
    "palette",
    "parallel_coordinates",
    "recall_bars",
    "sample_sheet",
    "save",
    "slice_plot",
    "steps_sheet",
    "style",
    "svg_text",
]
