"""How figures look and how they are written: one palette, and the same bytes each time."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import MienError
from mien.runs.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

palette = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
"""Okabe and Ito's colours, told apart with every common colour vision; yellow is left out, which
is too light for lines and text on white."""

ATTENTION = palette[1]
INK = "#222222"
FAINT = "#8A8A8A"
PALE = "#E8EEF3"

WIDTH = 5.0
"""Width of a figure in inches. Type of 9 points on it is 9 pixels high on a phone that shows it
360 pixels wide, and 14 in a laptop's text column."""

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    # The first comes with matplotlib and sets the layout. Where a reader lacks both, the
    # fallback is narrower than DejaVu, so that text still fits its place.
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a dollar in a name of the user's is a dollar
    # Text stays text: smaller than outlines, searched, copied and read aloud.
    "svg.fonttype": "none",
    "svg.hashsalt": "mien",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw within Mien's fonts, colours and spines; also a decorator.

    Raises
    ------
    MienError
        where matplotlib is not installed
    """
    try:
        from matplotlib import rc_context, rcdefaults
    except ImportError:
        raise MienError(
            "figures need matplotlib, which is not installed; pip install 'mien[train]'"
        ) from None
    with rc_context():
        rcdefaults()  # a user's own matplotlibrc must not change a report's bytes
        with rc_context(RC):
            yield


def blank_figure(width: float = WIDTH, height: float = 3.5) -> Figure:
    """A figure of a size in inches, known to no global state, that lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def axis(ax: Axes | None, width: float = WIDTH, height: float = 3.5) -> Axes:
    """The given axis without its upper and right spine, or a new one on a figure of its own."""
    if ax is None:
        ax = blank_figure(width, height).add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def figure_of(ax: Axes) -> Figure:
    """The figure an axis lies on."""
    from matplotlib.figure import Figure

    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


@style()
def save(figure: Figure, path_stem: str | Path) -> tuple[Path, Path]:
    """Write a figure as SVG and PDF, the same bytes for the same figure.

    Parameters
    ----------
    figure : the figure
    path_stem : path without an ending; its folder is made where it is missing

    Returns
    -------
    paths of the SVG and of the PDF

    Raises
    ------
    RunError
        if the disk is full or the folder cannot be written; no half figure is left.

    Notes
    -----
    The layout is settled at the first writing and stays; what is drawn later has to fit.
    """
    dates: dict[str, dict[str, str | None]] = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    paths = []
    for form, metadata in dates.items():
        path = Path(f"{path_stem}.{form}")
        write_bytes(path, _render(figure, form, metadata))
        paths.append(path)
    return paths[0], paths[1]


@style()
def svg_text(figure: Figure, title: str = "") -> str:
    """A figure as an ``<svg>`` element to stand in an HTML page.

    It takes the width of its column, up to 1.6 times its own. Ids carry a prefix from the figure's
    content and `title`, so that many figures share a page; two that are equal need two titles.

    Parameters
    ----------
    figure : the figure
    title : what it shows, for those who hear the page
    """
    text = _render(figure, "svg", {"Date": None, "Creator": None}).decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # matplotlib's own style sheet would speak to every element of the page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)

    prefix = "f" + hashlib.sha256((title + text).encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(
        r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text
    )
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)

    width = 1.6 * 72 * figure.get_figwidth()
    label = f' aria-label="{html.escape(title)}"' if title else ""
    head = (
        f'role="img"{label} style="width:100%;max-width:{width:.0f}px;height:auto;'
        'stroke-linejoin:round;stroke-linecap:butt"'
    )
    start = text.index(">")
    opening = re.sub(r' (?:width|height|version)="[^"]*"', "", text[:start])
    return re.sub(r"\n\s*", "\n", f"{opening} {head}{text[start:]}")


def _render(figure: Figure, form: str, metadata: dict[str, str | None]) -> bytes:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        # Constrained layout starts from where it ended, so that each drawing would shift by a
        # hair. It is let settle and then kept.
        figure.draw_without_rendering()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    buffer = BytesIO()
    figure.savefig(buffer, format=form, metadata=metadata)
    return buffer.getvalue()


def beside(ax: Axes, x: float, y: float, text: str) -> None:
    """A number right of where a bar ends, or of nought where it ends below."""
    ax.annotate(
        text,
        (max(x, 0), y),
        xytext=(3, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=7,
    )
