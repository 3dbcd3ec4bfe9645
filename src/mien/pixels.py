"""From a file to pixels: decode, orient, convert and letterbox, in NumPy.

Training data and pictures to predict go through the same functions, so that the same file gives
the same numbers both ways.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from mien.errors import DataError
from mien.headers import REMEDY, guarded

MAX_PIXELS = 80_000_000
"""The largest picture that is decoded, about 9,000 x 9,000 (Pillow warns from 89 million on)."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is read, as Pillow calls it. Of the others some run a program or decode in the header."""

RUNS = 4_000_000
"""The largest BMP in run-length code that is decoded: Pillow does it in Python, 0.4 microseconds a
pixel, while other threads wait."""

ORIENTATION = 0x0112  # the EXIF tag
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})


def measure(data: bytes, name: str, formats: tuple[str, ...] = FORMATS) -> tuple[int, int, int]:
    """Height, width and channels (1 or 3) that `decode` would give, from the header alone.

    Parameters
    ----------
    formats : of `FORMATS`, those that are taken

    Raises
    ------
    DataError
        As `decode`, except for damage behind the header.
    """
    with _open(data, name, formats) as image:
        width, height = image.size
        # Four orientations transpose; of a TIFF Pillow gives the upright size already.
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
        return height, width, 1 if _is_grey(image) else 3


def decode(source: Path | bytes, name: str) -> np.ndarray:
    """Decode a picture, upright and in 8 bits.

    EXIF orientation is applied (of a PNG that of its eXIf chunk, not of a text), 16-bit values are
    divided by 257, decimals of at most 1 are multiplied by 255, palettes are looked up, and what is
    transparent is laid over black, the colour that `letterbox` pads with.

    Parameters
    ----------
    source : a file, or the bytes of one
    name : how messages call it

    Returns
    -------
    uint8 array ``[H, W]`` or ``[H, W, 3]``, as the file has it (a colour file whose three channels
    are equal is still colour)

    Raises
    ------
    DataError
        For what is no image of `FORMATS`, is truncated, is a single pixel wide or high, has more
        than `MAX_PIXELS` pixels, or would cost far more than its bytes (refused from the header,
        before decoding).
    """
    data = source if isinstance(source, bytes) else _bytes(source, name)
    with _open(data, name) as image:
        try:
            pixels = _fast(image, data)
            if pixels is None:
                pixels = from_pillow(image)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly every kind on damaged files
            raise DataError(
                f"{name}: the image is truncated or damaged ({error}); {REMEDY}"
            ) from error
    return pixels


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image, upright and in 8 bits: uint8 ``[H, W]`` or ``[H, W, 3]``, as `decode`."""
    image.load()
    turned = _orientation(image) != 1
    return _eight_bits(ImageOps.exif_transpose(image) if turned else image)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Grey ``[H, W]`` (ITU-R BT.601 luma) for 1 channel, RGB ``[H, W, 3]`` for 3."""
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    if channels == 1:
        return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """Scale the longer side to `size` and pad the shorter one with 0 on both sides.

    Shrinks by area averaging and enlarges by bicubic interpolation, so that neither aliases nor
    shows blocks.

    Parameters
    ----------
    image : uint8 array ``[H, W]`` or ``[H, W, 3]``
    size : side of the result in pixels

    Returns
    -------
    uint8 array ``[size, size]`` or ``[size, size, 3]``
    """
    if size < 1:
        raise DataError(f"an image size of {size} pixels is not possible; give 1 or more")
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    if inner != (height, width):
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, inner[::-1], interpolation=method)
    if inner == (size, size):
        return image
    padded = np.zeros((size, size, *image.shape[2:]), np.uint8)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    padded[top : top + inner[0], left : left + inner[1]] = image
    return padded


def shown(path: Path | str) -> str:
    """A path as text that can be written as UTF-8, which names of files need not be."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}; check the path") from error


def _open(data: bytes, name: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    try:
        image = Image.open(guarded(data, name), formats=formats)
        width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, "it") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # as many kinds of errors as there are formats
        raise DataError(
            f"{name}: not an image ({', '.join(formats)}), or its header is damaged; {REMEDY}"
        ) from error
    if min(width, height) < 2:
        image.close()
        raise DataError(f"{name}: {width}x{height} pixels show no face; {REMEDY}")
    if width * height > MAX_PIXELS:
        image.close()
        raise _too_large(name, f"{width}x{height} pixels")
    coded = image.format == "BMP" and image.info.get("compression") in (1, 2)
    if coded and width * height > RUNS:
        image.close()
        raise DataError(
            f"{name}: a run-length BMP of more than {RUNS // 1_000_000} million pixels is not "
            f"decoded; {REMEDY}"
        )
    return image


def _too_large(name: str, what: str) -> DataError:
    return DataError(
        f"{name}: {what} is more than the {MAX_PIXELS // 1_000_000} million pixels that are "
        "decoded; shrink it, or leave it out with skip_bad (--skip-bad)"
    )


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY_MODES


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where nothing readable tells it."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # for PNG without it, Pillow's getexif would decode the pixels in search of it
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a sound picture
        return 1


def _fast(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode a common JPEG with OpenCV, in a quarter of Pillow's time; None for all else.

    Both use libjpeg-turbo. OpenCV fills up truncated files without a word, so a file that does
    not close with JPEG's end marker is left to Pillow, which refuses it.
    """
    common = image.format == "JPEG" and image.mode in ("L", "RGB")
    if not common or not data.endswith(b"\xff\xd9") or _orientation(image) != 1:
        return None
    flag = cv2.IMREAD_GRAYSCALE if image.mode == "L" else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or image.mode == "L":
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _eight_bits(image: Image.Image) -> np.ndarray:
    grey = _is_grey(image)
    if image.mode == "L" and "transparency" not in image.info:
        return np.array(image)
    if image.mode == "F":
        values = np.nan_to_num(np.array(image))
        if 0 < values.max() <= 1:  # as arrays of shares are saved
            values *= 255
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if image.mode.startswith("I"):
        # Pillow gives 16-bit PNGs as "I;16" or, in older versions, as 32-bit "I".
        wide = np.clip(np.array(image).astype(np.int64), 0, 65535)
        return ((wide + 128) // 257).astype(np.uint8)
    if image.has_transparency_data:
        alpha = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", alpha.size, (0, 0, 0, 255)), alpha)
    return np.array(image.convert("L" if grey else "RGB"))
