"""ResNet50 (He et al. 2016) with attention on the residual branch of every bottleneck."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mien.models.attention import create_attention
from mien.models.layers import convolution, drop_path, scaled

DEPTHS = (3, 4, 6, 3)
CHANNELS = (64, 128, 256, 512)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, attention, and the addition of the input.

    The last normalisation starts with a weight of 0, so the block starts as its shortcut
    (Goyal et al. 2017); the attention stands before the addition (Woo et al. 2018, Fig. 3).
    """

    def __init__(
        self, inputs: int, channels: int, stride: int, attention: nn.Module, drop: float
    ) -> None:
        super().__init__()
        outputs = channels * EXPANSION
        self.conv1 = convolution(inputs, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride=stride, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn3.weight)
        self.attention = attention
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                convolution(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs)
            )
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        branch = F.relu(self.bn2(self.conv2(branch)), inplace=True)
        branch = self.attention(self.bn3(self.conv3(branch)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(drop_path(branch, self.drop, self.training) + shortcut, inplace=True)


class ResNet50(nn.Module):
    """ResNet50 with timm's parameter names; logits ``[N, classes]`` of ``[N, channels, H, W]``."""

    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        attention: str,
        gates: str,
        width: float,
        stride: int,
        dropout: float | None,
        drop_path: float,
        **_: Any,
    ) -> None:
        super().__init__()
        inputs = scaled(64, width)
        self.conv1 = convolution(channels, inputs, 7, stride=2 if stride == 32 else 1, padding=3)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stride >= 16 else nn.Identity()
        built = 0
        for stage, (depth, base) in enumerate(zip(DEPTHS, CHANNELS, strict=True), 1):
            middle = scaled(base, width)
            blocks = []
            for block in range(depth):
                step = 2 if block == 0 and stage > 1 else 1
                gate = create_attention(attention, middle * EXPANSION, gates=gates)
                drop = drop_path * built / (sum(DEPTHS) - 1)  # the deeper, the more often
                blocks.append(Bottleneck(inputs, middle, step, gate, drop))
                inputs = middle * EXPANSION
                built += 1
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.dropout = nn.Dropout(dropout or 0.0)
        self.fc = nn.Linear(inputs, classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, ``[N, 2048 * width, H / stride, W / stride]``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.forward_features(x).mean((2, 3))))
