"""The pictures of a video file or a camera, decoded in a thread while others are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from mien.errors import DataError
from mien.inference.capture import CONVERT, open_capture
from mien.pixels import MAX_PIXELS

BATCH = 32
"""Most frames that are handed over at once."""

BYTES = 64 * 2**20
"""Most pixels of a batch, so that of a large video fewer frames are held. Three batches are in
memory at a time: the one looked at, the next, and the one decoded."""

RATE = 25.0
"""Frames per second where neither container nor camera tells a sane number."""

SILENCE = 0.5
"""Seconds that a video may end early before it counts as cut; containers round their length."""


@dataclass(frozen=True)
class Frame:
    """A picture of a video.

    Attributes
    ----------
    number : from 0 on, frames that are not handed over counted too
    time : seconds since the beginning, as the container tells; of a camera, since its first picture
    pixels : uint8 RGB ``[H, W, 3]``, upright
    chosen : whether it is one of those to be looked at, every `every`-th
    """

    number: int
    time: float
    pixels: np.ndarray
    chosen: bool


class Footage:
    """Opens a video or a camera and gives its frames in batches, decoded ahead in a thread.

    A file waits for whoever reads it. A camera does not: when the queue is full its oldest frame
    is dropped, so that what is shown is what is seen now. Rotation that the container asks for is
    done by OpenCV, in steps of 90 degrees.

    Parameters
    ----------
    source : a file, or the number of a camera
    every : choose every so many frames
    between : hand over the frames between the chosen ones too

    Attributes
    ----------
    name : how messages call it
    live : whether it is a camera
    rate : frames per second, of a variable rate the mean
    promised : seconds that the container says it lasts; None where it does not say
    seconds : time at which the last frame decoded so far ends
    frames : decoded so far
    dropped : frames of a camera that nobody looked at in time

    Raises
    ------
    DataError
        if there is no such file or camera, it is no video, its codec is missing, the camera is in
        use, or (when read) it has no frame that can be decoded.
    """

    def __init__(self, source: Path | int, every: int = 1, between: bool = False) -> None:
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if isinstance(source, int) else str(source)
        self._every, self._between = every, between
        self._capture = open_capture(source)
        width, height = (
            int(self._capture.get(side))
            for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MAX_PIXELS:
            self._capture.release()
            raise DataError(
                f"{self.name}: frames of {width}x{height} pixels are more than the "
                f"{MAX_PIXELS // 1_000_000} million that are decoded; shrink the video"
            )
        told, count = (
            float(self._capture.get(fact)) for fact in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
        )
        self.rate = told if 0 < told <= 240 else RATE
        self.promised = count / told if not self.live and told > 0 and count > 0 else None
        # Matroska counts its length from second 0, also where its first frame comes later: OpenCV
        # tells when in frames of this rate.
        matroska = isinstance(source, Path) and source.suffix.lower() in (".mkv", ".webm")
        self._from_zero = told if matroska else 0.0
        self.seconds, self.frames, self.dropped = 0.0, 0, 0
        self._batch = max(1, min(BATCH, BYTES // max(3 * width * height, 1)))
        self._queue: Queue[Frame | None] = Queue(self._batch)
        self._stop, self._ended = Event(), False
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._decode, name=f"decoding {self.name}", daemon=True)

    def __iter__(self) -> Iterator[list[Frame]]:
        """The frames in order, in batches of a file as full as can be, of a camera what is there.

        Raises
        ------
        DataError
            if there is not a single frame.
        """
        self._thread.start()
        last = False
        while not last:
            waiting = self._queue.get()
            batch = []
            while waiting is not None:
                batch.append(waiting)
                if len(batch) == self._batch:
                    break
                try:
                    waiting = self._queue.get(block=not self.live)
                except Empty:
                    break
            last = waiting is None
            if batch:
                yield batch
        if self._failure is not None:
            raise self._failure
        if not self.frames:
            raise DataError(self._nothing())

    def cut(self) -> str | None:
        """What to tell of a video that ended before its promised end; None of one that did not."""
        if self.live and self._ended:
            return f"{self.name}: gave no more pictures after second {self.seconds:.2f}"
        slack = max(SILENCE, 2 / self.rate)
        if self.promised is None or self.seconds >= self.promised - slack:
            return None
        return (
            f"{self.name}: ended at second {self.seconds:.2f}, and its container promises "
            f"{self.promised:.2f} s: it is truncated or damaged; what could be decoded was used"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():  # it may be waiting for room in the queue
            try:
                self._queue.get(timeout=0.01)
            except Empty:
                continue
        self._capture.release()

    def _decode(self) -> None:
        """Fill the queue until the video ends; what goes wrong is raised where it is read."""
        try:
            began, last = 0.0, -1.0
            while not self._stop.is_set():
                if not self._capture.grab():
                    self._ended = True
                    break
                if self._from_zero > 0 and not self.frames and self.promised is not None:
                    late = self._capture.get(cv2.CAP_PROP_PTS) / self._from_zero
                    self.promised -= max(0.0, late)
                if self.live:
                    began = began or monotonic()
                    time = monotonic() - began
                else:
                    time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    # Raw streams tell no times, and joined ones begin again in the middle.
                    if self.frames and time <= last:
                        time = self.seconds
                chosen = self.frames % self._every == 0
                if chosen or self._between:
                    whole, pixels = self._capture.retrieve()
                    if not whole:
                        break
                    self._put(Frame(self.frames, time, _rgb(pixels), chosen))
                self.frames += 1
                last, self.seconds = time, time + 1 / self.rate
        except BaseException as error:
            self._failure = error
        self._queue.put(None)

    def _put(self, frame: Frame) -> None:
        if not self.live:
            self._queue.put(frame)
            return
        while True:
            try:
                return self._queue.put_nowait(frame)
            except Full:
                try:
                    self._queue.get_nowait()
                    self.dropped += 1
                except Empty:  # taken by the reader meanwhile
                    continue

    def _nothing(self) -> str:
        if self.live:
            return (
                f"{self.name}: is there and gives no picture: another program uses it; close that "
                "one, or choose another camera"
            )
        count = f" and promises {self.promised:.2f} s" if self.promised is not None else ""
        told = int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        codec = told.to_bytes(4, "little")
        return (
            f"{self.name}: holds codec {codec.decode('latin-1')!r}{count}, but not one frame can "
            f"be decoded: it is damaged, or {CONVERT}"
        )


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's picture as RGB; some cameras give grey ones."""
    grey = pixels.ndim == 2 or pixels.shape[2] == 1
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB)
