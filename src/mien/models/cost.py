"""What a model costs, and what it is made of, measured on the built model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from mien.models.attention import CBAM, ECA, SE
from mien.models.layers import hooked

ATTENTION = (CBAM, SE, ECA)
COUNTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Cost:
    """The size of a model and its work for one image.

    Attributes
    ----------
    parameters : trainable numbers of the whole model, parts that work in training only included
    multiply_adds : multiplications with addition of one forward pass in evaluation mode, in
        convolutions and linear layers, those of the attention included
    attention_parameters : the part of `parameters` that belongs to the attention modules
    """

    parameters: int
    multiply_adds: int
    attention_parameters: int


@dataclass(frozen=True)
class Layer:
    """One row of a network's diagram: a stage, or what stands before or after the stages.

    Attributes
    ----------
    name : ``"stem"``, ``"stage 1"`` and so on, ``"head"``, or ``"training only"``
    kind : what it consists of, such as ``"3x3 convolution"`` or ``"Bottleneck"``
    blocks : how many of these follow each other
    shape : ``(C, h, w)`` of the map it gives for one image, ``(C,)`` for logits
    parameters : trainable numbers, those of its attention included
    attention : ``"cbam"``, ``"se"``, ``"eca"`` or ``"none"``
    """

    name: str
    kind: str
    blocks: int
    shape: tuple[int, ...]
    parameters: int
    attention: str


def cost(model: nn.Module, image_size: int, channels: int) -> Cost:
    """Count parameters and multiply-adds of a model for one image.

    Parameters
    ----------
    model : any model of this room; its mode and weights are left as they are
    image_size, channels : the image is ``[1, channels, image_size, image_size]``
    """
    multiply_adds = 0

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        # A weight is [outputs, inputs (of one group), kernel...]; all but the outputs meet in
        # each number of the output.
        nonlocal multiply_adds
        if isinstance(layer, COUNTED):
            multiply_adds += output.numel() * layer.weight[0].numel()

    with hooked(module.register_forward_hook(count) for module in model.modules()):
        _run(model, image_size, channels)
    return Cost(
        parameters=_parameters(model),
        multiply_adds=multiply_adds,
        attention_parameters=sum(
            _parameters(module) for module in model.modules() if isinstance(module, ATTENTION)
        ),
    )


def outline(model: nn.Module, image_size: int, channels: int) -> list[Layer]:
    """The rows of a network's diagram, from one forward pass of the built model.

    Parameters
    ----------
    model : any model of this room; its mode and weights are left as they are
    image_size, channels : the image is ``[1, channels, image_size, image_size]``

    Returns
    -------
    One row for the stem where it differs from the first stage, one for each stage of
    `model.stage_names` (a network that names none counts as one), one for the head, and one for
    each part that works in training only. The rows of our own models have all their parameters.
    """
    stages = getattr(model, "stage_names", ()) or (next(model.named_children())[0],)
    parts = [Part(module) for module in _shown_whole(model, stages)]
    groups: list[list[Part]] = [[]]

    def begin(part: Part, *_: Any) -> None:
        if not part.shape:
            groups[-1].append(part)

    def end(part: Part, module: nn.Module, inputs: Any, output: Any) -> None:
        last = output[-1] if isinstance(output, list) else output
        part.shape = tuple(last.shape[1:])

    def end_of_stage(*_: Any) -> None:
        groups.append([])

    def hooks() -> Iterator[RemovableHandle]:
        for part in parts:
            yield part.module.register_forward_pre_hook(partial(begin, part))
            yield part.module.register_forward_hook(partial(end, part))
        for name in stages:
            yield model.get_submodule(name).register_forward_hook(end_of_stage)

    with hooked(hooks()):
        _run(model, image_size, channels)

    # Attention that comes right after a stage's last layer belongs to that stage.
    for before, after in pairwise(groups):
        while after and isinstance(after[0].module, ATTENTION):
            before.append(after.pop(0))
    first, *others, head = groups
    stem = _length_of_stem(first)
    rows = [_row("stem", first[:stem])] if stem else []
    rows += [_row(f"stage {i}", group) for i, group in enumerate((first[stem:], *others), 1)]
    rows.append(_row("head", head, kind=_fully_connected(head)))
    for part in parts:
        if not part.shape and _parameters(part.module):
            part.shape = (len(_layers(part.module)[-1].weight),)
            rows.append(_row("training only", [part]))
    return rows


@dataclass
class Part:
    """A submodule that a diagram shows whole; `shape` is empty until it has run."""

    module: nn.Module
    shape: tuple[int, ...] = ()


def _shown_whole(module: nn.Module, stages: Sequence[str], prefix: str = "") -> Iterator[nn.Module]:
    """The outermost submodules that are no mere container and have no stage inside."""
    for name, child in module.named_children():
        path = prefix + name
        has_stage = any(stage.startswith(path + ".") for stage in stages)
        if has_stage or type(child) in CONTAINERS:
            yield from _shown_whole(child, stages, path + ".")
        else:
            yield child


def _layers(module: nn.Module) -> list[nn.Conv1d | nn.Conv2d | nn.Linear]:
    """Its convolutions and linear layers, without those of its attention."""
    if isinstance(module, COUNTED):
        return [module]
    if isinstance(module, ATTENTION):
        return []
    return [layer for child in module.children() for layer in _layers(child)]


def _length_of_stem(group: list[Part]) -> int:
    """How many parts come before the first block of several layers, if any of them computes."""
    sizes = [len(_layers(part.module)) for part in group]
    start = next((i for i, size in enumerate(sizes) if size > 1), 0)
    return start if any(sizes[:start]) else 0


def _row(name: str, group: list[Part], kind: str = "") -> Layer:
    blocks = [part.module for part in group if _layers(part.module)]
    attention = [
        type(module).__name__.lower()
        for part in group
        for module in part.module.modules()
        if isinstance(module, ATTENTION)
    ]
    return Layer(
        name=name,
        kind=kind or ", ".join(dict.fromkeys(_kind(block) for block in blocks)),
        blocks=1 if kind else len(blocks),
        shape=group[-1].shape,
        parameters=sum(_parameters(part.module) for part in group),
        attention=attention[0] if attention else "none",
    )


def _kind(block: nn.Module) -> str:
    """What a block is: its only convolution, or the name of its class."""
    layers = _layers(block)
    if len(layers) == 1 and isinstance(layers[0], nn.Conv2d):
        return "{}x{} convolution".format(*layers[0].kernel_size)
    return type(block).__name__


def _fully_connected(group: list[Part]) -> str:
    sizes = [str(len(layer.weight)) for part in group for layer in _layers(part.module)]
    return "fully connected " + "-".join(sizes)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _run(model: nn.Module, image_size: int, channels: int) -> None:
    """One forward pass of one black image in evaluation mode; every submodule keeps its mode."""
    modes = {module: module.training for module in model.modules()}
    like = next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(like.new_zeros(1, channels, image_size, image_size))
    finally:
        for module, training in modes.items():
            module.training = training
