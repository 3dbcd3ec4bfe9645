"""The generator: a class-conditional GAN for small face images."""

from mien.balance.gan.run import GeneratorRun, generator_name
from mien.balance.gan.sampling import check_truncation, generate, lifted
from mien.balance.gan.training import fit_generator
from mien.runs.generator_recipe import GENERATORS, GeneratorRecipe, generator_recipe

__all__ = [
    "GENERATORS",
    "GeneratorRecipe",
    "GeneratorRun",
    "check_truncation",
    "fit_generator",
    "generate",
    "generator_name",
    "generator_recipe",
    "lifted",
]
