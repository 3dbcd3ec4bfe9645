"""The command of the generator: balance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.app import (
    Data,
    Device,
    Runs,
    Set,
    SkipBad,
    app,
    command,
    next_step,
    say_notes,
    settings_given,
    stoppable,
)
from mien.errors import DataError, RecipeError

if TYPE_CHECKING:
    from mien.balance.gan import GeneratorRecipe, GeneratorRun


@app.command()
def balance(
    data: Data,
    lift: Annotated[
        str,
        typer.Option(
            help="Images that every class is to have (the paper's 5670), 'equal', or those of some "
            "classes: disgust=5670,fear=5000."
        ),
    ] = "5670",
    generator: Annotated[
        str,
        typer.Option(help="default, small, a recipe in TOML, or the folder of a trained one."),
    ] = "default",
    set_: Set = None,
    truncation: Annotated[
        float | None, typer.Option(help="Largest noise: smaller is more typical, less varied.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the faces; the generator's is a setting.", min=0)
    ] = 0,
    features: Annotated[
        Path | None, typer.Option(help="A run of `mien train` whose features judge the faces.")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="A run that says their classes. Default: --features.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("studies/balance"),
    runs: Runs = Path("runs"),
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train a generator on the training part and lift its small classes by generated faces.

    Leaves a data set that `mien train --data` reads, its settings, tables and sheets.

    Example: mien balance --data .data/fer2013 --generator small --features runs/RUN
    """
    from mien.balance.gan import lifted
    from mien.data import read, roles
    from mien.data.store import write_store
    from mien.report.balancing import write_balance
    from mien.runs.run import Run
    from mien.study.balancing import balance_classes

    store = out / "faces"
    if store.exists():  # said now, and not after the training
        raise DataError(
            f"{store}: exists; remove it, or give another --out (a generator that is trained "
            "already is not trained again)"
        )
    judges = [Run.open(path) if path else None for path in (features, classifier)]
    chosen = _generator(generator, set_ or [])
    faces, parts = roles(read(data, skip_bad=skip_bad))
    say_notes(faces)
    with stoppable():
        done, sheets, made = balance_classes(
            faces[parts.train],
            faces[parts.validation],
            chosen,
            lift,
            features=judges[0],
            classifier=judges[1],
            truncation=truncation,
            seed=seed,
            runs=runs,
            device=device,
        )
    written = write_balance(done, sheets, out)
    write_store(lifted(faces, made), store)  # last: where it stands, all of it is done
    for path in written:
        print(path)
    if done["why"]:
        print(f"not assessed: {done['why']}")
    next_step(command("train", "--data", store))


def _generator(name: str, changes: list[str]) -> GeneratorRecipe | GeneratorRun:
    """A trained generator by its folder, or a recipe with settings changed by NAME=VALUE."""
    from mien.balance.gan import GeneratorRun, generator_recipe

    if (Path(name) / "run.json").exists():
        if changes:
            raise RecipeError(f"{name}: is trained already, so nothing can be set; leave out --set")
        return GeneratorRun.open(name)
    recipe = generator_recipe(name)
    return recipe.from_dict({**recipe.to_dict(), **settings_given(changes)}, source="--set")
