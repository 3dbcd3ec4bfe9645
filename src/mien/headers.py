"""Headers of pictures, looked through before Pillow is given the file.

Pillow reads them piece by piece in Python, with the interpreter's lock held, and unpacks or keeps
what nobody asks for, so that a file can cost a thousand times its bytes before it is measured.
What does is left out here, or refused.
"""

from __future__ import annotations

import io
import re
import struct

from mien.errors import DataError

SCANS = 200
"""Most scans of a JPEG that is decoded; a progressive one has about ten, and each takes as long."""

SEGMENTS = 1000
"""Most segments before the first scan of a JPEG; Pillow appends each of Exif to those before."""

TABLES = 2**20
"""Most bytes before the first scan of a JPEG that no application (APP0 to 15) put there."""

CHUNKS = 100_000
"""Most chunks of a PNG, each 6 microseconds of Python; 80 million pixels in 8 KiB each are 30,000.
"""

UNUSED = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
"""Chunks of a PNG that change no pixel here; a KiB of three of them unpacks to a MiB."""

READS = 400_000
"""Most pieces that Pillow takes a GIF in, two for each block of a comment and of an extension."""

REMEDY = "replace or remove it, or read with skip_bad (--skip-bad)"

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BARE = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})  # markers without a length


def guarded(data: bytes, name: str) -> io.BytesIO:
    """A picture as a file of which Pillow can read the header in about a second.

    Raises
    ------
    DataError
        for more scans, segments, chunks or blocks than pictures have. What is damaged is left to
        Pillow.
    """
    if data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, name)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        data = _lean_png(data, name)
    elif data.startswith(b"GIF8"):
        return _Counted(data, name)
    return io.BytesIO(data)


def _refused(name: str, what: str) -> DataError:
    return DataError(f"{name}: {what} is not decoded; {REMEDY}")


def _check_jpeg(data: bytes, name: str) -> None:
    # In what is coded, and in few other places, these bytes mark nothing but the start of a scan.
    if data.count(b"\xff\xda") > SCANS:
        raise _refused(name, f"a JPEG of more than {SCANS} scans")
    place, applications = 2, 0
    for _ in range(SEGMENTS):
        marker = _MARKER.search(data, place, place + TABLES)
        place = marker.end() if marker else len(data)
        if place - applications > TABLES:
            raise _refused(name, "a JPEG of more than a MiB of tables and comments")
        if marker is None or marker[0] == b"\xff\xda":  # the first scan
            return
        kind = data[place - 1]
        if kind not in _BARE:
            length = max(2, int.from_bytes(data[place : place + 2]))
            place += length
            applications += length if 0xE0 <= kind <= 0xEF else 0
    raise _refused(name, f"a JPEG of more than {SEGMENTS:,} segments before its first scan")


def _lean_png(data: bytes, name: str) -> bytes:
    """A PNG without its unused chunks, as far as the list of its chunks can be followed."""
    kept: list[memoryview] = []
    begin, place = 0, 8
    for _ in range(CHUNKS):
        if place + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data) or kind == b"IEND":
            break
        if kind in UNUSED:
            kept.append(memoryview(data)[begin:place])
            begin = end
        place = end
    else:
        raise _refused(name, f"a PNG of more than {CHUNKS:,} chunks")
    return b"".join((*kept, memoryview(data)[begin:])) if kept else data


class _Counted(io.BytesIO):
    """A file that can be read so many times; Pillow alone knows where it sees a block of a GIF."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name, self.left = name, READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise _refused(self.name, f"a GIF of more than {READS // 2:,} blocks of comments")
        return super().read(size)
