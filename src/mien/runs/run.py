"""A run: the folder of one training, named by its content."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet, image_hashes
from mien.errors import RecipeError, RunError
from mien.packaged import PACKAGED
from mien.runs.atomic import save_with, write_bytes
from mien.runs.folder import RunFolder
from mien.runs.generator_recipe import generator_recipe
from mien.runs.recipe import Recipe

FORMAT = 1
"""Version of the folder's layout; a run of another version is refused, not guessed at."""

TRAINING_CODE = 1
"""Version of what training computes. Raise it when the same recipe would give other weights."""

WEIGHTS = "weights.safetensors"
"""The file of a run's weights."""

RECORD_FILES = ("recipe.toml", "log.jsonl", "predictions.npz", "run.json")
"""What a record of a finished run keeps, everything but the weights; ``run.json`` makes it one."""

UNREADABLE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
"""What a damaged ``predictions.npz`` raises."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities a run gave to the images of one split.

    `names` str ``[n]``, `labels` int64 ``[n]`` (-1 unknown), `probabilities` float32 ``[n, C]``,
    `seen` bool ``[n]``: which stand pixel for pixel in the run's training part, and `pixels`, 16
    hex digits over the images (None where these were not noted).
    """

    names: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    seen: np.ndarray | None = None
    pixels: str | None = None

    def are_of(self, part: FaceSet) -> bool:
        """Whether they are of just these images, which may have got their labels since."""
        if self.pixels is not None:
            return self.pixels == pixels_of(part)
        same_labels = np.array_equal(self.labels, part.labels) and bool((self.labels >= 0).all())
        return same_labels or np.array_equal(self.names, part.names)


def pixels_of(part: FaceSet) -> str:
    """16 hex digits over the images of a set, without their labels."""
    return hashlib.sha256(image_hashes(part.images).tobytes()).hexdigest()[:16]


def run_name(recipe: Recipe, train: FaceSet, validation: FaceSet | None) -> str:
    """The name of the run of `recipe` on these images: equal work has equal names.

    The hash covers the settings that differ from their defaults (so that a setting added later does
    not rename older runs), the fingerprints of both parts (of votes only where they are learned
    from) and the version of the training code; nothing of where or when the run was made. Initial
    weights, the generator's recipe and the weights of teachers count by their content.

    Raises
    ------
    RecipeError
        if a file of initial weights cannot be read, or a run that they, or a teacher, come from is
        not finished.
    """
    settings = recipe.changed()
    settings.pop("generator", None)
    settings |= named_content(recipe) | _revision(recipe, train)
    content = json.dumps(
        [
            TRAINING_CODE,
            settings,
            train.fingerprint_with_votes if recipe.wants_votes else train.fingerprint,
            validation.fingerprint if validation is not None else None,
        ]
    )
    return f"{recipe.key}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def _revision(recipe: Recipe, train: FaceSet) -> dict[str, int]:
    """Marks recipes that once computed something else under the same version of the code."""
    weighed = train.weights is not None or recipe.conflicts == "weight"
    mixed = (recipe.mixup or recipe.cutmix) and weighed  # both had the first image's weight
    grown = recipe.start_size and recipe.epochs <= 3  # no epoch had the full size
    fused = recipe.compile and recipe.attention == "cbam"  # no gradients in bfloat16
    return {"revision": 2} if mixed or grown or fused else {}


def named_content(recipe: Recipe) -> dict[str, Any]:
    """The content of what a recipe names by a path: settings or digests, by setting.

    Errors are those of `run_name`.
    """
    found: dict[str, Any] = {}
    if recipe.generate:
        found["generator"] = generator_recipe(recipe.generator).changed()
    if recipe.weights not in ("none", "imagenet"):
        found["weights"] = _start_digest(recipe.weights)
    if recipe.teacher:
        found["teacher"] = [
            digest_of(PACKAGED)
            if source == "packaged"
            else _weights_digest(Path(source), "teacher")
            for source in recipe.teacher
        ]
    return found


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start_of(weights: str) -> Path | None:
    """The run's folder that a recipe's initial weights name; None where they are no run's.

    They may name its file of weights too.
    """
    path = Path(weights)
    folder = path.parent if path.name == WEIGHTS else path
    return folder if (folder / "run.json").is_file() else None


def _start_digest(weights: str) -> str:
    """The SHA-256 of initial weights."""
    folder = start_of(weights)
    if folder is not None:
        return _weights_digest(folder, "weights")
    try:
        return digest_of(PACKAGED if weights == "packaged" else Path(weights))
    except OSError as error:
        raise RecipeError(
            f"weights: {weights} cannot be read ({error.strerror}); give 'none', 'imagenet', "
            "'packaged', the folder of a run or a safetensors file"
        ) from error


