"""A network together with what happens before and after it: pixels in, probabilities out."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from mien.export.attention import Look, attention_of
from mien.export.source import Source
from mien.images import Normalisation
from mien.training.batches import prepared
from mien.training.predict import load_model
from mien.training.views import mean_logits, views_of


class Graph(nn.Module):
    """uint8 images to probabilities, logits and, where asked for, an attention map.

    Parameters
    ----------
    network : from normalised pixels to logits
    look : from the same to logits and a map; None leaves the map out
    views : that are averaged, as of `views_of`; the map is that of the image as it is
    """

    def __init__(
        self,
        network: nn.Module,
        look: Look | None,
        normalisation: Normalisation,
        size: int,
        temperature: float,
        views: int = 1,
    ) -> None:
        super().__init__()
        self.network, self.look, self.normalisation = network, look, normalisation
        self.size, self.temperature, self.views = size, temperature, views

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 ``[N, S, S]`` or ``[N, S, S, 3]`` to ``[N, C]`` twice and ``[N, h, w]``."""
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(3, 1)
        pixels = prepared(images, self.normalisation, self.size)
        first, *places = (self.network(pixels),) if self.look is None else self.look(pixels)
        logits = mean_logits(self.network, views_of(pixels, self.views), first)
        return (logits / self.temperature).softmax(1), logits, *places


def traced(source: Source, attention: bool) -> tuple[torch.export.ExportedProgram, str | None]:
    """The graph of a run for any number of images, and what its attention map is, if it has one.

    Raises
    ------
    RunError
        if the run has no weights, or no map where one is asked for.
    """
    run = source.run
    # Programs keep weights as they lie in memory, and warn of any but the plain layout.
    network = load_model(run).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.requires_grad_(False)
    look = kind = None
    if attention:
        look, kind = attention_of(network, run.recipe.image_size, source.channels)
    graph = Graph(
        network,
        look,
        Normalisation.from_dict(run.info["normalisation"]),
        run.recipe.image_size,
        source.temperature,
        source.views,
    ).eval()
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
