"""A network together with what happens before and after it: pixels in, probabilities out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mien.export.attention import Look, attention_of, map_of
from mien.export.source import Source
from mien.images import Normalisation
from mien.training.batches import prepared
from mien.training.predict import load_model
from mien.training.views import averaged_logits, mean_logits, views_of


class Member(nn.Module):
    """uint8 images ``[N, channels, S, S]`` to logits and, where asked for, attention maps.

    Parameters
    ----------
    network : from normalised pixels to logits
    look : from the same to logits and maps; None leaves the maps out
    views : that are averaged, as of `views_of`; the maps are those of the image as it is
    """

    def __init__(
        self,
        network: nn.Module,
        look: Look | None,
        normalisation: Normalisation,
        size: int,
        views: int = 1,
    ) -> None:
        super().__init__()
        self.network, self.look, self.normalisation = network, look, normalisation
        self.size, self.views = size, views

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pixels = prepared(images, self.normalisation, self.size)
        first, *places = (self.network(pixels),) if self.look is None else self.look(pixels)
        return mean_logits(self.network, views_of(pixels, self.views), first), *places


class Graph(nn.Module):
    """uint8 images to probabilities, logits and, where the first member gives one, a map."""

    def __init__(self, members: Sequence[Member], temperature: float) -> None:
        super().__init__()
        self.members, self.temperature = nn.ModuleList(members), temperature

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 ``[N, S, S]`` or ``[N, S, S, 3]`` to ``[N, C]`` twice and ``[N, h, w]``."""
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(3, 1)
        (first, *maps), *others = [member(images) for member in self.members]
        logits = averaged_logits(torch.stack([first, *(other for (other,) in others)]))
        places = [map_of(found, logits) for found in maps]
        return (logits / self.temperature).softmax(1), logits, *places


def traced(source: Source, attention: bool) -> tuple[torch.export.ExportedProgram, str | None]:
    """The graph of a source for any number of images, and what its attention map is, if it has one.

    The map of an ensemble is that of its first run.

    Raises
    ------
    RunError
        if the run has no weights, or no map where one is asked for.
    """
    members: list[Member] = []
    kind = None
    for run in source.runs:
        # Programs keep weights as they lie in memory, and warn of any but the plain layout.
        network = load_model(run).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        network.requires_grad_(False)
        look, size = None, run.recipe.image_size
        if attention and not members:
            look, kind = attention_of(network, size, source.channels)
        how = Normalisation.from_dict(run.info["normalisation"])
        members.append(Member(network, look, how, size, source.views))
    graph = Graph(members, source.temperature).eval()
    colours = [3] if source.channels == 3 else []
    # Traced with two images, for a batch of one would be taken for a constant.
    example = torch.zeros((2, source.size, source.size, *colours), dtype=torch.uint8)
    shapes: Any = {"images": {0: torch.export.Dim("batch")}}
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (example,), dynamic_shapes=shapes)
    for part in program.graph_module.modules():  # the tracer notes the lines of code it came from
        for node in getattr(part, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    return program, kind
