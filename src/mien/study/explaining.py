"""What the best CBAM model of a study looks at."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.explanation import explain_split
from mien.runs.run import Run

STEPS = 6
"""In how many parts pixels are taken away; an explanation is not to cost a training."""


def explain_best(
    trained: Mapping[str, Run], held_out: FaceSet, each: int, device: str = "cpu"
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """Explain the CBAM model with the highest accuracy on the validation split.

    Parameters
    ----------
    trained : finished runs by key; those without weights (records) cannot be asked
    held_out : the validation split
    each : faces of a predicted class
    device : as of `explain_split`

    Returns
    -------
    as `explain_split`; None and nothing where no CBAM model has weights
    """
    able = [
        run
        for run in trained.values()
        if run.recipe.attention == "cbam" and run.weights_path.exists()
    ]
    if not able:
        return None, {}
    best = max(able, key=_accuracy)
    print(f"study: what {best.recipe.title} looks at", file=sys.stderr)
    count = each * len(best.classes)
    return explain_split(best, held_out, count=count, steps=STEPS, device=device)


def _accuracy(run: Run) -> float:
    """Without the images that stand in training too, where the run noted them."""
    found = run.predictions(run.validation_split)
    right = found.probabilities.argmax(1) == found.labels
    return float(right.mean() if found.seen is None else right[~found.seen].mean())
