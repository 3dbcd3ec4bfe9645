"""Probabilities from a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from mien.data.faceset import FaceSet
from mien.errors import DataError, RecipeError, RunError
from mien.images import Normalisation, enhance
from mien.images.tensors import as_tensor
from mien.models import create_model
from mien.runs.environment import choose_device
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run, digest_of, pixels_of
from mien.training.batches import prepared
from mien.training.views import VIEWS, views_of


def build_model(recipe: Recipe, classes: int, channels: int) -> nn.Module:
    """The network that `recipe` describes, with fresh weights.

    Raises
    ------
    RecipeError
        if there is no such network, or it does not take images of `start_size`.
    """
    model = create_model(
        recipe.model,
        classes=classes,
        channels=channels,
        attention=recipe.attention,
        place=recipe.place,
        gates=recipe.gates,
        width=recipe.width,
        stride=recipe.stride,
        image_size=recipe.image_size,
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        batch_norm=recipe.batch_norm,
    )
    if recipe.start_size:
        try:
            with torch.inference_mode():
                model.eval()(torch.zeros(1, channels, recipe.start_size, recipe.start_size))
        except (RuntimeError, AssertionError) as error:  # the latter is timm's
            raise RecipeError(
                f"{recipe.title} does not take images of start_size = {recipe.start_size} beside "
                f"those of image_size = {recipe.image_size}: set start_size to 0 ({error})"
            ) from error
        model.train()
    return model


def load_model(run: Run, device: str = "cpu") -> nn.Module:
    """The trained network of a finished run, in evaluation mode.

    Raises
    ------
    RunError
        if the run has no weights (a record keeps none), or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not run.weights_path.exists():
        why = "a record keeps no weights" if run.finished else "it is not finished"
        raise RunError(f"{run.path}: has no weights ({why}); train it again to use the model")
    model = build_model(run.recipe, len(run.classes), run.info["channels"])
    try:
        written = run.info.get("weights_sha256")
        if written is not None and digest_of(run.weights_path) != written:
            raise ValueError("its bytes are not those that were written")
        model.load_state_dict(load_file(run.weights_path))
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise RunError(
            f"{run.weights_path}: is damaged or of another version ({why:.200}); "
            "remove the run folder and train again"
        ) from error
    return model.eval().to(choose_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    images: torch.Tensor,
    normalisation: Normalisation,
    size: int,
    batch_size: int = 256,
    precision: str = "fp32",
    views: int = 1,
) -> torch.Tensor:
    """Class probabilities, float32 ``[N, C]``, of uint8 images ``[N, channels, H, W]``.

    With several `views` they are the mean of those of the views that `views_of` gives.

    The images may lie on the CPU and the model on an accelerator. The model is put into evaluation
    mode and left as it was found.
    """
    was_training = model.training
    model.eval()
    found = []
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for part in images.split(batch_size):
            pixels = prepared(part.to(device), normalisation, size)
            seen = views_of(pixels, views)
            found.append(sum(model(view).float().softmax(1) for view in seen) / views)
    model.train(was_training)
    return torch.cat(found)


def predict_probabilities(
    run: Run | Sequence[Run], faces: FaceSet, device: str = "cpu", *, views: int = 1
) -> np.ndarray:
    """Class probabilities, float32 ``[N, C]``, that a finished run gives to a set of faces.

    Parameters
    ----------
    run : one, or several that are averaged: an ensemble
    views : 1, or the mean of the probabilities of 2 (each face and its mirror image) or 10 (also
        moved by 1/24 of its side towards each corner)

    Raises
    ------
    RecipeError
        for another number of views.
    RunError
        if a run has no weights, they are damaged, there is no such device, or the runs of an
        ensemble have other classes than each other.
    DataError
        if the faces have another number of channels than those the run was trained on.
    """
    if views not in VIEWS:
        raise RecipeError(f"views = {views}: give {', '.join(map(str, VIEWS))}")
    members = [run] if isinstance(run, Run) else list(run)
    check_ensemble(members)
    found = [_predict(one, load_model(one, device), faces, device, views) for one in members]
    return np.asarray(sum(found) / len(found), np.float32)


def check_ensemble(members: Sequence[Run]) -> None:
    """Refuse an ensemble of no runs, of one run twice, or of runs that tell other classes apart.

    Raises
    ------
    RunError
        with the run that does not fit.
    """
    if not members:
        raise RunError("an ensemble of no runs: give one at least")
    first = members[0]
    if len({member.path.resolve() for member in members}) < len(members):
        raise RunError("an ensemble was given a run twice; give each one once")
    for other in members[1:]:
        if other.classes != first.classes:
            raise RunError(
                f"{other.name}: has the classes {', '.join(other.classes)}, and {first.name} "
                f"{', '.join(first.classes)}; an ensemble's must be the same, in one order"
            )


@torch.inference_mode()
def pooled_features(run: Run, faces: FaceSet, device: str = "cpu") -> np.ndarray:
    """What a finished run's network sees in faces: its last map, averaged over the places.

    Returns
    -------
    float32 array ``[N, D]``

    Raises
    ------
    RunError, DataError
        as `predict_probabilities`.
    """
    model = load_model(run, device)
    images, normalisation = _inputs(run, faces, device)
    found = []
    for part in images.split(256):
        pixels = prepared(part.to(device), normalisation, run.recipe.image_size)
        found.append(model.forward_features(pixels).mean((2, 3)))  # type: ignore[operator]
    return torch.cat(found).cpu().numpy()


def predict_splits(run: Run, faces: FaceSet, splits: list[str], device: str = "cpu") -> None:
    """Keep in `run` its predictions for the named splits of `faces` it has none for yet.

    Of a split whose images have changed they are made anew, and labels that came later are taken.
    Which images stand in the training part is kept too, where `faces` has that part.
    """
    kept = {split: run.predictions(split) for split in splits if split in run.predicted}
    found = {
        split: replace(old, labels=faces[split].labels)
        for split, old in kept.items()
        if old.are_of(faces[split]) and not np.array_equal(old.labels, faces[split].labels)
    }
    missing = [s for s in splits if s not in kept or not kept[s].are_of(faces[s])]
    if missing:
        model = load_model(run, device)
        train = run.training_part(faces)
    for split in missing:
        part = faces[split]
        seen = None if train is None else part.stands_in(train)
        predicted = _predict(run, model, part, device)
        found[split] = Predictions(part.names, part.labels, predicted, seen, pixels_of(part))
    if found:
        run.save_predictions(found)


def _predict(run: Run, model: nn.Module, faces: FaceSet, device: str, views: int = 1) -> np.ndarray:
    images, normalisation = _inputs(run, faces, device)
    size = run.recipe.image_size
    return probabilities(model, images, normalisation, size, views=views).cpu().numpy()


def _inputs(run: Run, faces: FaceSet, device: str) -> tuple[torch.Tensor, Normalisation]:
    """The faces as uint8 ``[N, C, H, W]``, and how the run's network wants them normalised."""
    if faces.channels != run.info["channels"]:
        raise DataError(
            f"{faces.name}: has {faces.channels} channels and the run {run.name} was trained on "
            f"{run.info['channels']}; read the images with channels={run.info['channels']}"
        )
    images = as_tensor(enhance(faces.images, run.recipe.enhance), device)
    return images, Normalisation.from_dict(run.info["normalisation"])
