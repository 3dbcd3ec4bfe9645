"""A place for finished runs that several machines reach: a folder, NFS or S3, by fsspec."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mien.errors import RunError
from mien.runs.atomic import LEFTOVER, write_bytes
from mien.runs.lock import locked
from mien.runs.run import Run

LAST = "run.json"
"""Written when all else is there: it makes a folder a finished run."""


class RunStore:
    """Finished runs by name, in a folder or under a URL that fsspec knows.

    Every file is written whole or not at all, and ``run.json`` last, into the store and out of it.
    So whoever looks finds a run complete or not at all, also when a machine dies meanwhile.

    Parameters
    ----------
    url : a folder, or ``s3://bucket/folder``, ``memory://folder``, ...

    Raises
    ------
    RunError
        if fsspec or its driver for such a URL is missing, or, here and in every method, the store
        cannot be reached or written.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._files: Any
        with self._reached():
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(self.url)

    def put(self, run: Path) -> None:
        """Leave the finished run in the folder `run` in the store, unless it is there.

        Raises
        ------
        RunError
            if it is no run, or not finished.
        """
        if not Run.open(run).finished:
            raise RunError(f"{run}: is not finished, so it cannot be put into {self.url}")
        if self.has(run.name):
            return
        files = [file for file in run.iterdir() if file.is_file() and _kept(file.name)]
        with self._reached():
            self._files.makedirs(f"{self._root}/{run.name}", exist_ok=True)
            for file in sorted(files, key=lambda file: file.name == LAST):
                self._send(file, f"{self._root}/{run.name}")

    def fetch(self, name: str, runs: Path) -> Path:
        """Bring a run into the folder `runs`, unless it is finished there, and return its folder.

        What an unfinished training of it has left there is replaced.

        Raises
        ------
        RunError
            if the store has no such run, or another process is training it in `runs`.
        """
        target = runs / name
        if (target / LAST).exists() and Run.open(target).finished:
            return target
        if not self.has(name):
            raise RunError(
                f"{self.url}: has no run '{name}'; is it one place that all machines reach?"
            )
        with locked(target):
            with self._reached():
                paths = self._files.ls(f"{self._root}/{name}", detail=False)
            found = {path.split("/")[-1]: path for path in paths}
            for file in sorted(filter(_kept, found), key=lambda file: file == LAST):
                with self._reached():
                    content = self._files.cat_file(found[file])
                write_bytes(target / file, content)
            if "checkpoint.pt" not in found:  # then it is one of the unfinished training
                (target / "checkpoint.pt").unlink(missing_ok=True)
        return target

    def has(self, name: str) -> bool:
        """Whether the store has the run called `name`, finished."""
        path = f"{self._root}/{name}/{LAST}"
        with self._reached():
            self._files.invalidate_cache()
            if not self._files.exists(path):
                return False
            # The store may be a folder that others train in.
            return json.loads(self._files.cat_file(path)).get("state") == "finished"

    def _send(self, file: Path, folder: str) -> None:
        temporary = f"{folder}/.{file.name}.{uuid.uuid4().hex}{LEFTOVER}"
        try:
            self._files.put_file(str(file), temporary)
            self._files.mv(temporary, f"{folder}/{file.name}")
        except Exception:
            with contextlib.suppress(Exception):
                self._files.rm_file(temporary)
            raise

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Name the store in what goes wrong with it; every driver has errors of its own."""
        try:
            yield
        except ImportError as error:
            raise RunError(
                f"{self.url}: {error}. A run store needs mien[cluster] and the fsspec driver of "
                "its kind (s3fs for s3://), on every machine"
            ) from error
        except Exception as error:
            raise RunError(
                f"{self.url}: the run store cannot be used ({error}); mend it or name another, "
                "then give the same command again: finished runs are kept"
            ) from error


def _kept(file: str) -> bool:
    """Whether a file belongs to a run: it is no lock, and nothing half-written."""
    return not file.startswith(".")
