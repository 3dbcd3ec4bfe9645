"""Decoding, orientation, conversion and letterbox."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.errors import DataError
from mien.pixels import MAX_PIXELS, decode, letterbox, measure, to_channels


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth colour picture, so that JPEG keeps it nearly as it is."""
    y, x = np.mgrid[:height, :width]
    bands = (x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height))
    return np.stack(bands, -1).astype(np.uint8)


def empty_png(width: int, height: int) -> bytes:
    """A PNG with a header and no pixels at all."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(mode, progressive, subsampling):
    data = encoded(
        Image.fromarray(photo()).convert(mode),
        "JPEG",
        quality=90,
        progressive=progressive,
        **({"subsampling": subsampling} if mode == "RGB" else {}),
    )
    expected = np.array(Image.open(io.BytesIO(data)))
    # Grey is exact. The colour conversions of the two libraries may round apart.
    difference = np.abs(decode(data, "a.jpg").astype(int) - expected)
    assert difference.max() <= (0 if mode == "L" else 2)


def test_a_file_and_its_bytes_give_the_same_pixels(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path)
    np.testing.assert_array_equal(decode(path, "a"), decode(path.read_bytes(), "a"))
    np.testing.assert_array_equal(decode(path, "a"), photo())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation, format):
    stored = photo(8, 16)[..., 0].repeat(4, 0).repeat(4, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(
        Image.fromarray(stored), format, exif=exif, **({"quality": 100} if format == "JPEG" else {})
    )
    # Table of the EXIF standard (CIPA DC-008, tag 274): which side is the first row and column.
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    decoded = decode(data, "turned")
    assert decoded.shape == upright.shape == measure(data, "turned")[:2]
    assert np.abs(decoded.astype(int) - upright).max() <= 3


def test_formats_that_run_a_program_or_decode_in_the_header_are_not_read():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    icon = encoded(Image.fromarray(photo()), "ICO")
    for data in (postscript, icon):
        for read in (measure, decode):
            with pytest.raises(DataError, match="not an image"):
                read(data, "a")


def test_sixteen_bits_become_eight():
    wide = np.array([[0, 257, 128 * 257], [65535, 255 * 257, 256]], np.uint16)
    decoded = decode(encoded(Image.fromarray(wide)), "wide.png")
    np.testing.assert_array_equal(decoded, [[0, 1, 128], [255, 255, 1]])
    assert decoded.dtype == np.uint8


def test_decimals_are_shares_of_white_where_none_is_above_1():
    shares = np.array([[0.0, 0.2], [0.6, 1.0]], np.float32)
    for values, expected in (
        (shares, [[0, 51], [153, 255]]),
        (shares * 200, [[0, 40], [120, 200]]),
        (shares * 0, [[0, 0], [0, 0]]),
        (np.where(shares == 0, np.nan, shares), [[0, 51], [153, 255]]),
    ):
        given = encoded(Image.fromarray(values.astype(np.float32), "F"), "TIFF")
        np.testing.assert_array_equal(decode(given, "a.tiff"), expected)


def test_a_palette_is_looked_up():
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    palette = Image.fromarray(colours).quantize(4)
    assert palette.mode == "P"
    np.testing.assert_array_equal(
        decode(encoded(palette), "p.png"), np.array(palette.convert("RGB"))
    )


def test_what_is_transparent_is_laid_over_black():
    rgba = np.full((2, 2, 4), 200, np.uint8)
    rgba[..., 3] = [[0, 255], [255, 0]]
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(rgba)), "a.png")[..., 0], [[0, 200], [200, 0]]
    )
    grey = decode(encoded(Image.fromarray(rgba).convert("LA")), "la.png")
    np.testing.assert_array_equal(grey, [[0, 200], [200, 0]])


def test_channels_are_those_of_the_file_until_converted():
    grey, colour = encoded(Image.fromarray(photo()[..., 0])), encoded(Image.fromarray(photo()))
    assert decode(grey, "g").shape == (40, 60)
    assert to_channels(decode(grey, "g"), 3).shape == (40, 60, 3)
    assert decode(colour, "c").shape == (40, 60, 3)
    luma = to_channels(decode(colour, "c"), 1)
    expected = photo() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - expected).max() <= 1
    equal = np.repeat(photo()[..., :1], 3, -1)
    assert decode(encoded(Image.fromarray(equal)), "equal").ndim == 3


def test_measure_tells_what_decode_gives():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"):
        format = "TIFF" if mode == "CMYK" else "PNG"
        data = encoded(Image.fromarray(photo()).convert(mode), format)
        decoded = decode(data, mode)
        assert measure(data, mode) == (*decoded.shape[:2], 3 if decoded.ndim == 3 else 1)


def test_a_truncated_jpeg_is_refused_by_name():
    data = encoded(Image.fromarray(photo(200, 200)), "JPEG")
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(DataError, match=r"half\.jpg.*(truncated|damaged)"):
            decode(data[: int(len(data) * share)], "half.jpg")


def test_a_text_called_jpg_is_refused_by_name(tmp_path):
    path = tmp_path / "note.jpg"
    path.write_text("this is no picture")
    with pytest.raises(DataError, match=r"note\.jpg: not an image"):
        decode(path, "note.jpg")
    with pytest.raises(DataError, match="not an image"):
        decode(b"", "empty.jpg")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg.*check the path"):
        decode(tmp_path / "gone.jpg", "gone.jpg")


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_an_image_a_pixel_wide_or_high_is_refused(shape):
    with pytest.raises(DataError, match=f"{shape[1]}x{shape[0]} pixels"):
        decode(encoded(Image.fromarray(np.zeros(shape, np.uint8))), "thin.png")


def test_a_huge_image_is_refused_from_its_header():
    for side in (20_000, int(MAX_PIXELS**0.5) + 1):
        data = empty_png(side, side)
        assert len(data) < 100
        with pytest.raises(DataError, match=r"huge\.png.*more than the 80 million pixels"):
            decode(data, "huge.png")
    with pytest.raises(DataError, match="truncated or damaged"):  # below the limit it is looked at
        decode(empty_png(100, 100), "huge.png")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 64), st.booleans())
def test_letterbox_keeps_the_aspect_ratio(height, width, size, colour):
    image = np.full((height, width, 3) if colour else (height, width), 200, np.uint8)
    boxed = letterbox(image, size)
    assert boxed.shape == (size, size, *image.shape[2:])
    filled = np.argwhere((boxed if not colour else boxed[..., 0]) == 200)
    inner = filled.max(0) - filled.min(0) + 1
    assert inner.max() == size
    scale = size / max(height, width)
    assert np.abs(inner - np.maximum(1, scale * np.array([height, width]))).max() <= 0.5
    before, after = filled.min(0), size - 1 - filled.max(0)
    assert np.abs(before - after).max() <= 1  # centred
    assert np.count_nonzero(boxed) == len(filled) * (3 if colour else 1)  # the rest is 0


def test_letterbox_leaves_an_image_of_the_right_size_alone():
    np.testing.assert_array_equal(letterbox(photo(32, 32), 32), photo(32, 32))


def test_letterbox_averages_areas_when_it_shrinks():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    np.testing.assert_array_equal(letterbox(image, 2), [[25, 45], [105, 125]])


def test_only_one_or_three_channels_exist():
    with pytest.raises(DataError, match="1 \\(grey\\) or 3"):
        to_channels(photo(), 2)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    file = io.BytesIO()
    Image.new("L", (64, 64), 90).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    begin = data.rindex(b"\xff\xda")
    many = data[:begin] + data[begin:-2] * 300 + data[-2:]
    assert decode(data, "a.jpg").shape == (64, 64)
    for read in (decode, measure):
        with pytest.raises(DataError, match=r"b\.jpg: a JPEG of more than 200 scans"):
            read(many, "b.jpg")
