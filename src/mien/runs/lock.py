"""A folder that one process at a time may write to."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from mien.errors import RunError, RunInUseError


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold `folder`, made where it is missing, for this process alone.

    The lock is the operating system's and ends with the process, however that ends. With `wait`,
    another process that holds it is waited for.

    Raises
    ------
    RunInUseError
        if another process holds it and is not waited for.
    RunError
        if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); check its permissions"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RunInUseError(
                f"{folder}: another process is training this run; wait until it is done"
            ) from None
        except OSError as error:
            raise RunError(
                f"{folder}: its file system has no locks ({error.strerror}); take another folder"
            ) from error
        yield
