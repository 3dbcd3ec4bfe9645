"""The folder of one generator's training, named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mien.balance.gan.networks import Generator
from mien.data.faceset import FaceSet
from mien.errors import DataError, RecipeError, RunError
from mien.runs.atomic import write_json, write_text
from mien.runs.generator_recipe import GeneratorRecipe
from mien.runs.run import digest_of

FORMAT = 1
"""Version of the folder's layout; one of another version is refused."""

GENERATOR_CODE = 1
"""Version of what training computes. Raise it when a recipe would give another generator."""


def generator_name(recipe: GeneratorRecipe, train: FaceSet) -> str:
    """The name of the generator of `recipe` on these images: equal work has equal names."""
    content = json.dumps([GENERATOR_CODE, recipe.changed(), train.fingerprint])
    return f"generator-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


@dataclass
class GeneratorRun:
    """The folder of one generator's training.

    ``recipe.toml`` what was asked, ``run.json`` what is known of it, ``log.jsonl`` a line an epoch,
    ``generator.safetensors`` the averaged generator of the last good epoch, and ``checkpoint.pt``
    while it is unfinished.
    """

    path: Path
    recipe: GeneratorRecipe
    info: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def finished(self) -> bool:
        return self.info.get("state") == "finished"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.info["classes"])

    @property
    def weights_path(self) -> Path:
        return self.path / "generator.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.pt"

    @classmethod
    def create(cls, path: Path, recipe: GeneratorRecipe, info: Mapping[str, Any]) -> GeneratorRun:
        """Begin a training in the folder `path`."""
        run = cls(path, recipe, {"format": FORMAT, **info})
        write_text(path / "recipe.toml", recipe.to_toml())
        run.save()
        return run

    @classmethod
    def open(cls, path: Path | str) -> GeneratorRun:
        """Open the folder of a generator.

        Raises
        ------
        RunError
            if it is none, was written by another version, or is damaged.
        """
        path = Path(path)
        try:
            info = json.loads((path / "run.json").read_text(encoding="utf-8"))
            log_path = path / "log.jsonl"
            lines = log_path.read_text(encoding="utf-8").splitlines() if log_path.exists() else []
            log = [json.loads(line) for line in lines]
            recipe = GeneratorRecipe.from_toml(path / "recipe.toml")
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{path}: is no generator's folder (it has no run.json)") from None
        except (OSError, ValueError, RecipeError) as error:
            raise RunError(
                f"{path}: is damaged, or no generator's folder ({error}); remove it and train the "
                "generator again"
            ) from error
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise RunError(f"{path}: was written by another version; train the generator again")
        return cls(path, recipe, info, log)

    def save(self) -> None:
        """Write ``run.json``."""
        write_json(self.path / "run.json", self.info)

    def save_log(self) -> None:
        """Write ``log.jsonl``, a line an epoch."""
        write_text(self.path / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.log))

    def load(self, device: torch.device | str = "cpu") -> Generator:
        """The generator of the last good epoch, ready to sample from.

        Raises
        ------
        RunError
            if the training is not finished, or the file of weights is missing or damaged.
        """
        from safetensors.torch import load_file

        if not self.finished:
            raise RunError(f"{self.path}: is not finished; train the generator to its end first")
        model = Generator(self.recipe, len(self.classes), self.info["channels"])
        try:
            if digest_of(self.weights_path) != self.info["weights_sha256"]:
                raise ValueError("wrong checksum")
            model.load_state_dict(load_file(self.weights_path))
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{self.weights_path}: is damaged or missing ({str(error).partition(chr(10))[0]}); "
                "remove the folder and train the generator again"
            ) from error
        return model.to(device).eval()

    def check_fits(self, train: FaceSet) -> None:
        """Refuse a training part that is not the one that the generator was trained on.

        Raises
        ------
        DataError
            if classes, size, channels or images differ: faces made of other images may give away
            some that this part holds out.
        """
        if self.classes != train.classes:
            raise DataError(
                f"{self.name} makes the classes {', '.join(self.classes)}, and {train.name} has "
                f"{', '.join(train.classes)}; train a generator on this data set"
            )
        ours = (self.recipe.image_size, self.info["channels"])
        if ours != (train.size, train.channels):
            kinds = {1: "grey", 3: "colour"}
            raise DataError(
                f"{self.name} makes {kinds[ours[1]]} images of {ours[0]} pixels, and those of "
                f"{train.name} are {kinds[train.channels]} of {train.size}; train a generator on "
                "this data set, or read it at that size"
            )
        if self.info["data"]["fingerprint"] != train.fingerprint:
            raise DataError(
                f"{self.name} was trained on other images than the training part of {train.name}, "
                "so its faces may give away some that are held out; train a generator on this part"
            )
