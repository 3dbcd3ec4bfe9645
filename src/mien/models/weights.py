"""Initial weights of a model: ImageNet through timm, or a safetensors file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien.errors import RecipeError, RunError
from mien.models.registry import create_model

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


def take_trained(
    model: Any, state: Mapping[str, torch.Tensor], name: str, *, same_classes: bool
) -> list[str]:
    """Put the weights of a trained model into one that differs from it in what can start afresh.

    That is the classifier, where the classes are others, and attention, where the trained model has
    none. Grey and RGB fit each other.

    Parameters
    ----------
    model : of `create_model`; changed in place
    state : all of the trained model's
    name : of the trained model, for errors

    Returns
    -------
    Names of the parameters that start afresh.

    Raises
    ------
    RunError
        if anything else differs.
    """
    own = model.state_dict()
    # An exported file leaves out how many batches were seen, which no result depends on.
    counters = {key: t for key, t in own.items() if key.endswith("num_batches_tracked")}
    state = counters | dict(state)
    fresh = set() if same_classes else _classifier(model)
    fresh |= {key for key in own if key not in state and "attention" in key.split(".")}
    kept = {key: tensor for key, tensor in state.items() if key not in fresh}
    fitted = {key: t for key in own if (t := _fitted(kept.get(key), own[key])) is not None}
    _refuse_differences(name, model, {**kept, **fitted}, fresh)
    return _take(model, fitted)


def _classifier(model: Any) -> set[str]:
    """Names of the state whose shape follows the number of classes."""
    with torch.device("meta"):
        other = create_model(model.name, **{**model.settings, "classes": model.classes + 1})
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return {name for name, t in model.state_dict().items() if t.shape != shapes[name]}


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
    """The given tensor if it fits, else None; kernels of RGB and grey images fit each other.

    A grey picture is one whose three channels are equal, so the sum of an RGB kernel answers to it
    as before. A third of a grey kernel on each channel answers to their mean.
    """
    if given is None:
        return None
    if given.ndim == 4 and given.shape[1] == 3 and own.shape[1] == 1:
        given = given.sum(1, keepdim=True)
    elif given.ndim == 4 and given.shape[1] == 1 and own.shape[1] == 3:
        given = given.expand(-1, 3, -1, -1) / 3
    return given if given.shape == own.shape else None


def _take_file(model: nn.Module, path: Path) -> None:
    """All of a model's state from a file that has exactly its names and shapes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise RunError(
            f"weights '{path}' is no file; give none, imagenet, packaged, the folder of a run, "
            "or the path of a safetensors file"
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read as a safetensors file: {error}") from error
    _refuse_differences(str(path), model, state)
    model.load_state_dict(state)


def _refuse_differences(
    name: str, model: nn.Module, state: Mapping[str, torch.Tensor], fresh: Collection[str] = ()
) -> None:
    """Raise a RunError unless a state is just what a model takes, but for what starts afresh."""
    own = {key: tensor for key, tensor in model.state_dict().items() if key not in fresh}
    wrong = [f"{key} is missing" for key in own if key not in state]
    wrong += [f"{key} belongs to another model" for key in state if key not in own]
    wrong += [
        f"{key} is {list(state[key].shape)} and not {list(tensor.shape)}"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RunError(
            f"{name} does not fit {getattr(model, 'name', 'the model')}: "
            f"{'; '.join(wrong[:3])}{more}. Build the model as it was made"
        )
