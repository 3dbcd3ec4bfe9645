"""Earlier trainings that another one begins or learns from, and what they may know."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mien.data.faceset import FaceSet
from mien.errors import RecipeError
from mien.images import Normalisation
from mien.models.weights import load_weights, take_trained
from mien.packaged import PACKAGED, sketched
from mien.runs.environment import choose_device
from mien.runs.recipe import Recipe
from mien.runs.run import Run, start_of
from mien.training.parts import unseen
from mien.training.predict import build_model, load_model


@dataclass(frozen=True, eq=False)
class Earlier:
    """A finished training: that of a run, or of the packaged model.

    Attributes
    ----------
    name : for messages
    classes : in the order of its classifier
    data : what it noted of its parts
    alone : whether all it knows comes from its own training part
    recipe, channels, normalisation : what its network is, and wants its images to be
    run : None for the packaged model
    """

    name: str
    classes: tuple[str, ...]
    data: Mapping[str, Any]
    alone: bool
    recipe: Recipe
    channels: int
    normalisation: Normalisation
    run: Run | None

    @classmethod
    def named(cls, source: Path | str, role: str) -> Earlier:
        """That of ``"packaged"``, or of a run's folder; errors are those of `of_run`."""
        return cls.packaged() if source == "packaged" else cls.of_run(source, role)

    @classmethod
    def of_run(cls, folder: Path | str, role: str) -> Earlier:
        """That of a run's folder; `role` is the setting that names it.

        Raises
        ------
        RecipeError
            if it is not finished.
        RunError
            if the folder is no run.
        """
        run = Run.open(folder)
        if not run.finished:
            raise RecipeError(f"{role}: {folder} is not finished; train it to its end first")
        recipe, data = run.recipe, _sketched(run.info["data"])
        scratch = not recipe.teacher and recipe.weights in ("none", "imagenet")
        alone, channels = data["train"].get("alone", scratch), run.info["channels"]
        norm = Normalisation.from_dict(run.info["normalisation"])
        return cls(str(folder), run.classes, data, alone, recipe, channels, norm, run)

    @classmethod
    def packaged(cls) -> Earlier:
        """That of the packaged model."""
        import onnx

        said = {p.key: p.value for p in onnx.load(PACKAGED).metadata_props}
        classes, data, channels, norm = (
            json.loads(said[key]) for key in ("classes", "data", "channels", "normalisation")
        )
        recipe = Recipe.from_dict(tomllib.loads(said["recipe"]), "the packaged model")
        data, norm = _sketched(data), Normalisation.from_dict(norm)
        return cls("the packaged model", tuple(classes), data, True, recipe, channels, norm, None)

    def check(self, role: str, train: FaceSet, validation: FaceSet | None) -> None:
        """Refuse it if it may have learned from validation images that are new to `train`.

        That of another data set, by its name, is taken if all it knows is that set's, and its
        sketch holds none of these images.

        Raises
        ------
        RecipeError
            that names the setting `role`.
        """
        if validation is None:
            return
        noted = self.data["train"]
        foreign = self.alone and validation.name != noted["name"]
        if foreign and not _shows(noted, train, validation):
            return
        if self._may_know(train, validation):
            raise RecipeError(
                f"{role}: {self.name} may have learned from images of the validation part "
                f"({validation.name}, {validation.split[0]}); give one that was trained on the "
                "same training part, or that watched the same validation part"
            )

    def _may_know(self, train: FaceSet, validation: FaceSet) -> bool:
        """Whether it may have learned from validation images that are new to `train`.

        It has not if it knows just these training images, or has watched just this validation part,
        and then learned from none of its images that do not stand in `train` too. Of others it
        cannot be told.
        """
        if self.data["train"]["fingerprint"] == train.fingerprint and self.alone:
            return False
        watched = self.data.get("validation", {})
        if self.run is None or watched.get("fingerprint") != validation.fingerprint:
            return True
        seen = self.run.predictions(self.run.validation_split).seen
        return seen is None or bool((seen & unseen(validation, train)).any())

    def network(self, device: str = "cpu") -> nn.Module:
        """Its trained network, in evaluation mode.

        Raises
        ------
        RunError
            if there are no weights, or they are damaged.
        """
        if self.run:
            return load_model(self.run, device)
        model = build_model(self.recipe, len(self.classes), self.channels)
        take_trained(model, _packaged_state(), self.name, same_classes=True)
        return model.eval().to(choose_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


def _sketched(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "train": sketched(data["train"])}


def _packaged_state() -> dict[str, torch.Tensor]:
    """Of the network in the packaged file, whose two views keep batch norm apart."""
    import onnx

    prefix, state = "members.0.network.", {}
    for tensor in onnx.load(PACKAGED).graph.initializer:
        if tensor.name.startswith(prefix):
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            name = tensor.name.removeprefix(prefix).removesuffix(".half")
            state[name] = torch.from_numpy(values)
    return state


def beginning(recipe: Recipe) -> Earlier | None:
    """The training whose weights the recipe begins from; None for fresh ones, ImageNet's or a file.

    Raises
    ------
    RecipeError, RunError
        as `Earlier.of_run`.
    """
    if recipe.weights == "packaged":
        return Earlier.packaged()
    folder = start_of(recipe.weights)
    return None if folder is None else Earlier.of_run(folder, "weights")


def _shows(noted: Mapping[str, Any], train: FaceSet, validation: FaceSet) -> bool:
    """Whether what was noted of a training part shows images of `validation` new to `train`."""
    known = validation.among(noted.get("sketch", ""))
    return bool(known.any() and (known & unseen(validation, train)).any())


def check_beginning(recipe: Recipe, train: FaceSet, validation: FaceSet | None) -> None:
    """Refuse to begin from weights that may know images of the validation part.

    Of a file that Mien did not write it cannot be told.

    Raises
    ------
    RecipeError
        for a run that is not finished, as `Earlier.check` says, or for a file whose training saw
        images of the validation part that are new to `train`, or began from what may have.
    RunError
        for a folder that is no run.
    """
    if earlier := beginning(recipe):
        earlier.check("weights", train, validation)
        return
    noted = noted_in(recipe.weights)
    if validation is None or not noted:
        return
    if noted.get("alone") is False or _shows(noted, train, validation):
        raise RecipeError(
            f"weights: {recipe.weights} was trained on images of the validation part "
            f"({validation.name}, {validation.split[0]}), or may have been; give weights that "
            "learned from the same training part alone"
        )


def noted_in(weights: str) -> dict[str, Any]:
    """What a file of weights says of the images that it was trained on; empty without a word."""
    from safetensors import SafetensorError, safe_open

    if weights in ("none", "imagenet"):
        return {}
    try:
        with safe_open(weights, "pt") as file:
            found = json.loads((file.metadata() or {}).get("trained_on", "{}"))
        return found if isinstance(found, dict) else {}  # another program may use the key
    except (OSError, SafetensorError, ValueError):  # loading the weights names what is wrong
        return {}


def begin(model: nn.Module, recipe: Recipe, classes: tuple[str, ...]) -> list[str]:
    """Put the recipe's initial weights into a model, and name the parameters that start afresh.

    Raises
    ------
    RecipeError, RunError
        if they cannot be had or do not fit, as `load_weights` and `take_trained` say.
    """
    if recipe.weights == "none":
        return []
    earlier = beginning(recipe)
    if earlier is None:
        return load_weights(model, recipe.weights)
    same, state = earlier.classes == classes, earlier.network().state_dict()
    name = earlier.name if earlier.run else f"{earlier.name}, {earlier.recipe.title},"
    return take_trained(model, state, name, same_classes=same)


def alone(recipe: Recipe, train: FaceSet) -> bool:
    """Whether all that a training of the recipe comes to know is in `train`."""
    start = beginning(recipe)
    if start is None and recipe.weights not in ("none", "imagenet"):
        noted = noted_in(recipe.weights)
        if not noted.get("alone") or noted.get("fingerprint") != train.fingerprint:
            return False  # or the file does not say what it knows
    before = [Earlier.named(source, "teacher") for source in recipe.teacher]
    before += [] if start is None else [start]
    return all(e.alone and e.data["train"]["fingerprint"] == train.fingerprint for e in before)
