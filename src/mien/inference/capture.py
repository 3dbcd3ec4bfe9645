"""Opening a video or a camera, without a word of OpenCV's own, and why it could not be opened."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from mien.errors import DataError
from mien.pixels import shown

CONVERT = (
    "OpenCV lacks its codec; convert it with a program that has it, such as "
    "`ffmpeg -i IN -c:v libx264 OUT.mp4`"
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from writing to standard error; our own messages say it."""
    # FFmpeg's level is read once, when the process opens its first video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def open_capture(source: Path | int) -> cv2.VideoCapture:
    """Open a file with OpenCV's FFmpeg, or the camera of a number.

    Raises
    ------
    DataError
        saying why that cannot be done.
    """
    if isinstance(source, int):
        if not 0 <= source < 100:  # of which OpenCV dies
            raise DataError(f"camera {source} is not possible; give 0 to 99")
        with quiet():
            capture = cv2.VideoCapture(source)
        if not capture.isOpened():
            raise DataError(_no_camera(source))
        return capture
    if not source.exists():
        raise DataError(f"{source}: there is no such file; check the path")
    if not source.is_file():  # a folder or a pipe, in which nobody can go back
        raise DataError(f"{source}: is not a file; give a video that lies in one")
    with quiet():
        capture = cv2.VideoCapture(for_ffmpeg(source), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(_no_video(source))
    # FFmpeg takes any text for an animation of terminal characters.
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"ansi"):
        capture.release()
        raise DataError(f"{source}: is text, not a video; check the file")
    return capture


def for_ffmpeg(path: Path) -> str:
    """The path as OpenCV hands it to FFmpeg: from the root, or ``10:30.mp4`` names a protocol.

    Raises
    ------
    DataError
        if it is not UTF-8, of which OpenCV dies.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{shown(whole)}: OpenCV takes UTF-8 names of videos alone; rename it"
        ) from None
    return whole


def _no_camera(number: int) -> str:
    if sys.platform == "linux":
        device = Path(f"/dev/video{number}")
        if not device.exists():
            there = ", ".join(sorted(path.name[5:] for path in Path("/dev").glob("video*")))
            return f"camera {number}: there is none ({device}); cameras here: {there or 'none'}"
        if not os.access(device, os.R_OK | os.W_OK):
            return f"camera {number}: {device} may not be read by you; join the group 'video'"
    return (
        f"camera {number}: cannot be opened: there is none, or another program uses it; close "
        "that one, or choose another camera"
    )


def _no_video(path: Path) -> str:
    """Why OpenCV does not open a file, from its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(2**16)
        if not head:
            return f"{path}: is empty"
        if head[4:8] == b"ftyp" and not _has_index(path):
            return (
                f"{path}: is an MP4 without its index, as one is left that was never finished or "
                "that is truncated; none of it can be decoded. Record or fetch it again"
            )
    except OSError as error:
        return f"{path}: {error.strerror or error}; check the path"
    codec = re.search(rb"vids(\w{4})", head)
    if codec:
        return f"{path}: is a video of codec {codec[1].decode()!r}, but {CONVERT}"
    if head[4:8] == b"ftyp" or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3", b"OggS", b"FLV\x01"):
        return f"{path}: is a video, but it is damaged, or {CONVERT}"
    return f"{path}: is no video that OpenCV's FFmpeg knows, or its beginning is damaged"


def _has_index(path: Path) -> bool:
    """Whether an MP4 has the box 'moov' (ISO/IEC 14496-12), which stands last in many."""
    with path.open("rb") as file:
        place, end = 0, path.stat().st_size
        while place + 8 <= end:
            file.seek(place)
            size, kind = int.from_bytes(file.read(4)), file.read(4)
            if size == 1:
                size = int.from_bytes(file.read(8))
            if kind == b"moov":
                return place + size <= end
            if size < 8:  # 0: to the end of the file
                return False
            place += size
    return False
