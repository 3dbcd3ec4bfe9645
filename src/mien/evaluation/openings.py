"""The openings of final test splits, written down."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mien.errors import RunError
from mien.runs.atomic import append


def read_openings(path: Path) -> list[dict[str, Any]]:
    """The openings that are written down in a file; none where there is no file.

    Raises
    ------
    RunError
        if it is damaged or cannot be read.
    """
    try:
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in known.splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}), and openings are written into it; mend it, or give "
            "another --out"
        ) from error


def write_openings(path: Path, split: str, fingerprint: str, runs: Sequence[str]) -> list[str]:
    """Write down that a labelled test split is opened for these runs; call it before predicting.

    Parameters
    ----------
    path : ``openings.jsonl``, a line for each run and opening, in order
    split, fingerprint : of the images that are opened
    runs : names of the runs

    Returns
    -------
    list of str
        a sentence for each run for which the split was open before: its figures there are no
        longer those of a test.

    Raises
    ------
    RunError
        if the file is damaged or cannot be written.
    """
    before = read_openings(path)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines, again = [], []
    for run in runs:
        lines.append({"split": split, "run": run, "date": now, "data": fingerprint})
        dates = [
            row["date"]
            for row in before
            # studies used to note no data, since they have but one set
            if (row["split"], row["run"], row.get("data", fingerprint)) == (split, run, fingerprint)
        ]
        if dates:
            again.append(
                f"'{split}' was opened for {run} before, first on {dates[0]}: what is chosen after "
                "that has been chosen on it"
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # At its end and in one piece: of two processes that open it at once, neither loses a line.
        with path.open("ab", buffering=0) as file:
            append(file.fileno(), "".join(json.dumps(line) + "\n" for line in lines).encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another "
            "folder, then run the same command again"
        ) from error
    return again


def open_once(path: Path, split: str, fingerprint: str, runs: Sequence[str]) -> None:
    """Write down the opening for those of the runs that it is not written down for yet.

    Parameters and errors are those of `write_openings`.
    """
    known = {
        line["run"]
        for line in read_openings(path)
        if (line["split"], line.get("data", fingerprint)) == (split, fingerprint)
    }
    if new := [run for run in runs if run not in known]:
        write_openings(path, split, fingerprint, new)
