"""From the body of a request to pictures: counted, parsed in memory, measured, decoded."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from mien.detection.boxes import checked
from mien.detection.found import Box
from mien.errors import DataError
from mien.pixels import decode, measure
from mien.server.limits import Limits, Refused

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""What strangers may send. Headers of TIFF and PPM can cost far more than their bytes."""

TYPES = "multipart/form-data with files, or application/json with base64"


@dataclass(frozen=True)
class Sent:
    """A picture as it was sent.

    Attributes
    ----------
    name : how messages call it
    data : the bytes of the file
    boxes : the faces the client knows of; None to have them found
    size : width and height, upright
    """

    name: str
    data: bytes
    boxes: list[Box] | None
    size: tuple[int, int]

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


def check_head(request: Request, limits: Limits) -> str:
    """The content type of a request whose head can be taken.

    Raises
    ------
    Refused
        with status 415 for another type, 413 for a length above the limit.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind not in (b"multipart/form-data", b"application/json"):
        shown = request.headers.get("content-type") or "no content type"
        raise Refused(415, f"the body is {shown}; send {TYPES}")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body:
        raise _too_large(limits)
    return kind.decode()


async def receive(request: Request, limits: Limits, hold: Callable[[int], object]) -> bytes:
    """The body, counted while it is read, so that what is too large is never held.

    `hold` is told of every part how many bytes it has, and may refuse it: a length that is only
    promised takes nothing from others.
    """
    body = bytearray()
    try:
        async for part in request.stream():
            hold(len(part))
            body += part
            if len(body) > limits.body:
                raise _too_large(limits)
    except ClientDisconnect:
        raise Refused(400, "the client went away before the body had come") from None
    return bytes(body)


def parse(body: bytes, content_type: str, limits: Limits) -> list[Sent]:
    """The pictures of a body, measured from their headers and not decoded yet.

    Raises
    ------
    Refused
        with status 400 for a body that cannot be parsed, 413 for too many pictures or pixels, 422
        for a picture or a box that cannot be taken.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"application/json":
        files, boxes = _from_json(body, limits)
    else:
        files, boxes = _from_form(body, options, limits)
    if not files:
        where = "'images': [...]" if kind == b"application/json" else "one or more files"
        raise Refused(422, f"there is no picture in the request; send {where}")
    _check_number(len(files), limits)
    if boxes is not None and (not isinstance(boxes, list) or len(boxes) != len(files)):
        raise Refused(
            422,
            f"boxes must be a list with an entry for each of the {len(files)} pictures: a list of "
            "[x, y, width, height], or null to have faces found",
        )
    named = sum(len(own) for own in boxes or () if isinstance(own, list))
    if named > limits.boxes:
        raise Refused(
            413, f"{named:,} boxes, and a request may have {limits.boxes}; send it in parts"
        )
    sent = []
    for number, (name, data) in enumerate(files):
        try:
            height, width, _ = measure(data, name, FORMATS)
        except DataError as error:
            raise damaged(error, number) from error
        own = None if boxes is None else _boxes(boxes[number], (width, height), name, number)
        sent.append(Sent(name, data, own, (width, height)))
    pixels = sum(one.pixels for one in sent) / 1e6
    if pixels > limits.megapixels:
        raise Refused(
            413,
            f"the pictures have {pixels:.1f} million pixels, and a request may have "
            f"{limits.megapixels:g}; shrink them, or send them in parts",
        )
    looked = sum(w * h for one in sent for _, _, w, h in one.boxes or ()) / 1e6
    if looked > limits.megapixels:
        raise Refused(
            413,
            f"the boxes have {looked:.1f} million pixels, and those of a request may have "
            f"{limits.megapixels:g}; name fewer or smaller faces",
        )
    return sent


def pixels_of(sent: Sequence[Sent]) -> list[np.ndarray]:
    """The pictures decoded, uint8 ``[H, W]`` or ``[H, W, 3]`` each.

    Raises
    ------
    Refused
        with status 422 for what is truncated or damaged.
    """
    found = []
    for number, one in enumerate(sent):
        try:
            found.append(decode(one.data, one.name))
        except DataError as error:
            raise damaged(error, number) from error
    return found


def damaged(error: DataError, number: int) -> Refused:
    """What a client is told of a picture. The last clause of the error is about files on a disk."""
    return Refused(422, f"{str(error).rpartition('; ')[0] or error}; send another one", number)


