"""Decoded data sets on disk, so that the second reading takes a fraction of a second.

One file a data set and way of reading, under ``~/.cache/mien`` (``MIEN_CACHE`` names another
folder). It holds the state of the source it was made from, and is remade when that has changed.
A cache that cannot be read or written costs time, never a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from mien.data.faceset import FaceSet

FORMAT = 3
"""Raise it when a reader gives other pixels, labels or names than before, or refuses more."""

COLUMNS = ("images", "labels", "names", "split", "groups", "origin")


def folder() -> Path:
    """Where the cache lies."""
    try:
        return Path(os.environ.get("MIEN_CACHE") or "~/.cache/mien").expanduser()
    except RuntimeError:  # nobody's home, as of a container's user without an entry
        return Path(os.devnull) / "mien"  # can be neither read nor written


def load(path: Path, settings: str, state: str) -> FaceSet | None:
    """The set that `save` kept for the same path and settings, if the source's state is the same.

    Parameters
    ----------
    path : the source
    settings : how it is read
    state : changes whenever the source does
    """
    try:
        with np.load(_file(path, settings), allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["state"] != state:
                return None
            columns = {key: stored[key] for key in COLUMNS}
        return FaceSet(
            **columns,
            classes=tuple(about["classes"]),
            name=about["name"],
            notes=tuple(about["notes"]),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def save(path: Path, settings: str, state: str, faces: FaceSet) -> None:
    """Keep a set as it was read; without room or permission nothing is left behind."""
    about = {
        "state": state,
        "classes": faces.classes,
        "name": faces.name,
        "notes": faces.notes,
    }
    file = _file(path, settings)
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=file.stem, suffix=".tmp", delete=False
        ) as out:
            temporary = out.name
            columns = {key: getattr(faces, key) for key in COLUMNS}
            np.savez(out, about=np.array(json.dumps(about)), **columns)
        # Not synced to the disk: checksums give away a file that a power cut has torn.
        os.replace(temporary, file)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _file(path: Path, settings: str) -> Path:
    key = f"{FORMAT}\n{path.resolve()}\n{settings}"
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()
    return folder() / f"{path.stem or 'data'}-{digest[:16]}.npz"
