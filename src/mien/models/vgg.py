"""VGG19 with and without batch normalisation, with sockets for attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mien.models.attention import create_attention
from mien.models.layers import scaled

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of 3x3 convolutions of each stage: column E of the paper's table 1."""

HIDDEN = 4096
"""Units of each of the two hidden layers of the head."""

POOLS = {32: 5, 16: 4, 8: 3}
"""How many of the five stages end in a pool, for each total stride."""


class HiddenLayers(nn.Module):
    """The head's two hidden layers; the first is a convolution as large as the map it reads."""

    def __init__(self, channels: int, hidden: int, size: int, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.fc1 = nn.Conv2d(channels, hidden, size)
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Conv2d(hidden, hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-2:] != (self.size, self.size):
            x = F.adaptive_avg_pool2d(x, self.size)
        return F.relu(self.fc2(self.drop(F.relu(self.fc1(x)))))


class Classifier(nn.Module):
    """Dropout and the last linear layer, on a map of one pixel."""

    def __init__(self, units: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(x.flatten(1)))


class VGG19(nn.Module):
    """VGG19 whose head reads the real last map, whatever its size.

    The attention modules stand apart, under the number of the layer of `features` they follow,
    so that the numbers in `features` do not depend on them.

    Parameters
    ----------
    classes, channels : logits to give, channels of the images
    attention, gates : see `mien.models.attention.create_attention`
    place : ``"default"``, after the last ReLU of each of the five stages and before its pool, or
        ``"convolutions"``, after the ReLU of each of the 16 convolutions
    width : factor on all channels and on the 4096 units of the head, in multiples of 8
    stride : 32 with all five pools, 16 without the last, 8 without the last two
    image_size : pixels; the head's first layer is a ``k x k`` convolution, `k` the size of the
        last map (7 at 224 and stride 32, 3 at 48 and stride 16). Images of another size are
        accepted, their last map is averaged to ``k x k``
    dropout : before each of the two last layers; None is the paper's 0.5
    batch_norm : whether each convolution is followed by batch normalisation

    Notes
    -----
    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition",
    2015. Names and shapes of the parameters are those of timm's ``vgg19_bn`` and ``vgg19``.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        attention: str,
        place: str,
        gates: str,
        width: float,
        stride: int,
        image_size: int,
        dropout: float | None,
        batch_norm: bool,
        **_: Any,
    ) -> None:
        super().__init__()
        dropout = 0.5 if dropout is None else dropout
        layers: list[nn.Module] = []
        self.attention = nn.ModuleDict()
        stage_names = []
        for stage, (full, convolutions) in enumerate(STAGES):
            out = scaled(full, width)
            for number in range(convolutions):
                layers.append(nn.Conv2d(channels, out, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.ReLU(inplace=True))
                channels = out
                last = number == convolutions - 1
                if last or place == "convolutions":
                    number_of_relu = str(len(layers) - 1)
                    self.attention[number_of_relu] = create_attention(attention, out, gates=gates)
            stage_names.append(f"attention.{number_of_relu}")
            # A pool that is left out keeps its number, or the weights would no longer fit.
            layers.append(nn.MaxPool2d(2) if stage < POOLS[stride] else nn.Identity())
        self.features = nn.Sequential(*layers)
        self.stage_names = tuple(stage_names)
        hidden = scaled(HIDDEN, width)
        self.pre_logits = HiddenLayers(channels, hidden, image_size // stride, dropout)
        self.head = Classifier(hidden, classes, dropout)
        self.initialise()

    def initialise(self) -> None:
        """He initialisation by fan-in, which keeps the signal's size without normalisation."""
        for layer in (*self.features, self.pre_logits.fc1, self.pre_logits.fc2):
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head.fc.weight, std=0.01)
        nn.init.zeros_(self.head.fc.bias)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, after its attention and pool: ``[N, C, h, w]``."""
        for number, layer in self.features.named_children():
            x = layer(x)
            if number in self.attention:
                x = self.attention[number](x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, classes]`` of images ``[N, channels, H, W]``."""
        return self.head(self.pre_logits(self.forward_features(x)))
