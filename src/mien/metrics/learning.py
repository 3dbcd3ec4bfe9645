"""What the log of a training says: how fast, how steady.

A log is a sequence of rows, one an epoch, in order, with the key ``validation_accuracy`` (a share;
None or NaN where there was no validation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Log = Sequence[Mapping[str, Any]]


def column(log: Log, key: str) -> np.ndarray:
    """One key of a log as float64 ``[epochs]``; NaN where a row lacks it or has None."""
    values = (row.get(key) for row in log)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def epochs_to(log: Log, accuracy: float) -> int | None:
    """Number of epochs until validation accuracy first reached `accuracy`; None if it never did."""
    reached = np.flatnonzero(column(log, "validation_accuracy") >= accuracy)
    return int(reached[0]) + 1 if len(reached) else None


def last_epochs_spread(log: Log, last: int = 5) -> float:
    """Standard deviation of validation accuracy over the `last` epochs (n - 1 in the divisor).

    NaN where fewer than two of them were validated.
    """
    tail = column(log, "validation_accuracy")[-last:]
    tail = tail[~np.isnan(tail)]
    return float(tail.std(ddof=1)) if len(tail) > 1 else float("nan")
