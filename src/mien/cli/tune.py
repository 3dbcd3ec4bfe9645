"""The command that searches for settings: tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mien.cli.app import (
    Data,
    Device,
    Jobs,
    Records,
    Runs,
    Set,
    SkipBad,
    app,
    command,
    next_step,
    say_notes,
    stoppable,
)
from mien.cli.train import Balance, recipe_of
from mien.errors import RecipeError


@app.command()
def tune(
    data: Data,
    space: Annotated[
        str,
        typer.Option(help="paper (Table IV, 243 settings), paper-tables (48), or a TOML file."),
    ] = "paper",
    recipe: Annotated[
        str, typer.Option(help="The default setting: a recipe by name, or a TOML file.")
    ] = "plain",
    set_: Set = None,
    balance: Balance = None,
    sampler: Annotated[str, typer.Option(help="grid, random, tpe or cmaes.")] = "grid",
    fidelity: Annotated[str, typer.Option(help="halving, hyperband or full.")] = "halving",
    eta: Annotated[int, typer.Option(help="One in so many is promoted.")] = 3,
    settings: Annotated[int | None, typer.Option(help="How many to try. Default: all.")] = None,
    protocol: Annotated[
        str, typer.Option(help="clean, or paper: choose on the test images as it did.")
    ] = "clean",
    folds: Annotated[
        int, typer.Option(help="Measure on so many inner folds of Training; 0: on validation.")
    ] = 0,
    prefixes: Annotated[
        bool,
        typer.Option(
            "--prefixes", help="Let longer trainings go on from shorter ones (constant rates)."
        ),
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(help="Trial table: sqlite:///FILE or postgresql://... Default: in --out."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the search in the storage.")] = None,
    jobs: Jobs = None,
    seed: Annotated[int, typer.Option(help="Of the sampler.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the tables and figures.")] = Path(
        "studies/tune"
    ),
    runs: Runs = Path("runs"),
    records: Records = None,
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Search for the best setting of a model. Any number may work on one storage at a time.

    Example: mien tune --data drawn --space space.toml --set image_size=24 --set width=0.25
    """
    from mien.data import read, roles
    from mien.errors import unknown
    from mien.evaluation.openings import open_once
    from mien.evaluation.schemes import k_fold
    from mien.report.searches import write_search
    from mien.runs.environment import trainings_at_once
    from mien.runs.recipe import VOTES
    from mien.search import Space
    from mien.search import tune as search
    from mien.study.paper import TABLE_IV, TABLES_V_IX

    grids = {"paper": TABLE_IV, "paper-tables": TABLES_V_IX}
    if space in grids:
        grid = grids[space]
        base = recipe_of(recipe, set_ or [], balance)
        start = base.but(**grid.default, weight_decay=0.0, schedule="constant")
        searched = Space(f"{base.key}, {grid.name}", start.to_dict(), grid.levels)
    elif space.endswith(".toml"):
        searched = Space.from_toml(
            space, lambda own: recipe_of(recipe, set_ or [], balance, own).to_dict()
        )
        base = searched.recipe({})
    else:
        raise RecipeError(unknown("space", space, grids) + "; or give a TOML file")
    votes = base.wants_votes or any(name in searched.parameters for name in VOTES)
    faces = read(data, skip_bad=skip_bad, votes=votes)
    prepared, parts = roles(faces)
    say_notes(prepared)
    inner: Any = k_fold(prepared[parts.train], folds) if folds else ()

    def opened() -> None:
        if protocol == "paper" and parts.test and prepared[parts.test].labelled:
            fingerprint = prepared[parts.test].fingerprint
            open_once(out / "openings.jsonl", parts.test, fingerprint, [name or searched.name])

    with stoppable():
        found = search(
            searched,
            faces,
            storage=storage or str((out / "trials.db").absolute()),
            name=name,
            sampler=sampler,
            fidelity=fidelity,
            eta=eta,
            settings=settings,
            protocol=protocol,
            folds=inner,
            prefixes=prefixes,
            workers=jobs or trainings_at_once(device),
            runs=runs,
            records=records,
            device=device,
            seed=seed,
            before=opened,
        )
    content = {"key": base.key, "title": base.title, "source": searched.name, **found.to_dict()}
    print(f"search: {write_search(content, out)}")
    best, default = found.best, found.default
    for what, trial in (("default", default), ("best", best)):
        value = f"{trial.value:.4f}" if trial.value is not None else f"failed ({trial.reason})"
        print(f"{what}: {value}, {trial.values}")
    for note in found.notes():
        print(f"note: {note}")
    cost = found.cost()
    if cost["share"]:
        print(f"cost: {1 / cost['share']:.1f} times less than every setting in full")
    next_step(command("train", "--data", data, "--recipe", out / "best.toml"))
