"""What an export starts from: a run, the images it is checked on, and its calibration."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from mien.data import draw_faces
from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.export.calibration import FOLDS, Calibration, calibrate
from mien.pixels import to_channels
from mien.runs.environment import versions
from mien.runs.run import Run, digest_of
from mien.training.predict import predict_probabilities
from mien.training.views import VIEWS


@dataclass(frozen=True, eq=False)
class Source:
    """A run to export.

    Attributes
    ----------
    run : finished, with weights
    size, channels : of the images it takes
    train : its training split, or None where no data set was given
    checked : the images that parity is checked on; drawn faces where no data set was given
    real : whether they are those of the data set, so that accuracy can be measured on them
    views : of each image, whose probabilities are averaged
    calibration, calibrated_on : on its validation predictions, and what these are; None without any
    """

    run: Run
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

    def provenance(self, precision: str, attention: str | None) -> dict[str, str]:
        """What a file says of itself; `attention` is what its map is, None without one."""
        run, found = self.run, self.calibration
        says = {
            "format": "mien 1",
            "classes": json.dumps(run.classes),
            "size": str(self.size),
            "channels": str(self.channels),
            "precision": precision,
            "views": str(self.views),
            "temperature": f"{self.temperature:.4f}",
            "temperature_from": self.calibrated_on,
            "run": run.name,
            "recipe": run.recipe.to_toml(),
            "data": json.dumps(run.info["data"]),
            "weights_sha256": digest_of(run.weights_path),
            "mien": versions()["mien"],
        }
        if found:
            says["calibration"] = json.dumps(found.to_dict())
        if found and found.threshold:
            says["threshold"] = f"{found.threshold.value:.6f}"
        if attention:
            says["attention"] = attention
        return says


def source_of(
    run: Run,
    faces: FaceSet | None,
    *,
    views: int = 1,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> Source:
    """Gather what a run is exported from.

    Parameters
    ----------
    faces : the data set of the run
    views : as of `predict_probabilities`; several need `faces`, for their temperature is another
    accuracy, coverage : wanted of the threshold, as in `calibrate`

    Raises
    ------
    RunError
        if the run enhances its images outside the network, or has no validation predictions that
        a threshold could be fitted on.
    DataError
        if the images are not those of the run, or as `calibrate`.
    """
    if run.recipe.enhance:
        raise RunError(
            f"{run.name}: enhances its images ({', '.join(run.recipe.enhance)}) before the network "
            "sees them, which a graph cannot; train without enhance to export"
        )
    if views not in VIEWS:
        raise DataError(f"views = {views}: give {', '.join(map(str, VIEWS))}")
    if views > 1 and faces is None:
        raise DataError(
            f"the temperature for {views} views is fitted on what they give: give the data set of "
            "the run"
        )
    size, channels = run.info.get("size", run.recipe.image_size), run.info["channels"]
    splits = run.info["data"]
    train = held_out = None
    if faces is not None:
        train = faces[splits["train"]["split"][0]]
        held_out = faces[splits["validation"]["split"][0]] if "validation" in splits else train
    checked = held_out if held_out is not None else _drawn(size, channels)
    for part in (train, checked):
        if part is not None and (part.size != size or part.channels != channels):
            raise DataError(
                f"{part.name}: has images of {part.size} pixels and {part.channels} channel(s), "
                f"and {run.name} takes {size} and {channels}"
            )
    calibration, note = _calibration(run, faces, views, accuracy, coverage)
    real = held_out is not None
    return Source(run, size, channels, train, checked, real, views, calibration, note)


def _drawn(size: int, channels: int) -> FaceSet:
    """Faces to look at where there is no data set."""
    faces = draw_faces(210, size=size)
    images = np.stack([to_channels(image, channels) for image in faces.images])
    return replace(faces, images=images)


def _calibration(
    run: Run, faces: FaceSet | None, views: int, accuracy: float | None, coverage: float | None
) -> tuple[Calibration | None, str]:
    """The calibration on the run's validation predictions, without images it was trained on."""
    if "validation" not in run.info["data"]:
        if accuracy is not None or coverage is not None:
            raise RunError(
                f"{run.name}: was trained without validation images, on which a threshold would be "
                "fitted; leave it out, or train with some"
            )
        return None, "none: the run has no validation images"
    split = run.info["data"]["validation"]["split"][0]
    kept = run.predictions(split)
    seen, part = kept.seen, faces[split] if faces is not None else None
    train = run.training_part(faces) if faces is not None else None
    if seen is None and part is not None and train is not None:
        seen = part.stands_in(train)
    rows = kept.labels >= 0 if seen is None else (kept.labels >= 0) & ~seen
    if part is not None and not np.array_equal(part.names, kept.names):
        part = None  # the images of another set
    probabilities = kept.probabilities
    if views > 1:
        if part is None:
            raise DataError(
                f"{split} has other images than {run.name} saw there; give its own data"
            )
        probabilities = predict_probabilities(run, part, views=views)
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
