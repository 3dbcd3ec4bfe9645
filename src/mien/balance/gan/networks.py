"""The two networks of the class-conditional GAN: DCGAN's ladder of strides, conditioned by class.

Both are built from the side of the image down to a sixteenth of it: 48 pixels come from, and end
in, a map of 3x3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from mien.runs.generator_recipe import STAGES, GeneratorRecipe

SLOPE = 0.1
"""Of the discriminator's rectifiers, for negative values."""


def channels_of(recipe: GeneratorRecipe) -> list[int]:
    """Channels at each stage, from the full side (not counted) down to the smallest map."""
    return [recipe.width * 2**stage for stage in range(STAGES)]


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and offset are the class's own (Dumoulin et al., 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(classes, channels)
        self.offset = nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.offset.weight)

    def forward(self, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` and labels ``[N]`` to ``[N, C, H, W]``."""
        gain, offset = self.gain(labels), self.offset(labels)
        return torch.addcmul(offset[:, :, None, None], self.norm(maps), gain[:, :, None, None])


class Generator(nn.Module):
    """From noise and a class to an image.

    Parameters
    ----------
    recipe : width, depth, length of the noise and side of the image
    classes, channels : of the images
    """

    def __init__(self, recipe: GeneratorRecipe, classes: int, channels: int) -> None:
        super().__init__()
        ladder = channels_of(recipe)[::-1]
        self.latent, self.side = recipe.latent, recipe.image_size // 2**STAGES
        self.embedding = nn.Embedding(classes, recipe.latent)
        self.linear = nn.Linear(2 * recipe.latent, ladder[0] * self.side**2)
        self.norms, self.ups, self.residuals = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for wide, narrow in zip(ladder, [*ladder[1:], None], strict=True):
            self.norms.append(ConditionalNorm(wide, classes))
            self.ups.append(nn.ConvTranspose2d(wide, narrow or channels, 4, 2, 1))
            depth = recipe.depth if narrow else 0  # at the full side it would cost the most
            self.residuals.append(
                nn.ModuleList(Residual(narrow or channels, classes) for _ in range(depth))
            )

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Noise ``[N, latent]`` and labels ``[N]`` to images ``[N, C, H, W]`` in [0, 1]."""
        start = self.linear(torch.cat((noise, self.embedding(labels)), 1))
        maps = start.view(len(noise), -1, self.side, self.side)
        for norm, up, residuals in zip(self.norms, self.ups, self.residuals, strict=True):
            maps = up(F.relu(norm(maps, labels)))
            for residual in residuals:  # type: ignore[attr-defined]
                maps = residual(maps, labels)
        return maps.float().sigmoid()  # also where the maps are in bfloat16


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, normalised by class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(channels, classes) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)
        )

    def forward(self, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` and labels ``[N]`` to ``[N, C, H, W]``."""
        inner = maps
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            inner = convolution(F.relu(norm(inner, labels)))
        return maps + inner


class Discriminator(nn.Module):
    """How real an image looks as one of its class.

    The class enters by projection onto the features (Miyato & Koyama, 2018, eq. 3), or as an
    embedded map beside the image's channels (Mirza & Osindero, 2014).

    Parameters
    ----------
    recipe : width, depth, conditioning, side of the image, and whether the weights are spectrally
        normalised (Miyato et al., 2018)
    classes, channels : of the images
    """

    def __init__(self, recipe: GeneratorRecipe, classes: int, channels: int) -> None:
        super().__init__()

        def limited(layer: nn.Module) -> nn.Module:
            # PyTorch's own start lets the signal fade from layer to layer to a hundredth of it.
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=layer.embedding_dim**-0.5)
            else:
                nn.init.kaiming_normal_(layer.weight, SLOPE)  # type: ignore[arg-type]
            return spectral_norm(layer) if recipe.spectral_norm else layer

        ladder = channels_of(recipe)
        self.side, self.map = recipe.image_size, None
        if recipe.conditioning == "embedding":
            self.map = limited(nn.Embedding(classes, recipe.image_size**2))
            channels += 1
        self.downs, self.residuals = nn.ModuleList(), nn.ModuleList()
        for narrow, wide in zip([channels, *ladder], ladder, strict=False):
            self.downs.append(limited(nn.Conv2d(narrow, wide, 4, 2, 1)))
            self.residuals.append(
                nn.ModuleList(
                    limited(nn.Conv2d(wide, wide, 3, padding=1)) for _ in range(recipe.depth)
                )
            )
        side = recipe.image_size // 2**STAGES
        self.last = limited(nn.Conv2d(ladder[-1], ladder[-1], 3, padding=1))
        self.features = limited(nn.Linear(ladder[-1] * side**2, ladder[-1]))
        self.linear = limited(nn.Linear(ladder[-1], 1))
        self.projection = None
        if recipe.conditioning == "projection":
            self.projection = limited(nn.Embedding(classes, ladder[-1]))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Images ``[N, C, H, W]`` in [0, 1] and labels ``[N]`` to logits ``[N]``."""
        maps = images * 2 - 1
        if self.map is not None:
            maps = torch.cat((maps, self.map(labels).view(-1, 1, self.side, self.side)), 1)
        for down, residuals in zip(self.downs, self.residuals, strict=True):
            maps = F.leaky_relu(down(maps), SLOPE)
            for convolution in residuals:  # type: ignore[attr-defined]
                maps = maps + F.leaky_relu(convolution(maps), SLOPE)
        maps = F.leaky_relu(self.last(maps), SLOPE)
        # Summed over its places, or without these two layers, a map does not tell one face from
        # another, and the generator makes all of a class alike.
        with torch.autocast(maps.device.type, enabled=False):  # bfloat16 would round logits apart
            features = F.leaky_relu(self.features(maps.float().flatten(1)), SLOPE)
            logits = self.linear(features)[:, 0]
            if self.projection is not None:
                logits = logits + (self.projection(labels) * features).sum(1)
        return logits
