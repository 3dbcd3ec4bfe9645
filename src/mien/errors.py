"""The errors that Mien raises on purpose.

Each message names the file, row or setting, says what is wrong with it, and what to do.
The command line prints the message alone and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MienError(Exception):
    """Something the user can mend. The message says what, where and how."""


class DataError(MienError):
    """A data set, an image or a table cannot be used as it is."""


class RecipeError(MienError):
    """A setting of a training is unknown, out of range, or contradicts another one."""


class RunError(MienError):
    """A run folder, a checkpoint or a record cannot be used as it is."""


class OutOfMemory(RunError):
    """The accelerator's memory does not hold a training; a smaller one may fit."""


class RunInUseError(RunError):
    """Another process is training the run."""


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """The text of an error for a name that is not known, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"unknown {what} '{given}'{hint}; known: {', '.join(known)}"
