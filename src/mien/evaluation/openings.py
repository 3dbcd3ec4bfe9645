"""The openings of final test splits, written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mien.errors import RunError
from mien.runs.atomic import write_text


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
    try:
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        before = [json.loads(line) for line in known.splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}), and openings are written into it; mend it, or give "
            "another --out"
        ) from error
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines, again = [], []
    for run in runs:
        line = {"split": split, "run": run, "date": now, "data": fingerprint}
        lines.append(json.dumps(line) + "\n")
        dates = [
            row["date"]
            for row in before
            # a study notes no data, since it has but one set
            if (row["split"], row["run"], row.get("data", fingerprint)) == (split, run, fingerprint)
        ]
        if dates:
            again.append(
                f"'{split}' was opened for {run} before, first on {dates[0]}: what is chosen after "
                "that has been chosen on it"
            )
    write_text(path, known + "".join(lines))
    return again
