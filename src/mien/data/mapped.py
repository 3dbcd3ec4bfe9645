"""Where images lie that are mapped from a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien.errors import DataError


@dataclass(frozen=True)
class Mapped:
    """Where the images of a store, or a slice of them, lie: all that another process needs."""

    path: str
    offset: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, images: np.ndarray) -> Mapped | None:
        """The place of images mapped read-only from a file; None for others."""
        if not isinstance(images, np.memmap) or images.mode != "r" or images.filename is None:
            return None
        if not images.size or not images.flags.c_contiguous:
            return None
        whole = images
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        # A slice has the offset of the whole, so where it begins is told by its address.
        offset = whole.offset + images.ctypes.data - whole.ctypes.data
        return cls(str(images.filename), offset, images.shape)

    def open(self) -> np.memmap:
        """Map them again.

        Raises
        ------
        DataError
            if the file is not there, as on another machine, or is shorter than it was.
        """
        try:
            return np.memmap(self.path, np.uint8, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: cannot be mapped ({error}); a store must lie in the same place on "
                "every machine that uses it"
            ) from error
