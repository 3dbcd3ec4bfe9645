"""Training: one function, `fit`, from a recipe and two sets of faces to a finished run."""

from __future__ import annotations

from pathlib import Path

from mien.data.faceset import FaceSet
from mien.runs.atomic import remove_leftovers
from mien.runs.environment import choose_device, within_memory
from mien.runs.lock import locked
from mien.runs.recipe import Recipe
from mien.runs.run import Run, find_finished, run_name
from mien.training.earlier import check_beginning
from mien.training.generated import generated_faces
from mien.training.loop import Training
from mien.training.parts import check_parts
from mien.training.prefix import check_prefix
from mien.training.teacher import check_teachers


def fit(
    recipe: Recipe,
    train: FaceSet,
    validation: FaceSet | None = None,
    *,
    runs: Path | str = "runs",
    records: Path | str | None = None,
    device: str | None = None,
    progress: str = "live",
    prefix: Run | None = None,
    keep_checkpoint: bool = False,
) -> Run:
    """Train a model and return its finished run.

    The same recipe on the same images is the same run: asking again returns it at once, and a run
    that was stopped, also by SIGKILL, goes on from its last checkpoint and ends, on a CPU with
    the same number of threads, with the same weights bit for bit.

    Parameters
    ----------
    recipe : all that determines the training
    train : the images to learn from, all labelled
    validation : labelled images to watch (and, with ``patience``, to stop on). Those that stand in
        `train` too are left out of everything that is chosen on them.
    runs : folder in which the run's folder is made
    records : folder with records of finished runs; one of this run is taken as it is
    device : ``"cpu"``, ``"cuda"``, ...; None takes an accelerator where there is one
    progress : ``"live"`` (a line that is kept up to date, on a terminal), ``"lines"`` (a line an
        epoch) or ``"none"``
    prefix : a finished run of the same recipe with fewer epochs, on the same images, whose last
        checkpoint was kept: the training goes on from its end, and ends with the same weights bit
        for bit as without it
    keep_checkpoint : keep the last checkpoint of the finished run, for a longer training to go on
        from

    Raises
    ------
    DataError
        if a test split is given, or images are unlabelled or missing.
    RecipeError
        if the recipe does not fit the model or the images, or does not go on from `prefix`, or its
        teachers do not fit.
    RunError
        if the run folder is damaged, in use, or cannot be written, the loss is not finite, or
        (`OutOfMemory`) the accelerator's memory does not hold the training.
    """
    check_parts(recipe, train, validation)
    check_beginning(recipe, train, validation)
    check_teachers(recipe, train, validation)
    if prefix is not None:
        check_prefix(prefix, recipe, train, validation)
    name = run_name(recipe, train, validation)
    found = find_finished(name, recipe, *(Path(f) for f in (runs, records) if f is not None))
    if found is not None:
        return found
    generated = generated_faces(recipe, train, runs=runs, device=device, progress=progress)
    path = Path(runs) / name
    with within_memory(path):
        training = Training(recipe, train, validation, choose_device(device), generated=generated)
    with locked(path), within_memory(path):
        found = find_finished(name, recipe, Path(runs))  # by another process, meanwhile
        if found is not None:
            return found
        remove_leftovers(path)
        training.begin(path, prefix)
        return training.finish(progress, keep_checkpoint)
