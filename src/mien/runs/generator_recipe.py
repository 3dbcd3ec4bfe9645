"""The generator's recipe: all that determines its training, besides the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mien.errors import RecipeError, unknown
from mien.runs.settings import Settings

STAGES = 4
"""Times that the side is doubled by the generator and halved by the discriminator."""


@dataclass(frozen=True)
class GeneratorRecipe(Settings):
    """All that determines the training of a class-conditional GAN besides the images.

    Raises
    ------
    RecipeError
        for a value of the wrong kind or out of range, or a side that is no multiple of 16.
    """

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "conditioning": ("projection", "embedding"),
        "objective": ("minimax", "hinge", "relativistic"),
        "precision": ("fp32", "bf16"),
    }
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "image_size": (16, 256), "width": (4, 512), "depth": (0, 4), "latent": (2, 1024),
        "r1": (0, 1e4), "r2": (0, 1e4), "penalty_every": (1, 1000),
        "epochs": (1, 100_000), "batch_size": (2, 100_000),
        "lr": (1e-12, 1), "lr_discriminator": (1e-12, 1), "beta1": (0, 0.999), "beta2": (0, 0.9999),
        "ema": (0, 0.999999), "flip": (0, 1), "shift": (0, 0.5), "zoom": (0, 1),
        "brightness": (0, 1), "contrast": (0, 1), "erase": (0, 1), "images": (0, 10**9),
        "seed": (0, 2**63 - 1),
    }  # fmt: skip

    # the networks
    image_size: int = 48  # pixels, those of the images
    width: int = 64  # channels at half the side; twice as many at each smaller one
    depth: int = 1  # further 3x3 convolutions (pairs of them in the generator) at each side
    latent: int = 128  # length of the noise
    conditioning: str = "projection"  # how the discriminator sees the class
    spectral_norm: bool = False  # of the discriminator

    # the training
    objective: str = "relativistic"  # minimax: the paper's eq. 1, non-saturating; or hinge
    r1: float = 0.2  # weight of the gradient penalty on real images
    r2: float = 0.2  # and of that on generated ones
    penalty_every: int = 4  # steps between penalties, which then count as much more
    images: int = 0  # of an epoch, each class with the same share; 0, and at most: all there are
    epochs: int = 100
    batch_size: int = 64
    lr: float = 8e-4
    lr_discriminator: float = 8e-4
    beta1: float = 0.0  # Adam's
    beta2: float = 0.99
    ema: float = 0.999  # decay of the averaged generator per step; 0: none
    precision: str = "fp32"  # bf16 pays where the processor or accelerator has it
    seed: int = 0

    # differentiable augmentation, of real and generated images alike (Zhao et al., 2020)
    flip: float = 0.5  # probability
    shift: float = 0.125  # share of the side
    zoom: float = 0.0  # share
    brightness: float = 0.2  # share
    contrast: float = 0.2  # share
    erase: float = 0.5  # probability

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % 2**STAGES:
            raise RecipeError(
                f"image_size = {self.image_size}: the generator doubles a side {STAGES} times, so "
                f"give a multiple of {2**STAGES}, such as 48 or 64"
            )


SMALL = GeneratorRecipe(
    width=24, depth=0, images=6000, epochs=16, ema=0.99, shift=0.05, brightness=0.0, contrast=0.0,
    erase=0.0,
)  # fmt: skip
GENERATORS = {"default": GeneratorRecipe(lr=3e-4, lr_discriminator=3e-4), "small": SMALL}
"""Generators by name: for an accelerator, and for five to ten minutes of two cores."""


def generator_recipe(name: str) -> GeneratorRecipe:
    """A generator's recipe by its name, or from a TOML file.

    Raises
    ------
    RecipeError
        if it is neither.
    """
    if name in GENERATORS:
        return GENERATORS[name]
    if not name.endswith(".toml"):
        raise RecipeError(unknown("generator", name, GENERATORS) + "; or give a TOML file")
    return GeneratorRecipe.from_toml(Path(name))
