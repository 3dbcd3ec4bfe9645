"""A picture with what was found in it drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mien.detection.found import Box
from mien.errors import DataError
from mien.inference.classifier import Face
from mien.pixels import to_channels
from mien.runs.atomic import replacing

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}

LARGEST = {"WEBP": 16_383, "JPEG": 65_500}
"""Pixels of the longer side that a copy may have."""

SMALLEST = 480
"""Pixels of the longer side that smaller pictures are enlarged to, or nothing could be read."""

COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#56B4E9", "#BBBBBB", "#E69F00")
"""Of the classes in their order (Okabe and Ito's, which people of all kinds of sight can tell)."""

PANEL = (20, 20, 20, 215)
EMPTY = (80, 80, 80, 215)
INK = "#FFFFFF"
UNKNOWN = "#FFFFFF"

Rect = tuple[float, float, float, float]
"""Left, top, right and bottom."""


def fills(picture: np.ndarray, faces: Sequence[Face]) -> bool:
    """Whether a picture is all of one face, so that nothing of it is left for bars."""
    return [face.box for face in faces] == [(0, 0, *picture.shape[1::-1])]


def annotate(
    picture: np.ndarray, faces: Sequence[Face], *, widen: bool | None = None
) -> np.ndarray:
    """A copy of a picture with each face's box, label and a bar for each probability.

    Lines and letters grow with the picture and the face. The bars stand beside the box where they
    hide nothing that was drawn, else as one bar of shares in the box's lower edge. A face that is
    not known has a white box and a question mark.

    Parameters
    ----------
    picture : uint8 ``[H, W]`` or RGB ``[H, W, 3]``
    faces : with boxes in this picture
    widen : whether the copy has room for bars on its right; None where one face `fills` the picture

    Returns
    -------
    RGB uint8 ``[H, W, 3]``, of a picture smaller than `SMALLEST` enlarged by a whole number.
    """
    zoom = max(1, -(-SMALLEST // max(picture.shape[:2])))
    shown = Image.fromarray(to_channels(picture, 3))
    if zoom > 1:
        enlarged = (shown.width * zoom, shown.height * zoom)
        shown = shown.resize(enlarged, Image.Resampling.BICUBIC)
    unit = max(shown.size) / 400
    boxes = [_scaled(face.box, zoom) for face in faces]
    if fills(picture, faces) if widen is None else widen:
        wider = Image.new("RGB", (shown.width + round(110 * unit), shown.height), PANEL[:3])
        wider.paste(shown)
        shown = wider
    layer = Image.new("RGBA", shown.size)
    pen = ImageDraw.Draw(layer)
    letters = [_letters(box, unit) for box in boxes]
    # All boxes and labels have their places before the first bars look for theirs.
    taken = list(boxes)
    for face, box, size in zip(faces, boxes, letters, strict=True):
        taken.append(_draw_box(pen, face, box, size, shown.size))
    for face, box, most in zip(faces, boxes, letters, strict=True):
        for size in (most, (most + _least(unit)) // 2, _least(unit)):
            panel = _free_place(box, _panel_size(face, size), taken, shown.size, size)
            if panel is not None:
                taken.append(panel)
                _draw_panel(pen, face, panel, size)
                break
        else:
            _draw_shares(pen, face, box, most)
    return np.asarray(Image.alpha_composite(shown.convert("RGBA"), layer).convert("RGB"))


def write_annotated(picture: np.ndarray, faces: Sequence[Face], out: Path) -> None:
    """Write `annotate`'s copy to a file, whole or not at all.

    Raises
    ------
    DataError
        if the file's ending is none of `FORMATS`, or the copy is too large for it.
    RunError
        if it cannot be written.
    """
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise DataError(f"{out}: annotated copies are written as {', '.join(FORMATS)}")
    image = Image.fromarray(annotate(picture, faces))
    if max(image.size) > LARGEST.get(kind, max(image.size)):
        raise DataError(
            f"{out}: {image.width}x{image.height} pixels are more than a {kind} can have; write a "
            ".png"
        )
    with replacing(out) as file:
        image.save(file, kind, **({"quality": 92} if kind in ("JPEG", "WEBP") else {}))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _scaled(box: Box, zoom: int) -> Rect:
    x, y, width, height = (side * zoom for side in box)
    return x, y, x + width, y + height


def _colour(face: Face, label: str) -> str:
    return COLOURS[list(face.probabilities).index(label) % len(COLOURS)]


def _least(unit: float) -> int:
    """The smallest letters, in pixels, that can be read in a picture of 400 units."""
    return max(11, round(4.5 * unit))


def _letters(box: Rect, unit: float) -> int:
    """Letters as large as the face bears and the picture wants."""
    return max(_least(unit), round(min(8.5 * unit, 0.13 * (box[2] - box[0]))))


def _draw_box(
    pen: ImageDraw.ImageDraw, face: Face, box: Rect, letters: int, size: tuple[int, int]
) -> Rect:
    """The box, and on it (or within, where there is no room) a tab with the label."""
    left, top, right, bottom = box
    colour = _colour(face, face.label) if face.known else UNKNOWN
    line = max(2, round(0.14 * letters))
    pen.rectangle((left, top, right - 1, bottom - 1), outline="#000000", width=line + 2)
    within = (left + 1, top + 1, max(left + 1, right - 2), max(top + 1, bottom - 2))
    pen.rectangle(within, outline=colour, width=line)
    doubt = "" if face.known else " ?"
    text = f"{face.label} {100 * face.probabilities[face.label]:.0f} %{doubt}"
    font = _font(letters)
    width, height = pen.textlength(text, font) + 0.8 * letters, 1.5 * letters
    x = min(max(0.0, left), max(0.0, size[0] - width))
    y = top - height if top >= height else top
    tab = (x, y, x + width, y + height)
    pen.rectangle(tab, fill=colour)
    pen.text((x + width / 2, y + height / 2), text, "#000000", font, anchor="mm")
    return tab


def _panel_size(face: Face, letters: int) -> tuple[float, float]:
    names = max(_font(letters).getlength(label) for label in face.probabilities)
    return names + 5.5 * letters, (1.25 * len(face.probabilities) + 0.6) * letters


def _free_place(
    box: Rect,
    panel: tuple[float, float],
    taken: Sequence[Rect],
    size: tuple[int, int],
    letters: int,
) -> Rect | None:
    """A place for a panel beside a box, within the picture, that covers nothing taken."""
    left, top, right, bottom = box
    width, height = panel
    gap = 0.4 * letters
    corners = (
        (right + gap, top),
        (left - gap - width, top),
        (left, bottom + gap),
        (right - width, bottom + gap),
        (left, top - 1.5 * letters - gap - height),
        (right + gap, bottom - height),
        (left - gap - width, bottom - height),
    )
    for x, y in corners:
        place = (x, y, x + width, y + height)
        inside = x >= 0 and y >= 0 and place[2] <= size[0] and place[3] <= size[1]
        if inside and not any(_overlap(place, other) for other in taken):
            return place
    return None


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_panel(pen: ImageDraw.ImageDraw, face: Face, panel: Rect, letters: int) -> None:
    """A name and a bar for each class."""
    font = _font(letters)
    pen.rounded_rectangle(panel, radius=0.4 * letters, fill=PANEL)
    names = max(font.getlength(label) for label in face.probabilities)
    left, right = panel[0] + names + letters, panel[2] - 0.5 * letters
    for row, (label, share) in enumerate(face.probabilities.items()):
        middle = panel[1] + (0.92 + 1.25 * row) * letters
        pen.text((left - 0.4 * letters, middle), label, INK, font, anchor="rm")
        low, high = middle - 0.36 * letters, middle + 0.36 * letters
        pen.rectangle((left, low, right, high), fill=EMPTY)
        if (right - left) * share >= 1:
            reach = left + (right - left) * share
            pen.rectangle((left, low, reach, high), fill=_colour(face, label))


def _draw_shares(pen: ImageDraw.ImageDraw, face: Face, box: Rect, letters: int) -> None:
    """One bar in the lower edge of the box, divided among the classes."""
    left, _, right, bottom = box
    height = max(4.0, 0.4 * letters)
    edge = left
    for label, share in face.probabilities.items():
        reach = edge + (right - left) * share
        if reach - edge >= 1:
            pen.rectangle((edge, bottom - height, reach, bottom), fill=_colour(face, label))
        edge = reach
