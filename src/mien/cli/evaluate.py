"""Commands that choose and judge: tune, crossval, compare, paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mien.cli.app import Data, Device, Jobs, Records, Runs, SkipBad, app, next_step, stoppable
from mien.cli.cluster import Cluster, CpusEach, GpusEach, Store, executor
from mien.cli.train import Balance, recipe_of
from mien.errors import DataError, RecipeError, RunError


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
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set epochs=10")
    ] = None,
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
        bool, typer.Option(help="Let longer trainings go on from shorter ones (constant rates).")
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
    inner: Any = ()
    if folds:
        prepared, parts = roles(faces)
        inner = k_fold(prepared[parts.train], folds)
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
    next_step(f"mien train --data {data} --recipe {out / 'best.toml'}")


@app.command()
def crossval(
    data: Data,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="A model: a recipe by name, or a TOML file. Two or more are compared."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of all: --set epochs=10")
    ] = None,
    balance: Balance = None,
    attention: Annotated[
        list[str] | None, typer.Option(help="Each model with these: --attention none ...")
    ] = None,
    scheme: Annotated[str, typer.Option(help="k-fold, 5x2, hold-out or official.")] = "k-fold",
    folds: Annotated[int, typer.Option(help="Of k-fold.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the division.", min=0)] = 0,
    cluster: Cluster = None,
    cpus: CpusEach = 1,
    gpus: GpusEach = 0,
    store: Store = None,
    jobs: Jobs = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("studies/crossval"),
    runs: Runs = Path("runs"),
    records: Records = None,
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Cross-validate one model or more on the training split, and test their differences.

    Example: mien crossval --data drawn --attention none --attention cbam --scheme 5x2
    """
    from mien.data import read, roles
    from mien.errors import unknown
    from mien.evaluation.compare import compare_folds
    from mien.evaluation.cross_validation import cross_validate
    from mien.evaluation.schemes import SCHEMES
    from mien.runs.atomic import write_json
    from mien.runs.environment import cores, trainings_at_once

    if scheme not in SCHEMES:
        raise RecipeError(unknown("scheme", scheme, SCHEMES))
    workers = jobs or trainings_at_once(device)
    where = executor(cluster, cpus, gpus, store, workers)
    chosen = [recipe_of(name, set_ or [], balance) for name in recipe or ["plain"]]
    if attention:
        chosen = [one.but(attention=kind) for one in chosen for kind in attention]
    recipes = {one.title: one for one in chosen}
    if len(recipes) < len(chosen):
        recipes = {f"{one.title} {number}": one for number, one in enumerate(chosen, 1)}
    votes = any(one.wants_votes for one in chosen)
    given = read(data, skip_bad=skip_bad, votes=votes)
    faces, parts = roles(given)
    divided = faces[parts.train]
    if scheme == "official":
        if parts.validation not in given.splits:
            raise DataError(
                f"{given.name}: has no validation split of its own; give --scheme hold-out, "
                "k-fold or 5x2"
            )
        divided = faces[(faces.split == parts.train) | (faces.split == parts.validation)]
    options: dict[str, Any] = {} if scheme == "official" else {"seed": seed}
    if scheme == "k-fold":
        options["folds"] = folds
    with stoppable():
        found = cross_validate(
            recipes,
            divided,
            scheme,
            SCHEMES[scheme](divided, **options),
            executor=where,
            runs=runs,
            records=records,
            device=device,
            threads=None if cluster or workers == 1 else max(1, cores() // workers),
            progress="lines",
            store=store,
        )
    path = out / "crossval.json"
    write_json(path, found.to_dict())
    table = Table("model", "accuracy", "± over folds", "macro F1", "folds", title=scheme)
    for model in found.to_dict()["models"]:
        accuracy, f1 = model["summary"]["accuracy"], model["summary"]["macro_f1"]
        cells = (_decimals(accuracy["mean"]), _decimals(accuracy["std"]), _decimals(f1["mean"]))
        table.add_row(model["name"], *cells, str(accuracy["folds"]))
    Console().print(table)
    for failure in found.failures:
        print(f"failed: {failure['model']}, {failure['fold']}: {failure['error']}")
    print(f"cross-validation: {path}")
    if found.failures:
        raise RunError(
            f"{len(found.failures)} fold(s) failed, as said above; mend what they name, then run "
            "the same command again"
        )
    if len(recipes) > 1 and scheme in ("k-fold", "5x2"):
        _print_comparison(compare_folds(found))
        next_step(f"mien compare {path}")


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


@app.command()
def compare(
    results: Annotated[
        list[Path],
        typer.Argument(help="Two or more run folders or records, or one crossval.json."),
    ],
    split: Annotated[str | None, typer.Option(help="The split to compare runs on.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The data set, for runs that did not note what they were trained on."),
    ] = None,
    without_copies: Annotated[
        bool, typer.Option(help="Leave out images that stand in a training part too.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the tests into this JSON.")] = None,
) -> None:
    """Test whether models differ, by the tests that the way they were measured allows.

    Example: mien compare runs/A runs/B --without-copies
    """
    from mien.data import read, roles
    from mien.evaluation.compare import compare_folds, compare_runs
    from mien.evaluation.cross_validation import CrossValidation
    from mien.runs.atomic import write_json
    from mien.runs.run import Run

    if len(results) == 1 and results[0].suffix == ".json":
        try:
            content = json.loads(results[0].read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{results[0]}: cannot be read ({error}); give a crossval.json"
            ) from None
        try:
            found = compare_folds(CrossValidation.from_dict(content))
        except DataError as error:
            raise DataError(f"{results[0]}: {error}") from None
    else:
        opened = [Run.open(path) for path in results]
        faces = None if data is None else roles(read(data))[0]
        found = compare_runs(opened, split, faces=faces, without_copies=without_copies)
    _print_comparison(found)
    if out is not None:
        write_json(out, found.to_dict())
        print(f"written: {out}")


def _print_comparison(found: Any) -> None:
    from mien.evaluation.outcome import rounded_p

    console = Console()
    table = Table("first", "second", "test", "statistic", "p", "p, Holm", "points")
    for pair in found.pairs:
        test = pair.test
        table.add_row(
            pair.first,
            pair.second,
            test.name,
            f"{test.statistic:.3f}",
            rounded_p(test.p),
            rounded_p(pair.p_holm),
            f"{100 * test.difference:+.2f}",
        )
    console.print(table)
    for sentence in found.sentences:
        console.print(sentence, highlight=False, markup=False)
    assumptions = {pair.test.name: pair.test.assumptions for pair in found.pairs}
    for name, text in assumptions.items():
        console.print(f"{name}: {text}", style="dim", highlight=False, markup=False)
    for note in found.notes:
        console.print(f"note: {note}", style="dim", highlight=False, markup=False)


@app.command()
def paper(
    out: Annotated[
        Path | None, typer.Option(help="Also write the tables into this folder.")
    ] = None,
) -> None:
    """Print the published tables as data, and the audit of their sums, settings and p-values.

    Example: mien paper --out studies/paper
    """
    from mien.report.audited import published_tables
    from mien.report.table import write_tables
    from mien.study.published_audit import audit_of_paper

    audit = audit_of_paper()
    tables = published_tables(audit)
    for table in tables:
        print(table.to_markdown())
    print(audit.summary)
    if out is not None:
        write_tables(tables, out)
        print(f"tables: {out}")
