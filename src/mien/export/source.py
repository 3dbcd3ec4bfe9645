"""What an export starts from: a run, the images it is checked on, and its calibration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mien.data import draw_faces
from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.export.calibration import FOLDS, Calibration, calibrate
from mien.pixels import to_channels
from mien.runs.environment import versions
from mien.runs.run import Run, digest_of
from mien.training.predict import check_ensemble, predict_probabilities
from mien.training.views import VIEWS


@dataclass(frozen=True, eq=False)
class Source:
    """A run to export.

    Attributes
    ----------
    runs : one, or those of an ensemble, whose probabilities are averaged; finished, with weights
    size, channels : of the images it takes
    train : its training split, or None where no data set was given
    checked : the images that parity is checked on; drawn faces where no data set was given
    real : whether they are those of the data set, so that accuracy can be measured on them
    views : of each image, whose probabilities are averaged
    calibration, calibrated_on : on its validation predictions, and what these are; None without any
    """

    runs: tuple[Run, ...]
    size: int
    channels: int
    train: FaceSet | None
    checked: FaceSet
    real: bool
    views: int
    calibration: Calibration | None
    calibrated_on: str

    @property
    def temperature(self) -> float:
        """What the probabilities are softened by."""
        return self.calibration.temperature if self.calibration else 1.0

    @property
    def name(self) -> str:
        """That of the run, or of all of them."""
        return " + ".join(run.name for run in self.runs)

    def provenance(self, precision: str, attention: str | None) -> dict[str, str]:
        """What a file says of itself; `attention` is what its map is, None without one."""
        run, found = self.runs[0], self.calibration
        data = run.info["data"]
        if any(member.info["data"]["train"].get("alone") is False for member in self.runs):
            data = {**data, "train": {**data["train"], "alone": False}}
        says = {
            "format": "mien 1",
            "classes": json.dumps(run.classes),
            "size": str(self.size),
            "channels": str(self.channels),
            "normalisation": json.dumps(run.info["normalisation"]),
            "precision": precision,
            "views": str(self.views),
            "temperature": f"{self.temperature:.4f}",
            "temperature_from": self.calibrated_on,
            "run": self.name,
            "data": json.dumps(data),
            "mien": versions().get("mien", "not installed"),
        }
        for number, member in enumerate(self.runs, 1):
            which = f" {number}" if number > 1 else ""
            says["recipe" + which] = member.recipe.to_toml()
            says["weights_sha256" + which] = digest_of(member.weights_path)
        if found:
            says["calibration"] = json.dumps(found.to_dict())
        if found and found.threshold:
            says["threshold"] = str(float(found.threshold.value))
        if attention:
            says["attention"] = attention
        return says


def source_of(
    run: Run | Sequence[Run],
    faces: FaceSet | None,
    *,
    views: int = 1,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> Source:
    """Gather what a run, or an ensemble of several, is exported from.

    Parameters
    ----------
    faces : the data set of the run; an ensemble needs it, for its temperature is another
    views : as of `predict_probabilities`; several need `faces`, for their temperature is another
    accuracy, coverage : wanted of the threshold, as in `calibrate`

    Raises
    ------
    RunError
        if the run enhances its images outside the network, or has no validation predictions that
        a threshold could be fitted on, or the runs of an ensemble did not have the same data.
    DataError
        if the images are not those of the run, or as `calibrate`.
    """
    runs = (run,) if isinstance(run, Run) else tuple(run)
    check_ensemble(runs)
    first = runs[0]
    for run in runs:
        if run.recipe.enhance:
            raise RunError(
                f"{run.name}: enhances its images ({', '.join(run.recipe.enhance)}) before the "
                "network sees them, which a graph cannot; train without enhance to export"
            )
        if _seen(run) != _seen(first):
            raise RunError(
                f"{run.name}: was trained or validated on other images than {first.name}; an "
                "ensemble's runs must have the same, or nothing could be said of its accuracy"
            )
    if views not in VIEWS:
        raise DataError(f"views = {views}: give {', '.join(map(str, VIEWS))}")
    if (views > 1 or len(runs) > 1) and faces is None:
        raise DataError(
            "the temperature for several views or runs is fitted on what they give together: give "
            "the data set they were trained on"
        )
    size, channels = first.size, first.info["channels"]
    splits = first.info["data"]
    train = held_out = None
    if faces is not None:
        train = faces[np.isin(faces.split, splits["train"]["split"])]
        held_out = train
        if "validation" in splits:
            held_out = _validation(first, faces)
    checked = held_out if held_out is not None else drawn(size, channels)
    for part in (train, checked):
        if part is not None and (part.size != size or part.channels != channels):
            raise DataError(
                f"{part.name}: has images of {part.size} pixels and {part.channels} channel(s), "
                f"and {first.name} takes {size} and {channels}; give the set that it was trained on"
            )
    if faces is not None:
        _check_own(first, faces)
    calibration, note = _calibration(runs, faces, views, accuracy, coverage)
    real = held_out is not None
    return Source(runs, size, channels, train, checked, real, views, calibration, note)


def _check_own(run: Run, faces: FaceSet) -> None:
    """Refuse a data set that is not the run's, by classes and its validation images."""
    same = faces.classes == run.classes
    if same and "validation" in run.info["data"]:
        noted = run.info["data"]["validation"]
        same = noted["fingerprint"] == _validation(run, faces).fingerprint
    if not same:
        raise DataError(
            f"{faces.name}: is not the data set that {run.name} was trained and validated on; give "
            "its own"
        )


