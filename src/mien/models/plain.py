"""`plain`, the quick baseline and what ships, and the larger `compact`: a few convolutions."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import nn

from mien.models.attention import create_attention
from mien.models.layers import convolution, scaled

Stages = tuple[tuple[int, ...], ...]
"""Channels of the convolutions of each stage. Each stage begins by halving the map."""

PLAIN: Stages = ((32,), (64, 64), (128, 128), (256,), (256,))
"""Seven convolutions, 1.2 million parameters."""

COMPACT: Stages = ((32,), (64, 64), (128, 128), (256, 256), (384,))
"""Twice the parameters where maps are small: a third more work."""


class Plain(nn.Module):
    """A plain convolutional network; logits ``[N, classes]`` of ``[N, channels, H, W]``.

    Each stage is pooling, one or two 3x3 convolutions with batch norm and ReLU, and attention. Only
    the first convolution sees the full image, so at stride 16 and 48 pixels an image costs 80
    million multiply-adds of `PLAIN`, less than half of what pooling after every second convolution
    costs.
    """

    def __init__(
        self,
        stages: Stages = PLAIN,
        *,
        classes: int,
        channels: int,
        attention: str,
        gates: str,
        width: float,
        stride: int,
        dropout: float | None,
        **_: Any,
    ) -> None:
        super().__init__()
        self.stage_names = tuple(f"stage{number}" for number in range(1, len(stages) + 1))
        inputs = channels
        for number, stage in enumerate(stages, 1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            # As in ResNet50, the total stride is set in front, so that all maps grow with it.
            if number > 2 or (number == 2 and stride >= 16):
                layers["pool"] = nn.MaxPool2d(2)
            for place, base in enumerate(stage, 1):
                outputs = scaled(base, width)
                step = 2 if number == 1 and stride == 32 else 1
                layers[f"conv{place}"] = convolution(inputs, outputs, 3, stride=step, padding=1)
                layers[f"bn{place}"] = nn.BatchNorm2d(outputs)
                layers[f"relu{place}"] = nn.ReLU(inplace=True)
                inputs = outputs
            layers["attention"] = create_attention(attention, inputs, gates=gates)
            setattr(self, f"stage{number}", nn.Sequential(layers))
        self.dropout = nn.Dropout(0.3 if dropout is None else dropout)
        self.fc = nn.Linear(inputs, classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, ``[N, last channels * width, H / stride, W / stride]``."""
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.forward_features(x).mean((2, 3))))


compact = partial(Plain, COMPACT)
"""`Plain` with the stages of `COMPACT`."""
