"""Commands that judge models on the training split or by their runs: crossval, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
from mien.cli.cluster import Cluster, CpusEach, GpusEach, Store, executor
from mien.cli.train import Balance, recipe_of
from mien.errors import DataError, RecipeError, RunError


@app.command()
def crossval(
    data: Data,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="A model: a recipe by name, or a TOML file. Two or more are compared."),
    ] = None,
    set_: Set = None,
    balance: Balance = None,
    attention: Annotated[
        list[str] | None, typer.Option(help="Each model with these: --attention none ...")
    ] = None,
    scheme: Annotated[str, typer.Option(help="k-fold, 5x2, hold-out or official.")] = "k-fold",
    folds: Annotated[int | None, typer.Option(help="Of k-fold. Default: 10.")] = None,
    seed: Annotated[int, typer.Option(help="Of the division.", min=0)] = 0,
    cluster: Cluster = None,
    cpus: CpusEach = None,
    gpus: GpusEach = None,
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
    if folds is not None and scheme != "k-fold":
        raise RecipeError(f"--folds is for --scheme k-fold; {scheme} has its own, leave it out")
    if cluster is not None and jobs is not None:
        raise RecipeError(
            "--jobs is for this machine; on a cluster as many run at a time as have the --cpus and "
            "--gpus that they need"
        )
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
    say_notes(faces)
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
        options["folds"] = 10 if folds is None else folds
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
        next_step(command("compare", path))


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
        bool,
        typer.Option(
            "--without-copies", help="Leave out images that stand in a training part too."
        ),
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
        if split or data or without_copies:
            raise DataError(
                f"{results[0]}: says itself what its folds were judged on; --split, --data and "
                "--without-copies are for run folders, leave them out"
            )
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