def _validation(run: Run, faces: FaceSet) -> FaceSet:
    """The images of a set that are the run's validation part, by the names of its splits."""
    return faces[np.isin(faces.split, run.info["data"]["validation"]["split"])]


def _seen(run: Run) -> dict[str, str]:
    """Which images a run was trained and validated on."""
    return {role: part["fingerprint"] for role, part in run.info["data"].items()}


def drawn(size: int, channels: int) -> FaceSet:
    """Faces to look at where there is no data set."""
    faces = draw_faces(210, size=size)
    images = np.stack([to_channels(image, channels) for image in faces.images])
    return replace(faces, images=images)


def _calibration(
    runs: Sequence[Run],
    faces: FaceSet | None,
    views: int,
    accuracy: float | None,
    coverage: float | None,
) -> tuple[Calibration | None, str]:
    """The calibration on the runs' validation images, without those they were trained on."""
    run = runs[0]
    if "validation" not in run.info["data"]:
        if accuracy is not None or coverage is not None:
            raise RunError(
                f"{run.name}: was trained without validation images, on which a threshold would be "
                "fitted; leave it out, or train with some"
            )
        return None, "none: the run has no validation images"
    split = run.validation_split
    kept = run.predictions(split)
    seen, part = kept.seen, _validation(run, faces) if faces is not None else None
    train = run.training_part(faces) if faces is not None else None
    if seen is None and part is not None and train is not None:
        seen = part.stands_in(train)
    rows = kept.labels >= 0 if seen is None else (kept.labels >= 0) & ~seen
    probabilities = kept.probabilities
    if views > 1 or len(runs) > 1:
        assert part is not None  # `source_of` asks for it
        probabilities = predict_probabilities(runs, part, views=views)
    if part is not None:
        groups = part.groups
    else:  # copies have the same probabilities, up to rounding
        groups = np.unique(kept.probabilities.round(4), axis=0, return_inverse=True)[1]
    if accuracy is None and coverage is None and len(np.unique(groups[rows])) < FOLDS:
        return None, f"none: {rows.sum():,} labelled images of {split} are too few"
    found = calibrate(
        probabilities[rows],
        kept.labels[rows],
        groups[rows],
        accuracy=accuracy,
        coverage=coverage,
    )
    return found, f"fitted on {rows.sum():,} images of {split}"
