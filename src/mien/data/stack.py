"""Pictures of any sizes, stacked into one array."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mien.errors import DataError
from mien.pixels import decode, letterbox, measure, shown, to_channels

Shape = tuple[int, int, int]  # height, width, channels
Stack = tuple[np.ndarray, dict[int, DataError]]

CHUNK = 256  # pictures that a thread takes at a time
LEAST, GREATEST = 48, 224  # bounds of the size that is chosen where the pictures' own differ


@dataclass(frozen=True)
class Pictures:
    """Files to decode, in the order of the result.

    Attributes
    ----------
    paths : relative paths
    load : gives the bytes at a relative path; raises `DataError` where it cannot
    root : what stands before a relative path in messages
    threads : how many decode at a time
    skip_bad : collect the errors of what cannot be read instead of raising the first
    """

    paths: Sequence[str]
    load: Callable[[str], bytes]
    root: str
    threads: int = 1
    skip_bad: bool = False


class _Mixed(Exception):
    """The pictures are not all of the shape that the first one has."""


def stack(pictures: Pictures, size: int | None = None, channels: int | None = None) -> Stack:
    """Decode pictures and bring them to one size by `letterbox`.

    Parameters
    ----------
    size : side in pixels. None keeps the size of square pictures that all have the same one, and
        otherwise takes the median of the longer sides, at least 48 and at most 224
    channels : 1 for grey, 3 for RGB. None gives RGB where any picture has a colour in it, so that
        grey pictures stored as RGB are grey

    Returns
    -------
    images : uint8 array ``[N, S, S]`` or ``[N, S, S, 3]``, zero where there is an error
    errors : the error of each picture that cannot be read, by its position
    """
    if size is not None and channels is not None:
        return _decode(pictures, size, channels)
    try:
        # Nearly every set has one shape; only one that has not pays for a look at every header.
        first = _first_shape(pictures) or (LEAST, LEAST, 1)
        images, errors = _decode(
            pictures, size or common_size([first]), channels or first[2], expected=first
        )
    except _Mixed:
        shapes = _shapes(pictures)
        images, errors = _decode(
            pictures, size or common_size(shapes), channels or max(shape[2] for shape in shapes)
        )
    if channels is None and images.ndim == 4 and all(map(_colourless, images)):
        images = np.ascontiguousarray(images[..., 0])
    return images, errors


def common_form(
    pictures: Pictures, size: int | None = None, channels: int | None = None
) -> tuple[int, int]:
    """The size and channels that `stack` would choose, without holding more than one picture.

    Looks at every header where it has to, and decodes pictures until one has a colour in it.
    """
    shapes = _shapes(pictures) if size is None or channels is None else []
    if channels is None:
        channels = 3 if any(shape[2] == 3 for shape in shapes) and _any_colour(pictures) else 1
    return size or common_size(shapes or [(LEAST, LEAST, 1)]), channels


def common_size(shapes: Sequence[Shape]) -> int:
    """The size that `stack` brings pictures of these shapes to."""
    height, width, _ = shapes[0]
    if height == width and all(shape[:2] == (height, width) for shape in shapes):
        return height
    middle = statistics.median_low(max(shape[:2]) for shape in shapes)
    return min(max(middle, LEAST), GREATEST)


def _colourless(image: np.ndarray) -> bool:
    return bool((image[..., :1] == image).all())


def _any_colour(pictures: Pictures) -> bool:
    """Whether any picture has a colour in it; looks no further than the first that has."""
    for path in pictures.paths:
        try:
            image = decode(pictures.load(path), f"{pictures.root}/{path}")
        except DataError:
            if not pictures.skip_bad:
                raise
            continue
        if image.ndim == 3 and not _colourless(image):
            return True
    return False


def _first_shape(pictures: Pictures) -> Shape | None:
    """The shape of the first picture that can be read, None where none can."""
    for path in pictures.paths:
        try:
            data = pictures.load(path)
            if pictures.skip_bad:
                decode(data, path)
            return measure(data, f"{pictures.root}/{path}")
        except DataError:
            if not pictures.skip_bad:
                raise
    return None


def _shapes(pictures: Pictures) -> list[Shape]:
    shapes: dict[int, Shape] = {}

    def look(position: int, data: bytes, name: str) -> None:
        if pictures.skip_bad:  # what is damaged behind its header has no say
            decode(data, name)
        shapes[position] = measure(data, name)

    _each(pictures, look)
    return list(shapes.values())


def _decode(pictures: Pictures, size: int, channels: int, expected: Shape | None = None) -> Stack:
    shape = (len(pictures.paths), size, size, *((3,) if channels == 3 else ()))
    try:
        images = np.zeros(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{pictures.root}: {shape[0]:,} images of {size}x{size} pixels do not fit into memory; "
            "give a smaller size (--size), or write them into a store (`mien data store`)"
        ) from error

    def fill(position: int, data: bytes, name: str) -> None:
        image = decode(data, name)
        if expected and (*image.shape[:2], 1 if image.ndim == 2 else 3) != expected:
            raise _Mixed
        images[position] = letterbox(to_channels(image, channels), size)

    return images, _each(pictures, fill)


def _each(pictures: Pictures, work: Callable[[int, bytes, str], None]) -> dict[int, DataError]:
    """Do `work(position, bytes, name)` on each picture; give (or raise) what went wrong."""

    def do(part: range) -> dict[int, DataError]:
        errors: dict[int, DataError] = {}
        for position in part:
            path = pictures.paths[position]
            try:
                work(position, pictures.load(path), shown(f"{pictures.root}/{path}"))
            except DataError as error:
                if not pictures.skip_bad:
                    raise
                errors[position] = error
        return errors

    everything = range(len(pictures.paths))
    parts = [everything[start : start + CHUNK] for start in everything[::CHUNK]]
    if pictures.threads == 1:
        results = list(map(do, parts))
    else:
        with ThreadPoolExecutor(pictures.threads) as pool:
            results = list(pool.map(do, parts))
    return {position: error for errors in results for position, error in errors.items()}
