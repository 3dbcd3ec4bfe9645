"""The displays: what stands in them, and that their files are the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize

from mien import plots
from mien.errors import DataError, RunError
from mien.plots.curves import spread
from mien.plots.robustness import group_bars

CLASSES = ("angry", "disgust", "fear")
COUNTS = {"Training": np.array([3995, 436, 4097]), "PublicTest": np.array([467, 56, 496])}
STAGES = [
    {"name": "stem", "kind": "convolution", "shape": (64, 24, 24), "parameters": 704,
     "attention": "none", "blocks": 1},
    {"name": "layer1", "kind": "bottleneck", "shape": (256, 12, 12), "parameters": 215808,
     "attention": "cbam", "blocks": 3},
    {"name": "head", "kind": "linear", "shape": (7,), "parameters": 1799,
     "attention": "none", "blocks": 1},
]  # fmt: skip


def texts(ax: Axes) -> set[str]:
    """All that an axis says: labels, names of ticks, title and text."""
    found = {*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label, ax.get_title(loc="left")}
    found |= {*ax.get_xticklabels(), *ax.get_yticklabels()}
    if legend := ax.get_legend():
        found |= set(legend.get_texts())
    return {t if isinstance(t, str) else t.get_text() for t in found}


def log(n: int, validated: bool = True, scale: float = 1.0) -> list[dict]:
    return [
        {"epoch": e, "loss": scale * 2 / e, "accuracy": 1 - 1 / (e + 1),
         "validation_loss": 1 + 1 / e if validated else None,
         "validation_accuracy": 0.6 - 0.3 / e if validated else None}
        for e in range(1, n + 1)
    ]  # fmt: skip


def test_class_bars_are_as_long_as_the_counts_and_say_them_with_their_shares() -> None:
    ax = plots.class_bars(None, COUNTS, CLASSES)
    assert [bar.get_width() for bar in ax.patches] == [3995, 436, 4097, 467, 56, 496]
    assert {*CLASSES, *COUNTS, "3,995  (46.8%)", "56  (5.5%)"} <= texts(ax)


def test_bars_of_a_split_with_another_number_of_classes_are_refused() -> None:
    with pytest.raises(DataError, match="Training has 2 values for 3 classes"):
        plots.class_bars(None, {"Training": np.array([1, 2])}, CLASSES)


def test_a_class_without_images_has_no_recall_but_says_why() -> None:
    ax = plots.recall_bars(
        None, {"VGG19": np.array([0.5, np.nan, 1]), "VGG19-CBAM": np.array([0.6, 0.25, 1])}, CLASSES
    )
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0, 1, 0.6, 0.25, 1]
    assert {"no images", "25.0%", "VGG19", "VGG19-CBAM"} <= texts(ax)


def test_published_accuracies_are_marked_and_ours_have_their_intervals() -> None:
    rows = [
        {"name": "VGG19", "accuracy": 0.62, "interval": (0.604, 0.636)},
        {"name": "AlexNet", "accuracy": 0.643, "published": True},
    ]
    ax = plots.accuracy_bars(None, rows)
    ours, published = ax.patches
    assert (ours.get_width(), published.get_width()) == (0.62, 0.643)
    assert published.get_hatch()
    assert not ours.get_hatch()
    assert {"62.0%  (60.4 to 63.6)", "64.3%  published", "VGG19", "AlexNet"} <= texts(ax)
    assert [0.604, 0.636] in [list(line.get_xdata()) for line in ax.lines]
    assert ax.get_xlim()[0] == 0  # bars that did not start at 0 would lie


def test_the_cost_scatter_puts_each_model_at_its_cost_and_names_it_beside() -> None:
    names, cost, accuracy = ["VGG19", "ResNet50"], [1.4e8, 9e7], [0.62, 0.6]
    ax = plots.cost_scatter(None, names, cost, accuracy, [(0.6, 0.64), (0.58, 0.62)])
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), np.column_stack([cost, accuracy]))
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.texts] == names


def test_names_of_models_at_nearly_the_same_place_do_not_cover_each_other() -> None:
    names = ["ResNet50", "ResNet50-CBAM", "ResNet50-SE"]
    ax = plots.cost_scatter(None, names, [9e7, 9.05e7, 9.02e7], [0.6, 0.6002, 0.6001])
    figure = ax.figure
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_confusion_matrix_colours_by_row_and_writes_percent_and_count() -> None:
    confusion = np.array([[1500, 500, 0], [1, 3, 0], [0, 0, 0]])
    ax = plots.confusion_matrix(None, confusion, CLASSES, "VGG19-CBAM")
    expected = [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 0]]
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    place = {(*t.get_position(),): t.get_text() for t in ax.texts}
    cell = {(round(x), round(y), t) for (x, y), t in place.items()}
    assert {(0, 0, "75%"), (0, 0, "1,500"), (1, 0, "25%"), (1, 0, "500")} <= cell
    assert {(0, 2, "–"), (1, 2, "–"), (2, 2, "–")} <= cell  # a class without images
    assert {"VGG19-CBAM", "predicted", "true", *CLASSES} <= texts(ax)


def test_text_in_a_grid_of_six_matrices_stays_inside_its_cells() -> None:
    figure = Figure(figsize=(7.2, 10.4), layout="constrained")
    confusion = np.full((7, 7), 1000)
    axes = figure.subplots(3, 2).flat
    for ax in axes:
        plots.confusion_matrix(ax, confusion, list("abcdefg"))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    cell = abs(ax.transData.transform((1, 0))[0] - ax.transData.transform((0, 0))[0])
    assert max(t.get_window_extent().width for t in ax.texts) < cell
    assert min(t.get_fontsize() for t in ax.texts) >= 5


def test_a_dollar_in_the_name_of_a_class_is_no_mathematics() -> None:
    ax = plots.confusion_matrix(None, np.eye(3, dtype=int), ["$low$", "$50k to $100k", "$\\bad$"])
    text = plots.svg_text(ax.figure)
    for name in ("$low$", "$50k to $100k", "$\\bad$"):
        assert name in text


def test_dollars_anywhere_in_a_figure_are_drawn_as_they_are() -> None:
    one = {"n": 40, "accuracy": 0.5, "accuracy_interval": (0.4, 0.6)}
    by_model = {"$m$": {"$^$": one, "a": one}}
    axes = group_bars(None, {"from $_ to $^": by_model}, {})
    bars = plots.class_bars(None, {"$s$": np.array([1, 2])}, ["$^$", "b"])
    sheet = plots.sample_sheet([np.zeros((1, 8, 8))], ["$^$"])
    loss, _ = plots.learning_curves(None, {"$^$": log(4, scale=400)})
    figures = (axes[0].figure, bars.figure, sheet, loss.figure)
    drawn = [plots.svg_text(figure) for figure in figures]
    assert "from $_ to $^" in drawn[0]
    assert all("$^$" in text for text in drawn)
    assert ">100<" in drawn[-1]
    assert "mathdefault" not in drawn[-1]


def test_a_confusion_matrix_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(DataError, match="3 classes"):
        plots.confusion_matrix(None, np.eye(2), CLASSES)


def test_learning_curves_hold_the_log_and_name_each_model_at_the_end() -> None:
    logs = {"VGG19": log(5), "VGG19-CBAM": log(8)}
    loss, accuracy = plots.learning_curves(None, logs)
    training, validation = accuracy.lines[:2]
    np.testing.assert_array_equal(validation.get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(
        validation.get_ydata(), [r["validation_accuracy"] for r in logs["VGG19"]]
    )
    np.testing.assert_allclose(training.get_ydata(), [r["accuracy"] for r in logs["VGG19"]])
    np.testing.assert_allclose(
        loss.lines[3].get_ydata(), [r["validation_loss"] for r in logs["VGG19-CBAM"]]
    )
    assert (training.get_linestyle(), validation.get_linestyle()) == ("--", "-")
    assert {"VGG19", "VGG19-CBAM"} <= texts(accuracy)
    assert {"validation", "training"} <= texts(loss)
    assert loss.get_yscale() == "linear"


def test_learning_curves_draw_on_the_axes_they_are_given() -> None:
    axes = Figure().subplots(1, 2)
    assert plots.learning_curves(axes, {"VGG19": log(3)}) == tuple(axes)
    assert [ax.get_xlabel() for ax in axes] == ["epoch", "epoch"]


def test_a_training_without_validation_still_has_its_curve_and_name() -> None:
    _, accuracy = plots.learning_curves(None, {"VGG19": log(4, validated=False)})
    assert "VGG19" in texts(accuracy)
    assert np.isnan(accuracy.lines[1].get_ydata()).all()


def test_a_loss_of_hundreds_beside_one_of_units_gets_a_logarithmic_axis() -> None:
    loss, _ = plots.learning_curves(None, {"as written": log(4, scale=400)})
    assert loss.get_yscale() == "log"


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_names_are_moved_apart_by_the_least_squares(values: list[float]) -> None:
    start, gap = np.array(values), 0.1
    moved = spread(start, gap)
    order = np.argsort(start, kind="stable")
    assert (np.diff(moved[order]) >= gap - 1e-9).all()
    constraints = [
        {"type": "ineq", "fun": lambda z, a=a, b=b: z[b] - z[a] - gap} for a, b in pairwise(order)
    ]
    best = minimize(
        lambda z: ((z - start) ** 2).sum(), start, constraints=constraints, method="SLSQP"
    )
    np.testing.assert_allclose(moved, best.x, atol=2e-3)


def test_a_sample_sheet_holds_every_image_at_its_own_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 24, 24), np.uint8)
    figure = plots.sample_sheet(images, ["angry", "fear"])
    picture = np.asarray(figure.axes[0].images[0].get_array())
    for row in range(2):
        for k in range(3):
            tile = picture[25 * row : 25 * row + 24, 25 * k : 25 * k + 24]
            np.testing.assert_allclose(tile, images[row, k] / 255, rtol=1e-6)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["angry", "fear"]


def test_a_row_with_fewer_images_leaves_its_places_empty() -> None:
    full, short = np.zeros((3, 24, 24), np.uint8), np.zeros((1, 24, 24), np.uint8)
    figure = plots.sample_sheet([full, short], ["happy", "disgust"])
    picture = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert not np.isnan(picture[:24, 50:74]).any()
    assert np.isnan(picture[25:49, 25:]).all()


def test_a_sheet_of_colour_images_keeps_its_colours() -> None:
    red = np.zeros((1, 2, 24, 24, 3), np.uint8)
    red[..., 0] = 255
    picture = plots.sample_sheet(red, ["angry"]).axes[0].images[0].get_array()
    np.testing.assert_array_equal(picture[0, 0], [1, 0, 0])


def test_a_sheet_without_a_title_for_each_row_is_refused() -> None:
    with pytest.raises(DataError, match="2 rows of images for 1 titles"):
        plots.sample_sheet(np.zeros((2, 1, 8, 8), np.uint8), ["angry"])


def test_each_step_shows_its_images_size_and_range() -> None:
    original = np.random.default_rng(0).integers(0, 256, (2, 48, 48), np.uint8)
    figure = plots.steps_sheet(
        [("original", original), ("normalised", original / np.float32(127.5) - 1)]
    )
    images, scales = figure.axes[:2], figure.axes[2:]
    assert [ax.get_title() for ax in images] == ["original", "normalised"]
    assert [ax.get_xlabel() for ax in scales] == ["48×48", "48×48"]
    assert [t.get_text() for t in scales[0].get_xticklabels()] == ["0", "255"]
    assert [t.get_text() for t in scales[1].get_xticklabels()] == ["-1", "1"]
    picture = np.asarray(images[0].images[0].get_array())
    np.testing.assert_allclose(picture[50:98, :48], original[1] / 255, rtol=1e-6)


def test_steps_with_different_numbers_of_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[1, 2\]"):
        plots.steps_sheet([("a", np.zeros((1, 8, 8))), ("b", np.zeros((2, 8, 8)))])


def test_large_images_are_shrunk_by_averaging_and_named_by_their_own_size() -> None:
    checks = np.indices((480, 480)).sum(0) % 2 * np.ones((4, 1, 1))
    figure = plots.steps_sheet([("resized", checks)])
    picture = np.ma.compressed(np.ma.masked_invalid(figure.axes[0].images[0].get_array()))
    assert len(picture) <= 240_000
    assert abs(picture.mean() - 0.5) < 0.01
    assert picture.std() < 0.2  # taking every k-th pixel would keep the full contrast
    assert figure.axes[1].get_xlabel() == "480×480"


def test_every_feature_map_has_its_own_scale() -> None:
    maps = np.stack([np.linspace(-1, 1, 64).reshape(8, 8), np.linspace(0, 900, 64).reshape(8, 8)])
    picture = plots.feature_sheet(maps, "stem").axes[0].images[0].get_array()
    for k in range(2):
        tile = picture[:8, 9 * k : 9 * k + 8]
        assert (tile.min(), tile.max()) == (0, 1)


def test_the_framework_names_all_phases_and_those_not_run() -> None:
    assert len(texts(plots.framework())) > 20
    said = texts(plots.framework(None, not_run=["Tuning"]))
    phases = ["Data understanding", "Data preparation", "Modelling", "Tuning", "Evaluation",
              "Deployment"]  # fmt: skip
    assert {f"{i} {phase}" for i, phase in enumerate(phases, start=1)} <= said
    assert "not run" in said
    assert "not run" not in texts(plots.framework())
    with pytest.raises(DataError, match="Tunning"):
        plots.framework(None, not_run=["Tunning"])


def test_a_network_shows_each_stage_with_its_size_and_attention() -> None:
    ax = plots.network(None, STAGES, "ResNet50-CBAM")
    said = texts(ax)
    assert {"stem", "layer1", "head", "3 × bottleneck", "CBAM", "ResNet50-CBAM"} <= said
    assert {"256 × 12 × 12,  215,808 parameters", "7,  1,799 parameters"} <= said
    stem, layer1, band, head = ax.patches
    assert stem.get_width() > layer1.get_width() > head.get_width()  # size of the maps
    assert layer1.get_height() > stem.get_height() > head.get_height()  # channels
    assert band.get_facecolor() != layer1.get_facecolor()
    assert band.get_width() == layer1.get_width()


def test_a_network_without_attention_shows_none() -> None:
    plain = [{**stage, "attention": "none"} for stage in STAGES]
    ax = plots.network(None, plain)
    assert len(ax.patches) == 3
    assert not any("attention" in text or "CBAM" in text for text in texts(ax))


def test_the_cbam_diagram_says_its_shapes() -> None:
    said = texts(plots.cbam_diagram(None, channels=512, hidden=32, size=14))
    assert {"512×14×14", "512×1×1", "1×14×14", "512 → 32 → 512", "2 → 1 channels"} <= said


@pytest.mark.parametrize("stages", [STAGES, STAGES * 4])
def test_nothing_in_a_network_runs_over_its_neighbour(stages: list[dict]) -> None:
    ax = plots.network(None, stages, "ResNet50-CBAM")
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


DISPLAYS = {
    "bars": lambda: plots.class_bars(None, COUNTS, CLASSES).figure,
    "confusion": lambda: plots.confusion_matrix(None, 9 * np.eye(3, dtype=int), CLASSES).figure,
    "curves": lambda: plots.learning_curves(None, {"VGG19": log(5)})[0].figure,
    "sheet": lambda: plots.sample_sheet(np.zeros((2, 3, 24, 24), np.uint8), ["a", "b"]),
    "network": lambda: plots.network(None, STAGES, "ResNet50").figure,
}


@pytest.mark.parametrize("name", ["confusion", "sheet"])
def test_files_are_the_same_byte_for_byte_each_time(name: str, tmp_path: Path) -> None:
    figure = DISPLAYS[name]()
    paths = plots.save(figure, tmp_path / "vgg19-w0.25")
    assert [path.name for path in paths] == ["vgg19-w0.25.svg", "vgg19-w0.25.pdf"]
    first = [path.read_bytes() for path in paths]
    again = plots.save(figure, tmp_path / "same-figure")
    rebuilt = plots.save(DISPLAYS[name](), tmp_path / "rebuilt")
    assert first == [path.read_bytes() for path in again]
    assert first == [path.read_bytes() for path in rebuilt]
    assert first[1].startswith(b"%PDF")
    assert b"Date" not in first[0] + first[1]
    assert len(list(tmp_path.iterdir())) == 6  # nothing half-written stays
    with pytest.raises(RunError, match="cannot be written"):
        plots.save(figure, tmp_path / "rebuilt.svg" / "within a file")


@pytest.mark.parametrize("name", DISPLAYS)
def test_an_svg_for_a_page_is_well_formed_small_and_keeps_its_ids_to_itself(name: str) -> None:
    text = plots.svg_text(DISPLAYS[name](), f"{name} <of> a & b")
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == f"{name} <of> a & b"
    assert root.get("viewBox")
    assert root.get("width") is None  # as wide as its column
    assert len(text) < 300_000
    assert "<style" not in text  # it would speak to the whole page
    ids = re.findall(r' id="([^"]+)"', text)
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    assert set(ids) == set(used)
    assert len(ids) == len(set(ids))
    other = plots.svg_text(DISPLAYS[name](), "another title")
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', other))


def test_text_in_an_svg_is_text() -> None:
    root = ElementTree.fromstring(plots.svg_text(DISPLAYS["bars"]()))
    said = {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"disgust", "3,995  (46.8%)"} <= said


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.svg_text(DISPLAYS["curves"]())
    assert dict(matplotlib.rcParams) == before


def test_a_users_own_settings_do_not_change_a_figure() -> None:
    from matplotlib import rc_context

    usual = plots.svg_text(DISPLAYS["bars"]())
    with rc_context({"font.size": 30, "axes.grid": True, "xtick.major.size": 9}):
        assert plots.svg_text(DISPLAYS["bars"]()) == usual


def test_the_room_imports_without_matplotlib_and_without_torch() -> None:
    code = (
        "import sys, mien.plots; "
        "assert not {'torch', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
from mien.errors import MienError
from mien.plots import framework
try:
    framework()
except MienError as error:
    assert "mien[train]" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wide_interval_is_drawn_whole() -> None:
    ax = plots.accuracy_bars(
        None, [{"name": "few images", "accuracy": 0.2, "interval": (0.05, 0.6)}]
    )
    assert ax.get_xlim()[1] > 0.6
