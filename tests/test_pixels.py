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


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(kind: int, data: bytes) -> bytes:
    """One of a JPEG."""
    return struct.pack(">BBH", 255, kind, len(data) + 2) + data


def empty_png(width: int, height: int) -> bytes:
    """A PNG with a header and no pixels at all."""
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


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(pictures: int) -> None:
    data = encoded(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    # An index of two pictures (CIPA DC-007) makes Pillow call it MPO.
    tags = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack(">I", pictures))]
    tags.append((0xB002, 7, 16 * pictures, struct.pack(">I", 50)))
    index = struct.pack(">H", 3) + b"".join(struct.pack(">HHI4s", *tag) for tag in tags) + bytes(4)
    index = b"MPF\0MM\0*" + struct.pack(">I", 8) + index + bytes(16 * pictures)
    data = data[:2] + segment(0xE2, index) + data[2:]
    assert Image.open(io.BytesIO(data)).format == ("JPEG" if pictures == 1 else "MPO")
    begin = data.rindex(b"\xff\xda")
    many = data[:begin] + data[begin:-2] * 300 + data[-2:]
    assert decode(data, "a.jpg").shape == (64, 64)
    for read in (decode, measure):
        with pytest.raises(DataError, match=r"b\.jpg: a JPEG of more than 200 scans"):
            read(many, "b.jpg")


EXIF = segment(0xE1, b"Exif\0\0" + b"MM\0*\0\0\0\x08" + bytes(6))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (EXIF * 2000, "1,000 segments"),
        (segment(0xFE, b"") * 2000, "1,000 segments"),
        (segment(0xFE, bytes(60_000)) * 20, "a MiB of tables and comments"),
        (EXIF + bytes(2**21), "a MiB of tables and comments"),
        (b"\xff" * 2**21, "a MiB of tables and comments"),
        (segment(0xE1, bytes(60_000)) * 100 + segment(0xFE, b"by me"), None),
        (EXIF + b"\xff\xd0\0\xff\0\xff\xff", None),
    ],
    ids=["Exif", "comments", "long comments", "junk", "padding", "applications", "little junk"],
)
def test_what_stands_before_the_scans_of_a_jpeg_is_bounded(header: bytes, reason: str) -> None:
    data = encoded(Image.fromarray(photo()), "JPEG")
    data = data[:2] + header + data[2:]
    for read in (decode, measure):
        if reason is None:
            read(data, "a.jpg")
            continue
        with pytest.raises(DataError, match=rf"a\.jpg: a JPEG of more than {reason}"):
            read(data, "a.jpg")


UNUSED = (
    chunk(b"zTXt", b"exif\0\0" + zlib.compress(bytes(2**20))),
    chunk(b"iTXt", b"my exif\0\1\0\0\0" + zlib.compress(bytes(2**20))),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\n45786966\n"),
    chunk(b"iCCP", b"any\0\0" + zlib.compress(bytes(2**20))),
)


@pytest.mark.parametrize("unused", UNUSED, ids=["zTXt", "iTXt", "tEXt", "iCCP"])
def test_a_png_is_read_without_what_it_says_in_words(
    monkeypatch: pytest.MonkeyPatch, unused: bytes
) -> None:
    opened = []
    given = Image.open

    def seen(file: io.BytesIO, **options: object) -> Image.Image:
        opened.append(file.getvalue())
        return given(file, **options)

    monkeypatch.setattr(Image, "open", seen)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(photo()[..., band]) for band in range(3)]
    still = encoded(frames[0], exif=exif)
    moving = encoded(frames[0], save_all=True, append_images=frames[1:])
    for data in (still, moving):
        place = data.index(b"IDAT") - 4
        told = (
            data[:33] + unused * 3 + data[33:place] + unused + data[place:-12] + unused + data[-12:]
        )
        assert measure(told, "a.png") == measure(data, "a.png")
        np.testing.assert_array_equal(decode(told, "a.png"), decode(data, "a.png"))
        assert set(opened) == {data}
        opened.clear()
        # What is damaged is said as before, and what stands before the damage costs as little.
        cut = data[: place + 30]
        said = []
        for half in (cut, told[:33] + unused * 3 + cut[33:]):
            with pytest.raises(DataError) as error:
                decode(half, "a.png")
            said.append(str(error.value))
        assert said[0] == said[1]
        assert "truncated" in said[0]
        assert set(opened) == {cut}
        opened.clear()


def test_the_orientation_of_a_png_may_stand_behind_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(photo()), exif=exif)
    begin = data.index(b"eXIf") - 4
    end = data.index(b"IDAT") - 4
    late = data[:begin] + UNUSED[1] + data[end:-12] + data[begin:end] + data[-12:]
    np.testing.assert_array_equal(decode(late, "a.png"), decode(data, "a.png"))
    assert decode(late, "a.png").shape == (60, 40, 3)


def test_a_png_of_very_many_chunks_is_refused() -> None:
    data = encoded(Image.fromarray(photo()))
    few, many = (data[:33] + chunk(b"abCd", b"") * count + data[33:] for count in (1000, 100_000))
    assert measure(few, "a.png") == (40, 60, 3)
    for read in (decode, measure):
        with pytest.raises(DataError, match=r"a\.png: a PNG of more than 100,000 chunks"):
            read(many, "a.png")


@pytest.mark.parametrize("label", [b"!\xfe", b"!\x01"])
def test_a_gif_of_very_many_blocks_is_refused(label: bytes) -> None:
    data = encoded(Image.fromarray(photo()[..., 0]), "GIF")
    place = 13 + (3 << (data[10] & 7) + 1)  # behind the palette
    few, many = (
        data[:place] + label + b"\2ab" * count + b"\0" + data[place:] for count in (9, 200_000)
    )
    assert measure(few, "a.gif") == measure(data, "a.gif")
    for read in (decode, measure):
        with pytest.raises(DataError, match=r"a\.gif: a GIF of more than 200,000 blocks"):
            read(many, "a.gif")


def test_a_large_bmp_in_run_length_code_is_refused() -> None:
    def bmp(width: int, height: int) -> bytes:
        rows = b"\1\0\0\0" * height + b"\0\1"  # each of one pixel, and the end
        about = (40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
        head = struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078)
        return b"BM" + head + struct.pack("<IiiHHIIiiII", *about) + bytes(1024) + rows

    assert decode(bmp(50, 40), "a.bmp").shape[:2] == (40, 50)
    for read in (decode, measure):
        with pytest.raises(DataError, match=r"a\.bmp: a run-length BMP of more than 4 million"):
            read(bmp(2001, 2000), "a.bmp")