def _weights_digest(run: Path, role: str) -> str:
    """The SHA-256 of a finished run's weights, as it noted it itself."""
    try:
        return json.loads((run / "run.json").read_text("utf-8"))["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{role}: {run} is no finished run; give the folder of one, or train it first"
        ) from error


@dataclass
class Run(RunFolder[Recipe]):
    """The folder of one training of a model.

    Beside what every `RunFolder` has: `WEIGHTS` and ``predictions.npz``.
    """

    RECIPE = Recipe
    KIND = "run folder"
    VERSIONS = MappingProxyType({"format": FORMAT, "training_code": TRAINING_CODE})

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS

    @property
    def size(self) -> int:
        """Pixels of a side of the images it was trained on, before they were brought to its own.

        Runs of the first days did not note it; it was the recipe's.
        """
        return int(self.info.get("size", self.recipe.image_size))

    @property
    def validation_split(self) -> str:
        """The name that the predictions of its validation part are kept under."""
        noted = self.info["data"]["validation"]
        return noted.get("kept_as", noted["split"][0])

    def training_part(self, faces: FaceSet) -> FaceSet | None:
        """The images that the run was trained on, or None where `faces` does not have just them."""
        noted = self.info["data"]["train"]
        part = faces[np.isin(faces.split, noted["split"])]
        return part if part.fingerprint == noted["fingerprint"] else None

    def save_predictions(self, predictions: Mapping[str, Predictions]) -> None:
        """Write ``predictions.npz`` with the given splits beside those it already holds."""
        merged = {**{s: self.predictions(s) for s in self.predicted}, **predictions}
        arrays: dict[str, Any] = {}
        for split, p in merged.items():
            arrays[f"{split}/names"] = np.char.encode(p.names, "utf-8")
            arrays[f"{split}/labels"] = p.labels.astype(np.int16)
            arrays[f"{split}/probabilities"] = p.probabilities.astype(np.float32)
            if p.seen is not None:
                arrays[f"{split}/seen"] = p.seen
            if p.pixels is not None:
                arrays[f"{split}/pixels"] = np.array(p.pixels)
        save_with(self.path / "predictions.npz", lambda file: np.savez_compressed(file, **arrays))

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the splits whose predictions are kept."""
        if not (self.path / "predictions.npz").exists():
            return ()
        with self._predictions_file() as arrays:
            return tuple(k[: -len("/names")] for k in arrays.files if k.endswith("/names"))

    def predictions(self, split: str) -> Predictions:
        """The kept predictions for `split`.

        Raises
        ------
        RunError
            if there are none, or the file is damaged.
        """
        if split not in self.predicted:
            if not self.finished:
                raise RunError(f"{self.path}: is not finished; train it to its end first")
            raise RunError(
                f"{self.path}: holds no predictions for '{split}'"
                f" (it has {', '.join(self.predicted) or 'none'}); name one that it has, or "
                "predict it with the run's weights"
            )
        try:
            with self._predictions_file() as arrays:
                return Predictions(
                    np.char.decode(arrays[f"{split}/names"], "utf-8"),
                    arrays[f"{split}/labels"].astype(np.int64),
                    arrays[f"{split}/probabilities"].astype(np.float32),
                    arrays.get(f"{split}/seen"),
                    str(arrays[f"{split}/pixels"]) if f"{split}/pixels" in arrays else None,
                )
        except UNREADABLE as error:
            raise self._damaged("predictions.npz", error) from error

    def _predictions_file(self) -> Any:
        try:
            return np.load(self.path / "predictions.npz", allow_pickle=False)
        except UNREADABLE as error:
            raise self._damaged("predictions.npz", error) from error

    def _damaged(self, file: str, error: Exception) -> RunError:
        return RunError(
            f"{self.path / file}: is damaged ({error}); remove the run folder and train again"
        )

    def write_record(self, folder: Path) -> Path:
        """Leave a small record of a finished run under `folder`: all but the weights."""
        if not self.finished:
            raise RunError(f"{self.path}: is not finished, so it leaves no record")
        target = folder / self.name
        for file in RECORD_FILES:
            if (self.path / file).exists():  # without a validation part there are no predictions
                write_bytes(target / file, (self.path / file).read_bytes())
        return target


def find_finished(name: str, recipe: Recipe, *folders: Path) -> Run | None:
    """The finished run or record called `name` in the first folder that has it.

    Raises
    ------
    RunError
        if it was made with another recipe than its name promises.
    """
    for folder in folders:
        if (folder / name / "run.json").exists():
            run = Run.open(folder / name)
            # What these three name counts by its content, wherever it lies, or not at all.
            named = {key: getattr(recipe, key) for key in ("weights", "teacher", "generator")}
            if run.recipe.but(**named) != recipe:
                raise RunError(
                    f"{run.path}: its recipe is not the one its name stands for; remove the folder"
                )
            if run.finished:
                return run
    return None
