"""Initial weights of a model: ImageNet through timm, or a safetensors file."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien.errors import RecipeError, RunError

PRETRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg19": ("vgg19_bn", {}),
    "resnet50": ("resnet50", {}),
    "inceptionv3": ("inception_v3", {"aux_logits": True}),
}
"""The timm model, and its arguments, whose parameters each of our backbones takes as they are."""


def load_weights(model: nn.Module, source: str) -> list[str]:
    """Put initial weights into a model of `create_model`.

    Parameters
    ----------
    model : changed in place
    source : ``"imagenet"``, or the path of a safetensors file with all of the model's state

    Returns
    -------
    Names of the parameters that the source did not have or had in another shape, and that therefore
    start afresh: the attention, a classifier of another size, VGG19's first fully connected layer
    where its kernel does not fit the last map. None for a file.

    Raises
    ------
    RecipeError
        There are no ImageNet weights for this model, or they cannot be had.
    RunError
        The file is missing, damaged, or of another model.
    """
    if source == "imagenet":
        return _take(model, _imagenet_state(model))
    _take_file(model, Path(source))
    return []


def _imagenet_state(model: Any) -> dict[str, torch.Tensor]:
    """State of the pretrained timm model that belongs to a model, fetched where not yet cached."""
    name, settings = model.name, model.settings
    if settings["width"] != 1:
        raise RecipeError(
            f"ImageNet weights of {name} exist for width 1 only, not {settings['width']}; "
            "set weights to none (from scratch) or width to 1"
        )
    if name not in PRETRAINED and not name.startswith("timm:"):
        raise RecipeError(
            f"there are no ImageNet weights for {name}; set weights to none (from scratch) or to "
            "a safetensors file"
        )
    import timm

    from mien.models.timm_models import timm_model

    try:
        if name.startswith("timm:"):
            bare = {**settings, "attention": "none"}
            built = timm_model(name.removeprefix("timm:"), **bare, pretrained=True)
            # Only what stands under `net` is timm's; the classifier is ours, and fresh.
            return {key: t for key, t in built.state_dict().items() if key.startswith("net.")}
        timm_name, arguments = PRETRAINED[name]
        if name == "vgg19" and not settings["batch_norm"]:
            timm_name = "vgg19"
        return timm.create_model(timm_name, pretrained=True, **arguments).state_dict()
    except Exception as error:  # what a failed download raises differs by hub, client and version
        raise RecipeError(
            f"the ImageNet weights of {name} could not be had through timm "
            f"({type(error).__name__}: {error}). Train from scratch with weights none, or give "
            "the path of a safetensors file"
        ) from error


def _take(model: nn.Module, state: dict[str, torch.Tensor]) -> list[str]:
    """Take what fits, layer by layer, and name the parameters of the layers that start afresh."""
    parameters = {name for name, _ in model.named_parameters()}
    taken: dict[str, torch.Tensor] = {}
    fresh: list[str] = []
    # A layer is taken whole: a trained bias means nothing beside a fresh kernel.
    for _, layer in groupby(model.state_dict().items(), lambda item: item[0].rpartition(".")[0]):
        own = dict(layer)
        given = {name: _fitted(state.get(name), tensor) for name, tensor in own.items()}
        fitting = {name: tensor for name, tensor in given.items() if tensor is not None}
        if len(fitting) == len(own):
            taken.update(fitting)
        else:
            fresh += [name for name in own if name in parameters]
    model.load_state_dict(taken, strict=False)
    return fresh


def _fitted(given: torch.Tensor | None, own: torch.Tensor) -> torch.Tensor | None:
    """The given tensor if it fits, else None; an RGB kernel fits one grey channel by its sum.

    A grey picture is one whose three channels are equal, so the sum answers to it as before.
    """
    if given is None:
        return None
    if given.ndim == 4 and given.shape[1] == 3 and own.shape[1] == 1:
        given = given.sum(1, keepdim=True)
    return given if given.shape == own.shape else None


def _take_file(model: nn.Module, path: Path) -> None:
    """All of a model's state from a file that has exactly its names and shapes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise RunError(
            f"weights '{path}' is no file; give none, imagenet, or the path of a safetensors file"
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read as a safetensors file: {error}") from error
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} belongs to another model" for name in state if name not in own]
    wrong += [
        f"{name} is {list(state[name].shape)} and not {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RunError(
            f"{path} does not fit {getattr(model, 'name', 'the model')}: "
            f"{'; '.join(wrong[:3])}{more}. Build the model as the file was made"
        )
    model.load_state_dict(state)
