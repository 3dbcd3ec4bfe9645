"""The folder of one generator's training, named by its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from mien.balance.gan.networks import Generator
from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.runs.folder import RunFolder
from mien.runs.generator_recipe import GeneratorRecipe
from mien.runs.run import digest_of

FORMAT = 1
"""Version of the folder's layout; one of another version is refused."""

GENERATOR_CODE = 2
"""Version of what training computes. Raise it when a recipe would give another generator."""


def generator_name(recipe: GeneratorRecipe, train: FaceSet) -> str:
    """The name of the generator of `recipe` on these images: equal work has equal names."""
    content = json.dumps([GENERATOR_CODE, recipe.changed(), train.fingerprint])
    return f"generator-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


@dataclass
class GeneratorRun(RunFolder[GeneratorRecipe]):
    """The folder of one generator's training.

    Beside what every `RunFolder` has: ``generator.safetensors``, the averaged generator of the last
    good epoch.
    """

    RECIPE = GeneratorRecipe
    KIND = "generator's folder"
    VERSIONS = MappingProxyType({"format": FORMAT, "generator_code": GENERATOR_CODE})

    @property
    def weights_path(self) -> Path:
        return self.path / "generator.safetensors"

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
