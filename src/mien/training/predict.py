"""Probabilities from a trained model."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.images import Normalisation, enhance
from mien.models import create_model
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run
from mien.training.batches import as_tensor, prepared


def build_model(recipe: Recipe, classes: int, channels: int) -> nn.Module:
    """The network that `recipe` describes, with fresh weights."""
    return create_model(
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
        model.load_state_dict(load_file(run.weights_path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(
            f"{run.weights_path}: is damaged or of another version ({str(error).splitlines()[0]}); "
            "remove the run folder and train again"
        ) from error
    return model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    images: torch.Tensor,
    normalisation: Normalisation,
    size: int,
    batch_size: int = 256,
    precision: str = "fp32",
) -> torch.Tensor:
    """Class probabilities, float32 ``[N, C]``, of uint8 images ``[N, channels, H, W]``.

    The model is put into evaluation mode and left as it was found.
    """
    was_training = model.training
    model.eval()
    found = []
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        for part in images.split(batch_size):
            found.append(model(prepared(part, normalisation, size)).float().softmax(1))
    model.train(was_training)
    return torch.cat(found)


def predict_probabilities(run: Run, faces: FaceSet, device: str = "cpu") -> np.ndarray:
    """Class probabilities, float32 ``[N, C]``, that a finished run gives to a set of faces.

    Raises
    ------
    RunError
        if the run has no weights.
    DataError
        if the faces have another number of channels than those the run was trained on.
    """
    return _predict(run, load_model(run, device), faces, device)


def predict_splits(run: Run, faces: FaceSet, splits: list[str], device: str = "cpu") -> None:
    """Keep in `run` its predictions for the named splits of `faces` it has none for yet."""
    missing = [split for split in splits if split not in run.predicted]
    if not missing:
        return
    model = load_model(run, device)
    found = {}
    for split in missing:
        part = faces[split]
        found[split] = Predictions(part.names, part.labels, _predict(run, model, part, device))
    run.save_predictions(found)


def _predict(run: Run, model: nn.Module, faces: FaceSet, device: str) -> np.ndarray:
    if faces.channels != run.info["channels"]:
        raise DataError(
            f"{faces.name}: has {faces.channels} channels and the run {run.name} was trained on "
            f"{run.info['channels']}; read the images with channels={run.info['channels']}"
        )
    images = as_tensor(enhance(faces.images, run.recipe.enhance), device)
    normalisation = Normalisation.from_dict(run.info["normalisation"])
    return probabilities(model, images, normalisation, run.recipe.image_size).cpu().numpy()
