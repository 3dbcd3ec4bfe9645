"""Generated faces for a training whose recipe asks for them."""

from __future__ import annotations

from pathlib import Path

from mien.balance.counts import to_generate
from mien.balance.gan import fit_generator, generate
from mien.data.faceset import FaceSet
from mien.runs.environment import choose_device
from mien.runs.generator_recipe import generator_recipe
from mien.runs.recipe import Recipe
from mien.training.conflicts import settled


def generated_faces(
    recipe: Recipe, train: FaceSet, *, runs: Path | str, device: str | None, progress: str
) -> FaceSet | None:
    """The faces that lift the small classes of this training part; None where none are asked for.

    The generator is trained on the part itself, so that in a fold it sees nothing that the fold
    holds out, and is found again in `runs` where several trainings share it. A training on a node
    of a cluster has a folder of its own there, and so a generator of its own.

    Raises
    ------
    DataError, RecipeError, RunError
        as `to_generate` and `fit_generator`, before the training begins.
    """
    if not recipe.generate:
        return None
    train = settled(train, recipe.conflicts)
    counts = to_generate(train.counts(), train.classes, recipe.generate)
    run = fit_generator(
        generator_recipe(recipe.generator), train, runs=runs, device=device, progress=progress
    )
    return generate(run, counts, seed=recipe.seed, device=str(choose_device(device)))
