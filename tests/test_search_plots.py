from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien import plots
from mien.errors import DataError
from mien.plots.search import halving_funnel, importance_bars, parallel_coordinates, slice_plot

RUNGS = ["1 epoch", "3 epochs"]


def trial(number: int, rung: int, value: float | None, **setting: Any) -> dict[str, Any]:
    return {"number": number, "rung": rung, "value": value, "setting": setting}


LOW = [
    trial(0, 0, 0.30, lr=0.1, optimiser="sgd", l2=1e-3),
    trial(1, 0, 0.50, lr=0.01, optimiser="adam", l2=1e-3),
    trial(2, 0, 0.40, lr=0.01, optimiser="sgd", l2=1e-3),
    trial(3, 0, None, lr=0.1, optimiser="adam", l2=1e-3),
]
ALL = [*LOW, trial(1, 1, 0.6, lr=0.01, optimiser="adam", l2=1e-3)]
DISPLAYS = {
    "parallel": lambda ax: parallel_coordinates(ax, LOW),
    "slice": lambda ax: slice_plot(ax, LOW, "lr"),
    "importance": lambda ax: importance_bars(ax, {"lr": 0.75, "batch_size": 0.25}),
    "funnel": lambda ax: halving_funnel(ax, ALL, RUNGS),
}


def texts(ax: Axes) -> list[str]:
    found = [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()]
    return [text.get_text() for text in found]


def test_each_trial_is_a_line_through_its_values_and_the_best_stands_out() -> None:
    ax = parallel_coordinates(None, LOW)
    lines = [line for line in ax.lines if len(line.get_xdata()) == 4]
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in lines}
    assert drawn == {(1, 1, 0.5, 0), (0, 0, 0.5, 1), (0, 1, 0.5, 0.5)}
    (best,) = [line for line in lines if line.get_linewidth() == 2]
    assert best.get_ydata()[-1] == 1
    chosen = parallel_coordinates(None, LOW, chosen=2).lines
    (other,) = [line for line in chosen if line.get_linewidth() == 2]
    assert tuple(np.round(other.get_ydata(), 9)) == (0, 1, 0.5, 0.5)
    assert {"lr", "optimiser", "l2", "accuracy", "0.01", "0.1", "sgd", "50.0%"} <= set(texts(ax))


def test_values_over_many_orders_are_placed_by_their_ratios() -> None:
    wide = [trial(i, 0, i / 10, lr=10.0**-i, flip=i / 10) for i in range(9)]
    ax = parallel_coordinates(None, wide)
    heights = sorted(line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 3)
    np.testing.assert_allclose(heights, np.linspace(0, 1, 9))
    ax = slice_plot(None, wide, "lr")
    assert ax.get_xscale() == "log"
    assert "0.01" in texts(ax)
    assert slice_plot(None, wide, "flip").get_xscale() == "linear"


def test_a_slice_has_a_point_for_each_trial_and_the_mean_of_each_level() -> None:
    ax = slice_plot(None, LOW, "lr")
    np.testing.assert_allclose(
        np.sort(ax.collections[0].get_offsets().data, axis=0), [[0, 0.3], [0, 0.4], [1, 0.5]]
    )
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.45, 0.3])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.01", "0.1"]
    with pytest.raises(DataError, match="no parameter 'rate' among lr, optimiser, l2"):
        slice_plot(None, LOW, "rate")


def test_importance_is_drawn_from_the_greatest_down() -> None:
    ax = importance_bars(None, {"batch_size": 0.25, "lr": 0.75})
    assert [bar.get_width() for bar in ax.patches] == [0.75, 0.25]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["lr", "batch size"]
    assert "75%" in texts(ax)


def test_a_funnel_shows_how_many_were_promoted_and_the_best_of_the_top() -> None:
    ax = halving_funnel(None, ALL, RUNGS)
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        "1 epoch\n3 settings", "3 epochs\n1 settings",
    ]  # fmt: skip
    paths = [line.get_xydata().tolist() for line in ax.lines]
    assert [[0, 0.5], [1, 0.6]] in paths
    assert len(paths) == 3


@pytest.mark.parametrize("name", DISPLAYS)
def test_every_display_draws_on_the_axis_it_is_given_and_fits_a_page(name: str) -> None:
    ax = Figure().add_subplot()
    assert DISPLAYS[name](ax) is ax
    ElementTree.fromstring(plots.svg_text(DISPLAYS[name](None).figure, name))


def test_trials_that_all_failed_are_refused() -> None:
    with pytest.raises(DataError, match="no trial has a value"):
        parallel_coordinates(None, LOW[3:])
