"""Models measured on a data set: from paths to all that a report of it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mien.data import read
from mien.data.class_map import map_classes, read_class_map
from mien.evaluation.evaluated import evaluate_models
from mien.evaluation.groups import read_groups
from mien.evaluation.openings import write_openings
from mien.evaluation.part import part_of
from mien.evaluation.trained import open_all, remembered


def measure(
    models: Sequence[Path],
    data: str,
    out: Path,
    *,
    split: str | None = None,
    classes: Path | None = None,
    groups: Path | None = None,
    corruptions: bool = False,
    seed: int = 0,
    device: str | None = None,
    skip_bad: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure models where they will be used, and write down if a final test split is opened.

    Parameters
    ----------
    models : as of `mien.evaluation.trained.open_all`
    data : as of `mien.data.read`
    out : folder that keeps predictions, so that it goes on where it was interrupted, and openings
    split : as of `mien.evaluation.part.part_of`
    classes : a file for `mien.data.class_map.read_class_map`
    groups : a file for `mien.evaluation.groups.read_groups`
    corruptions, seed : as of `evaluate_models`
    progress : is told what was found and what is measured next

    Returns
    -------
    dict
        that of `evaluate_models`, with ``data``, ``opened`` (the name of the test split, or None),
        ``notes``, ``classes``, ``unlisted``, ``seed`` and ``date``

    Raises
    ------
    DataError, RunError
        before anything is predicted, if models, images, classes, groups or split do not fit.
    """
    mapping = read_class_map(classes) if classes else None
    opened = open_all(models, device)
    first = opened[0]
    faces = read(data, size=first.size, channels=first.channels, skip_bad=skip_bad)
    part = part_of(faces, opened, split)
    chosen, mapped = map_classes(part.faces, first.classes, mapping, str(classes or ""))
    given = read_groups(groups, chosen.names) if groups else None
    for row in mapped if classes else ():
        progress(f"{row.theirs} -> {row.ours or 'left out'}: {row.images:,} images")
    if given:
        progress(f"groups: {given.unlisted:,} of {len(chosen):,} images are not in {groups}")
        if given.elsewhere:
            progress(f"groups: {given.elsewhere:,} rows are about other images")
    notes = [*faces.notes, *part.notes]
    if part.opened:
        names = [model.name for model in opened]
        notes += write_openings(out / "openings.jsonl", part.opened, part.fingerprint, names)
    found = evaluate_models(
        [remembered(model, out / "predictions") for model in opened],
        chosen,
        given.columns if given else {},
        corruptions=corruptions,
        seed=seed,
        progress=progress,
    )
    return found | {
        "data": {
            "name": chosen.name,
            "fingerprint": chosen.fingerprint,
            "split": part.name,
            "role": part.role,
        },
        "opened": part.opened,
        "notes": notes,
        "classes": [vars(row) for row in mapped],
        "unlisted": given and given.unlisted,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
