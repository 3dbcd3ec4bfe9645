"""What a request may ask for, and what all requests together may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from mien.errors import MienError
from mien.pixels import MAX_PIXELS

FORM_SIZE, JSON_SIZE = 3, 36
"""Bytes of memory that a byte of a body takes at the most, as it came, parsed, and as a PNG without
its texts: JSON can be a list of empty lists. While it comes it takes no more than a form's."""

DECODE_SIZE = 30
"""Bytes that a pixel takes while it is decoded, beside the three that stay: 29.4 of a WebP with
transparency, 19 of an RGBA PNG, 16 of a GIF."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes
    ----------
    body_mb : size of a request in MiB, counted while it is read
    images : pictures in a request
    boxes : faces that a client may name in a request
    megapixels : pixels of the pictures of a request together, in millions, before decoding; and of
        the boxes named in them
    seconds : from the whole head of a request to its answer
    queue : pictures in the server at a time; a request that finds no room is told to come again
    memory_mb : MiB that all requests together may hold, as bodies and as decoded pictures
    batch : pictures that are looked at together
    wait_ms : how long the first picture of a batch waits for others, in milliseconds
    """

    body_mb: float = 32.0
    images: int = 32
    boxes: int = 512
    megapixels: float = 50.0
    seconds: float = 30.0
    queue: int = 128
    memory_mb: float = 1792.0
    batch: int = 32
    wait_ms: float = 3.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "wait_ms" else 1e-3
            if not least <= value < float("inf"):
                raise MienError(f"limit {field.name} is {value}; give a number above 0")
        if self.megapixels > MAX_PIXELS / 1e6:
            raise MienError(
                f"limit megapixels is {self.megapixels:g}; at most {MAX_PIXELS / 1e6:g} are decoded"
            )
        if self.images > self.queue:
            raise MienError(
                f"limit images ({self.images}) is above queue ({self.queue}), so that a full "
                "request could never be taken; raise queue"
            )
        decoding = (3 + DECODE_SIZE) * self.megapixels * 1e6 / 2**20
        needed = max(JSON_SIZE * self.body_mb, FORM_SIZE * self.body_mb + decoding)
        if needed > self.memory_mb:
            raise MienError(
                f"limit memory_mb is {self.memory_mb:g}, and one full request needs {needed:.0f}; "
                "raise it, or lower body_mb or megapixels"
            )

    @property
    def body(self) -> int:
        """Size of a request in bytes."""
        return int(self.body_mb * 2**20)

    @classmethod
    def from_text(cls, settings: Mapping[str, str]) -> Limits:
        """Limits from text, such as ``{"images": "64"}``; those not named keep their defaults."""
        kinds = {name: type(value) for name, value in asdict(cls()).items()}
        values: dict[str, Any] = {}
        for name, text in settings.items():
            if name not in kinds:
                raise MienError(f"there is no limit '{name}'; there are {', '.join(kinds)}")
            try:
                values[name] = kinds[name](text)
            except ValueError:
                kind = "a whole number" if kinds[name] is int else "a number"
                raise MienError(f"limit {name} is '{text}'; give {kind}") from None
        return cls(**values)


class Refused(Exception):
    """A request that is not answered as it asked.

    Attributes
    ----------
    status : of HTTP
    detail : which picture, what is wrong, what to do
    image : number of the picture it is about, from 0
    """

    def __init__(self, status: int, detail: str, image: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.image = status, detail, image


class Budget:
    """A quantity of which only so much is given out at a time.

    Belongs to one event loop, so it needs no lock.
    """

    def __init__(self, total: float, reason: str) -> None:
        self.total, self.reason, self.taken = total, reason, 0.0

    @contextmanager
    def take(self, amount: float) -> Iterator[None]:
        """Hold so much while the block runs.

        Raises
        ------
        Refused
            with status 503, where less is left.
        """
        with self.growing() as hold:
            hold(amount)
            yield

    @contextmanager
    def growing(self) -> Iterator[Callable[[float], None]]:
        """Hold, while the block runs, all that the function it is given was told of.

        That raises `Refused`, as `take` does.
        """
        held = 0.0

        def hold(amount: float) -> None:
            nonlocal held
            if self.taken + amount > self.total:
                raise Refused(503, f"{self.reason}; try again in a moment")
            self.taken += amount
            held += amount

        try:
            yield hold
        finally:
            self.taken -= held