def _check_number(pictures: int, limits: Limits) -> None:
    if pictures > limits.images:
        raise Refused(
            413, f"{pictures} pictures, and a request may have {limits.images}; send it in parts"
        )


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, f"the body is above {limits.body_mb:g} MiB; send smaller pictures, or fewer at a time"
    )


def _from_json(body: bytes, limits: Limits) -> tuple[list[tuple[str, bytes]], Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON ({error}); send {{'images': [...]}}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images", []), list):
        raise Refused(422, "send {'images': [BASE64, ...]}, and 'boxes' where you know the faces")
    unknown = sorted(set(content) - {"images", "boxes"})
    if unknown:
        shown = ", ".join(repr(key[:80]) for key in unknown[:5])
        raise Refused(
            422,
            f"the body has {shown}, which is not known; it takes 'images' and 'boxes', and the "
            "address takes ?attention=true and ?detector=none",
        )
    images = content.get("images", [])
    _check_number(len(images), limits)
    files = []
    for number, text in enumerate(images):
        name = f"picture {number}"
        try:
            if not isinstance(text, str):
                raise ValueError(f"is a {type(text).__name__}")
            files.append((name, base64.b64decode(text, validate=True)))
        except (ValueError, binascii.Error) as error:
            raise Refused(
                422,
                f"{name}: is no base64 ({error}); send the file's bytes, without 'data:'",
                number,
            ) from error
    return files, content.get("boxes")


def _from_form(
    body: bytes, options: dict[bytes, bytes], limits: Limits
) -> tuple[list[tuple[str, bytes]], Any]:
    try:
        parts = _parts(body, options[b"boundary"], limits.images)
    except (KeyError, FormParserError) as error:
        raise Refused(400, f"the form cannot be read ({error}); send {TYPES}") from error
    files: list[tuple[str, bytes]] = []
    boxes = None
    for field, filename, content in parts:
        if filename is not None:
            files.append((f"picture {len(files)} ({filename[:80]})", content))
        elif field == "boxes":
            # A box, and what stands around those of a picture, is shorter than 100 characters.
            if len(content) > 100 * (limits.boxes + limits.images):
                raise Refused(
                    413, f"boxes have {len(content):,} bytes; a request may have {limits.boxes}"
                )
            try:
                boxes = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise Refused(422, f"boxes are no JSON ({error}); send [[[x, y, w, h]]]") from error
        else:
            raise Refused(
                422, f"the form has '{field}', which is not known; it takes files and 'boxes'"
            )
    return files, boxes


def _parts(body: bytes, boundary: bytes, images: int) -> list[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part of a form with at most so many images.

    Parsed here rather than by `request.form()`, which writes large files into a temporary folder:
    nothing that is sent is to touch the disk.
    """
    parts: list[tuple[str, str | None, bytes]] = []
    headers: dict[bytes, bytes] = {}
    ended: list[bool] = []
    field, value, content = bytearray(), bytearray(), bytearray()

    def begin() -> None:
        headers.clear()
        content.clear()
        if len(parts) > images + 1:  # the boxes are a part too; more are counted by nobody
            raise Refused(413, f"a request may have {images} pictures; send them in parts")

    def header_end() -> None:
        headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def end() -> None:
        _, options = parse_options_header(headers.get(b"content-disposition"))
        filename = options.get(b"filename")
        parts.append(
            (
                options.get(b"name", b"").decode(errors="replace"),
                None if filename is None else filename.decode(errors="replace"),
                bytes(content),
            )
        )

    def into(buffer: bytearray) -> Any:
        return lambda data, start, stop: buffer.extend(data[start:stop])

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": into(field),
            "on_header_value": into(value),
            "on_header_end": header_end,
            "on_part_data": into(content),
            "on_part_end": end,
            "on_end": lambda: ended.append(True),
        },
    )
    parser.write(body)
    if not ended:
        raise FormParserError("it ends before its last boundary")
    return parts


def _boxes(boxes: Any, size: tuple[int, int], name: str, number: int) -> list[Box] | None:
    """Boxes as whole numbers within their picture."""
    if boxes is None:
        return None
    try:
        return checked(boxes, size[::-1], name)
    except DataError as error:
        raise Refused(422, str(error), number) from error
