"""A shorter training that a longer one goes on from."""

from __future__ import annotations

from mien.data.faceset import FaceSet
from mien.errors import RecipeError
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name


def check_shareable(recipe: Recipe) -> None:
    """Refuse a recipe whose first epochs depend on how many there will be.

    Raises
    ------
    RecipeError
        for a schedule that knows its horizon, for images that grow, and for `patience`.
    """
    if recipe.schedule != "constant":
        raise RecipeError(
            f"schedule = '{recipe.schedule}' sets every rate by the number of epochs, so a longer "
            "training does not begin like a shorter one: train it from the start, or use "
            "schedule = 'constant'"
        )
    if recipe.start_size:
        raise RecipeError(
            f"start_size = {recipe.start_size} sets the size of the images by the number of "
            "epochs: train each length from the start, or set start_size to 0"
        )
    if recipe.patience:
        raise RecipeError(
            f"patience = {recipe.patience} may have stopped the shorter training, which a longer "
            "one cannot go on from: train it from the start, or set patience to 0"
        )


def check_prefix(prefix: Run, recipe: Recipe, train: FaceSet, validation: FaceSet | None) -> None:
    """Refuse to go on from a run that is not the beginning of this training.

    Raises
    ------
    RecipeError
        where `check_shareable` does, or the run is not finished, kept no checkpoint, is not
        shorter, or has another recipe, other images or another version of the training code.
    """
    check_shareable(recipe)
    if not prefix.finished or not prefix.checkpoint_path.exists():
        raise RecipeError(
            f"{prefix.path}: has no last checkpoint to go on from; train it with keep_checkpoint"
        )
    if prefix.recipe.epochs >= recipe.epochs:
        raise RecipeError(
            f"{prefix.path}: has {prefix.recipe.epochs} epochs, so a training of {recipe.epochs} "
            "does not go on from it; give a shorter run"
        )
    shorter = recipe.but(epochs=prefix.recipe.epochs)
    others = [k for k, v in shorter.to_dict().items() if v != getattr(prefix.recipe, k)]
    if others:
        raise RecipeError(
            f"{prefix.path}: has other settings than this training ({', '.join(others)}); only "
            "epochs may differ"
        )
    # The name stands for the images, the file of initial weights and the training code as well.
    if prefix.name != run_name(shorter, train, validation):
        raise RecipeError(
            f"{prefix.path}: was trained on other images, from other weights or by another version "
            "than this training; train it from the start"
        )
