"""InceptionV3 with its auxiliary classifier, at 299 pixels and at small sizes, with attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from mien.models.attention import create_attention
from mien.models.layers import scaled

PADDED_BELOW = 128
"""Images smaller than this (in pixels) are padded in the stem and in the reductions."""


class Row(NamedTuple):
    """One convolution of a block: its name, what it reads, its channels and its kernel.

    It reads the block's input ``"x"``, that input average-pooled, ``"pool"``, or another
    convolution. What no other convolution reads is part of the block's output, in this order.
    """

    name: str
    reads: str
    channels: int
    kernel: int | tuple[int, int]


STEM = {
    "Conv2d_1a_3x3": (32, 3),
    "Conv2d_2a_3x3": (32, 3),
    "Conv2d_2b_3x3": (64, 3),
    "Pool1": None,
    "Conv2d_3b_1x1": (80, 1),
    "Conv2d_4a_3x3": (192, 3),
    "Pool2": None,
}
"""Channels and kernel of each convolution before the first block; None is a max pool."""


def block_35(pool: int) -> tuple[Row, ...]:
    """The block at 35x35 (the paper's figure 5); `pool` channels in its pooled branch."""
    return (
        Row("branch1x1", "x", 64, 1),
        Row("branch5x5_1", "x", 48, 1),
        Row("branch5x5_2", "branch5x5_1", 64, 5),
        Row("branch3x3dbl_1", "x", 64, 1),
        Row("branch3x3dbl_2", "branch3x3dbl_1", 96, 3),
        Row("branch3x3dbl_3", "branch3x3dbl_2", 96, 3),
        Row("branch_pool", "pool", pool, 1),
    )


def block_17(inner: int) -> tuple[Row, ...]:
    """The block at 17x17 (figure 6), its 7x7 convolutions in rows and columns of `inner`."""
    return (
        Row("branch1x1", "x", 192, 1),
        Row("branch7x7_1", "x", inner, 1),
        Row("branch7x7_2", "branch7x7_1", inner, (1, 7)),
        Row("branch7x7_3", "branch7x7_2", 192, (7, 1)),
        Row("branch7x7dbl_1", "x", inner, 1),
        Row("branch7x7dbl_2", "branch7x7dbl_1", inner, (7, 1)),
        Row("branch7x7dbl_3", "branch7x7dbl_2", inner, (1, 7)),
        Row("branch7x7dbl_4", "branch7x7dbl_3", inner, (7, 1)),
        Row("branch7x7dbl_5", "branch7x7dbl_4", 192, (1, 7)),
        Row("branch_pool", "pool", 192, 1),
    )


BLOCK_8 = (
    Row("branch1x1", "x", 320, 1),
    Row("branch3x3_1", "x", 384, 1),
    Row("branch3x3_2a", "branch3x3_1", 384, (1, 3)),
    Row("branch3x3_2b", "branch3x3_1", 384, (3, 1)),
    Row("branch3x3dbl_1", "x", 448, 1),
    Row("branch3x3dbl_2", "branch3x3dbl_1", 384, 3),
    Row("branch3x3dbl_3a", "branch3x3dbl_2", 384, (1, 3)),
    Row("branch3x3dbl_3b", "branch3x3dbl_2", 384, (3, 1)),
    Row("branch_pool", "pool", 192, 1),
)
"""The block at 8x8 (figure 7)."""

REDUCTION_17 = (
    Row("branch3x3", "x", 384, 3),
    Row("branch3x3dbl_1", "x", 64, 1),
    Row("branch3x3dbl_2", "branch3x3dbl_1", 96, 3),
    Row("branch3x3dbl_3", "branch3x3dbl_2", 96, 3),
)
REDUCTION_8 = (
    Row("branch3x3_1", "x", 192, 1),
    Row("branch3x3_2", "branch3x3_1", 320, 3),
    Row("branch7x7x3_1", "x", 192, 1),
    Row("branch7x7x3_2", "branch7x7x3_1", 192, (1, 7)),
    Row("branch7x7x3_3", "branch7x7x3_2", 192, (7, 1)),
    Row("branch7x7x3_4", "branch7x7x3_3", 192, 3),
)
"""From 35x35 to 17x17 and from 17x17 to 8x8: what no other reads has stride 2, and the
max-pooled input is the last part of the output."""

BLOCKS = {
    "Mixed_5b": block_35(pool=32),
    "Mixed_5c": block_35(pool=64),
    "Mixed_5d": block_35(pool=64),
    "Mixed_6a": REDUCTION_17,
    "Mixed_6b": block_17(inner=128),
    "Mixed_6c": block_17(inner=160),
    "Mixed_6d": block_17(inner=160),
    "Mixed_6e": block_17(inner=192),
    "Mixed_7a": REDUCTION_8,
    "Mixed_7b": BLOCK_8,
    "Mixed_7c": BLOCK_8,
}

AUXILIARY = "Mixed_6e"
"""The block whose map the auxiliary classifier reads."""

STAGE_NAMES = (
    "Conv2d_2b_3x3",
    "Conv2d_4a_3x3",
    "attention.Mixed_5d",
    "attention.Mixed_6e",
    "attention.Mixed_7c",
)
"""What gives the last map of each size at 299 pixels."""


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation and ReLU; padded to keep the size or not."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padded: bool = True,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(channels, out, (height, width), stride, padding, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionBlock(nn.Module):
    """Parallel branches of convolutions, concatenated; built from the rows of a table."""

    def __init__(
        self, channels: int, rows: tuple[Row, ...], width: float, reduces: bool, padded: bool
    ) -> None:
        super().__init__()
        self.reads = {row.name: row.reads for row in rows}
        self.outputs = [name for name in self.reads if name not in self.reads.values()]
        self.reduces = reduces
        self.padding = int(padded)
        sizes = {"x": channels, "pool": channels}
        for row in rows:
            sizes[row.name] = scaled(row.channels, width)
            halves = reduces and row.name in self.outputs
            self.add_module(
                row.name,
                Convolution(
                    sizes[row.reads],
                    sizes[row.name],
                    row.kernel,
                    stride=2 if halves else 1,
                    padded=padded or not halves,
                ),
            )
        self.channels = sum(sizes[name] for name in self.outputs) + (channels if reduces else 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = {"x": x}
        if self.reduces:
            pooled = F.max_pool2d(x, 3, stride=2, padding=self.padding)
        else:
            maps["pool"] = F.avg_pool2d(x, 3, stride=1, padding=1)
        for name, source in self.reads.items():
            maps[name] = self.get_submodule(name)(maps[source])
        outputs = [maps[name] for name in self.outputs]
        return torch.cat([*outputs, pooled] if self.reduces else outputs, dim=1)


class AuxiliaryClassifier(nn.Module):
    """A second head on the 17x17 map, whose loss reaches the early layers by a short way.

    At 299 pixels a 5x5 average pool of stride 3 leaves the 5x5 map that the convolution reads.
    Where that pool would leave less, the map is averaged (or, if smaller, repeated) to 5x5.
    """

    def __init__(self, channels: int, classes: int, width: float) -> None:
        super().__init__()
        inner, out = scaled(128, width), scaled(768, width)
        self.conv0 = Convolution(channels, inner, 1)
        self.conv1 = Convolution(inner, out, 5, padded=False)
        self.fc = nn.Linear(out, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(x, 5, stride=3) if min(x.shape[-2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
        return self.fc(self.conv1(self.conv0(x)).mean((2, 3)))


class InceptionV3(nn.Module):
    """InceptionV3, which in training mode gives its auxiliary logits too.

    Attention stands after each of the 11 mixed blocks; its modules stand apart, under the name of
    the block they follow.

    Parameters
    ----------
    classes, channels : logits to give, channels of the images
    attention, gates : see `mien.models.attention.create_attention`
    width : factor on all channels, in multiples of 8
    stride : 32; 16 with a first convolution of stride 1; 8 also without the first max pool
    image_size : pixels. Below 128 the convolutions and pools of the stem and the reductions, which
        the paper leaves unpadded, are padded, so that 48 pixels at stride 16 end in a 3x3 map.
        No parameter depends on it
    dropout : before the last layer; None is 0.5

    Notes
    -----
    Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016. Names and
    shapes of the parameters are those of timm's ``inception_v3`` with ``aux_logits=True``.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        attention: str,
        gates: str,
        width: float,
        stride: int,
        image_size: int,
        dropout: float | None,
        **_: Any,
    ) -> None:
        super().__init__()
        padded = image_size < PADDED_BELOW
        for name, layer in STEM.items():
            if layer is None:
                left_out = name == "Pool1" and stride == 8
                pool = nn.Identity() if left_out else nn.MaxPool2d(3, 2, padding=int(padded))
                self.add_module(name, pool)
                continue
            full, kernel = layer
            out = scaled(full, width)
            first = name == "Conv2d_1a_3x3"
            self.add_module(
                name,
                Convolution(
                    channels,
                    out,
                    kernel,
                    stride=2 if first and stride == 32 else 1,
                    padded=padded or name == "Conv2d_2b_3x3",
                ),
            )
            channels = out
        self.attention = nn.ModuleDict()
        for name, rows in BLOCKS.items():
            reduces = rows in (REDUCTION_17, REDUCTION_8)
            block = InceptionBlock(channels, rows, width, reduces, padded)
            self.add_module(name, block)
            channels = block.channels
            self.attention[name] = create_attention(attention, channels, gates=gates)
            if name == AUXILIARY:
                self.AuxLogits = AuxiliaryClassifier(channels, classes, width)
        self.drop = nn.Dropout(0.5 if dropout is None else dropout)
        self.fc = nn.Linear(channels, classes)
        self.stage_names = STAGE_NAMES

    def forward_maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The map that the auxiliary classifier reads, and the last map."""
        for name in STEM:
            x = self.get_submodule(name)(x)
        for name in BLOCKS:
            x = self.attention[name](self.get_submodule(name)(x))
            if name == AUXILIARY:
                auxiliary = x
        return auxiliary, x

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map ``[N, C, h, w]``, after its attention."""
        return self.forward_maps(x)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Logits ``[N, classes]``; in training mode a pair, the auxiliary logits second."""
        auxiliary, x = self.forward_maps(x)
        logits = self.fc(self.drop(x.mean((2, 3))))
        return (logits, self.AuxLogits(auxiliary)) if self.training else logits
