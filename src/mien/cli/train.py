"""Commands of one model: train, pretrain, recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
from mien.errors import RecipeError

if TYPE_CHECKING:
    from mien.runs.recipe import Recipe

Balance = Annotated[
    str | None,
    typer.Option(
        help="How the classes are balanced: auto (what did best on FER-2013), none, weights, "
        "oversample, softmax, gan, gan-disgust. Default: as the recipe says."
    ),
]


@app.command()
def train(
    data: Data,
    recipe: Annotated[
        str, typer.Option(help="A recipe by name (see `mien recipes`), or a TOML file.")
    ] = "plain",
    set_: Set = None,
    balance: Balance = None,
    runs: Runs = Path("runs"),
    records: Annotated[
        Path | None, typer.Option(help="Leave a small record of the finished run here.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Share every batch out to so many processes.")
    ] = 1,
    launcher: Annotated[str, typer.Option(help="torch, or ray: what starts them.")] = "torch",
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train one model on the training split, watching the validation split.

    Example: mien train --data .data/fer2013 --recipe plain --set epochs=10
    """
    from mien.data import read, roles
    from mien.runs.environment import choose_device
    from mien.training import fit, predict_splits
    from mien.training.distributed import fit_distributed

    chosen = recipe_of(recipe, set_ or [], balance)
    where = str(choose_device(device))
    faces, parts = roles(read(data, skip_bad=skip_bad, votes=chosen.wants_votes))
    say_notes(faces)
    train, validation = faces[parts.train], faces[parts.validation]
    with stoppable():
        if processes == 1 and launcher == "torch":
            run = fit(chosen, train, validation, runs=runs, device=where)
        else:
            run = fit_distributed(
                chosen,
                train,
                validation,
                processes=processes,
                launcher=launcher,
                runs=runs,
                device=device,
            )
    if parts.test and not faces[parts.test].labelled:
        predict_splits(run, faces, [parts.test], where)
    print(f"run: {run.path}")
    if records:
        print(f"record: {run.write_record(records)}")
    _print_metrics(run, parts.validation)
    next_step(command("predict", "PHOTOS", "--run", run.path, "--out", "predictions.csv"))


@app.command()
def pretrain(
    data: Data,
    epochs: Annotated[int, typer.Option(help="How many, in place of the recipe's.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    recipe: Annotated[
        str, typer.Option(help="A recipe by name (see `mien recipes`), or a TOML file.")
    ] = "plain",
    set_: Set = None,
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train a network on the training images without their labels, as weights to begin from.

    Example: mien pretrain --data .data/fer2013 --epochs 50 --set batch_size=256
    --out start.safetensors
    """
    from mien.data import read, roles
    from mien.training.pretrain import pretrain as train_without_labels

    chosen = recipe_of(recipe, set_ or [])
    faces, parts = roles(read(data, skip_bad=skip_bad))
    say_notes(faces)
    with stoppable():
        train_without_labels(chosen, faces[parts.train], out, epochs=epochs, device=device)
    print(f"weights: {out}")
    settings = [word for change in [*(set_ or []), f"weights={out}"] for word in ("--set", change)]
    next_step(command("train", "--data", data, "--recipe", recipe, *settings))


def recipe_of(
    name: str,
    changes: list[str],
    balance: str | None = None,
    base: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe by name or from a TOML file, with settings changed.

    They are those of `base`, of a kind of balancing, and of NAME=VALUE; the later ones count.
    """
    from mien.balance import BALANCE
    from mien.errors import unknown
    from mien.runs.recipe import Recipe
    from mien.study.scales import recipes

    if name.endswith(".toml"):
        recipe = Recipe.from_toml(name)
    elif name in recipes():
        recipe = recipes()[name]
    else:
        raise RecipeError(unknown("recipe", name, recipes()) + "; or give a TOML file")
    settings = recipe.to_dict() | dict(base or {})
    if balance is not None:
        if balance not in BALANCE:
            raise RecipeError(unknown("balance", balance, BALANCE))
        # One kind takes the place of another that the recipe may have.
        default = Recipe().to_dict()
        settings |= {key: default[key] for kind in BALANCE.values() for key in kind}
        settings |= BALANCE[balance]
    settings |= settings_given(changes)
    return Recipe.from_dict(settings, "--set" if changes else "[base]" if base else name)


def _print_metrics(run: Any, split: str) -> None:
    from mien.metrics import evaluate

    found = run.predictions(run.validation_split)
    metrics = evaluate(found.probabilities, found.labels, run.classes)
    low, high = metrics.accuracy_interval
    print(
        f"{split} (validation): accuracy {metrics.accuracy:.4f} [{low:.4f}, {high:.4f}], "
        f"balanced {metrics.balanced_accuracy:.4f}, macro F1 {metrics.macro_f1:.4f}, "
        f"{metrics.n:,} images"
    )
    if found.seen is not None and found.seen.any():
        print(f"{found.seen.sum():,} of them stand in the training part too")


@app.command()
def recipes() -> None:
    """List the recipes that `mien train --recipe` knows.

    Example: mien recipes
    """
    from mien.study.scales import recipes as known

    table = Table(
        "recipe", "model", "pixels", "epochs", "optimiser", "rate", box=None, pad_edge=False
    )
    for name, r in known().items():
        numbers = str(r.image_size), str(r.epochs), r.optimiser, f"{r.lr:g}"
        table.add_row(name, r.title, *numbers)
    Console().print(table)
