"""Copies of pictures with what was found drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from mien.data import CLASSES
from mien.errors import DataError
from mien.inference import Face
from mien.inference.annotate import COLOURS, EMPTY, PANEL, SMALLEST, annotate, write_annotated


def face(box: tuple[int, int, int, int], label: str = "happy", **more: bool) -> Face:
    shares = {name: 0.7 if name == label else 0.05 for name in CLASSES}
    return Face(box, label, shares, 0.9, **more)


def count(picture: np.ndarray, colour: str | tuple[int, ...]) -> int:
    rgb = ImageColor.getrgb(colour) if isinstance(colour, str) else colour[:3]
    return int((picture == np.array(rgb[:3])).all(2).sum())


def bars(picture: np.ndarray) -> int:
    """Pixels of the bars' empty parts, which nothing else is drawn with, on a black picture."""
    seen = tuple(round(level * EMPTY[3] / 255) for level in EMPTY[:3])
    return int((np.abs(picture.astype(int) - seen).max(2) <= 2).sum())


@pytest.mark.parametrize("side", [40, 300, 2000])
def test_a_face_has_a_box_a_label_and_seven_bars_at_any_size(side: int) -> None:
    grey = np.zeros((side, side), np.uint8)
    box = (side // 4, side // 4, side // 3, side // 3)
    found = annotate(grey, [face(box)])
    assert found.shape[2] == 3
    assert max(found.shape) >= SMALLEST
    colour = COLOURS[CLASSES.index("happy")]
    zoom = found.shape[1] // side
    ys, xs = np.nonzero((found == ImageColor.getrgb(colour)).all(2))
    x, y, _, height = (zoom * at for at in box)
    assert abs(xs.min() - x) <= 3 * zoom
    assert abs(ys.max() - (y + height)) <= 3 * zoom
    assert bars(found) > 100
    assert (grey == 0).all()  # the picture itself is left as it is


@pytest.mark.parametrize("sides", [(1, 1), (2, 300), (300, 2)])
def test_a_face_of_a_pixel_or_two_is_drawn_too(sides: tuple[int, int]) -> None:
    height, width = sides
    found = annotate(np.zeros((height, width), np.uint8), [face((0, 0, width, height))])
    assert found.any()


def test_a_picture_without_a_face_is_copied_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (500, 600, 3)).astype(np.uint8)
    np.testing.assert_array_equal(annotate(picture, []), picture)


def test_bars_are_as_long_as_the_probabilities() -> None:
    found = annotate(np.zeros((600, 600), np.uint8), [face((200, 200, 150, 150))])
    lengths = {
        name: int((found == ImageColor.getrgb(colour)).all(2)[:, 360:].sum(1).max())
        for name, colour in zip(CLASSES, COLOURS, strict=False)
    }
    assert lengths["happy"] == pytest.approx(14 * lengths["sad"], rel=0.35)
    assert lengths["sad"] == pytest.approx(lengths["angry"], abs=1)


def test_in_a_crowd_a_bar_of_shares_takes_the_place_of_a_panel() -> None:
    faces = [face((x, y, 58, 58)) for x in range(2, 480, 60) for y in range(30, 420, 60)]
    found = annotate(np.zeros((450, 490), np.uint8), faces)
    assert found.shape == (450, 490, 3)
    inner = found[100:300, 100:300]  # full of faces, so no panel fits
    assert bars(inner) == 0
    assert count(inner, COLOURS[CLASSES.index("sad")]) > 0


def test_a_crop_that_is_all_face_is_widened_for_its_bars() -> None:
    crop = np.full((48, 48), 255, np.uint8)
    found = annotate(crop, [face((0, 0, 48, 48))])
    assert found.shape[0] == SMALLEST
    assert found.shape[1] > SMALLEST + 50
    assert count(found[:, SMALLEST:], PANEL) > 1000
    assert annotate(crop, [face((0, 0, 48, 48))], widen=False).shape[:2] == (SMALLEST, SMALLEST)
    assert annotate(crop, [face((8, 8, 32, 32))], widen=True).shape == found.shape


def test_a_face_that_is_not_known_is_not_drawn_in_its_labels_colour() -> None:
    colour = COLOURS[CLASSES.index("happy")]
    place = (200, 200, 100, 100)
    known, unknown = (
        annotate(np.zeros((500, 500), np.uint8), [face(place, known=known)])[190:310, 190:310]
        for known in (True, False)
    )
    assert count(known, colour) > 300
    assert count(unknown, colour) == 0
    assert count(unknown, "#FFFFFF") > 300


def test_a_copy_is_written_in_the_form_of_its_name(tmp_path: Path) -> None:
    picture = np.full((500, 500, 3), 90, np.uint8)
    for name, kind in (("a.jpg", "JPEG"), ("b.PNG", "PNG")):
        write_annotated(picture, [face((100, 100, 90, 90))], tmp_path / "new" / name)
        with Image.open(tmp_path / "new" / name) as image:
            assert (image.format, image.size) == (kind, (500, 500))
    with pytest.raises(DataError, match=r"are written as \.jpg"):
        write_annotated(picture, [], tmp_path / "a.txt")
    assert not (tmp_path / "a.txt").exists()
