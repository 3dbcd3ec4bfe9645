"""The command line: parse, call one function, print."""

from __future__ import annotations

import contextlib
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mien.errors import MienError, RecipeError

app = typer.Typer(
    help="Facial expression recognition: train, compare, explain and run models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at a data set, or bring FER-2013.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="A data set: the Kaggle folder or its zip, fer2013.csv, <split>/<class>/* folders, "
        "or 'drawn[:N[:SEED]]' for the embedded default.",
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder of the runs.")]
Records = Annotated[
    Path | None, typer.Option(help="Folder with records of finished runs that count as done.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: an accelerator if any.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable images, counted.")]


def main() -> None:
    """Run the command line; a mistake of the user's is one line and exit status 1."""
    warnings.filterwarnings("ignore", message=".*CUDA.*")
    try:
        app()
    except MienError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let Ctrl-C print what is kept and how to go on; typer alone would end without a word."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        print(f"\n{str(stopped) or 'stopped'}", file=sys.stderr)
        raise typer.Exit(130) from None


def _command() -> str:
    """The command as it was typed, for the report."""
    return shlex.join(["mien", *sys.argv[1:]])


def _next(text: str) -> None:
    Console().print(f"next: {text}", style="dim", highlight=False, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("studies/demo"),
    runs: Runs = Path("runs"),
    jobs: Annotated[int | None, typer.Option(help="Trainings at a time.")] = None,
) -> None:
    """Run the whole study on drawn faces, at demo scale, in minutes.

    Example: mien demo
    """
    _study("drawn", "demo", out, runs, None, jobs, None, False, False)


@app.command()
def study(
    data: Data,
    scale: Annotated[str, typer.Option(help="smoke, cpu, paper or demo.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study. Default: studies/<scale>")
    ] = None,
    runs: Runs = Path("runs"),
    records: Records = None,
    jobs: Annotated[
        int | None, typer.Option(help="Trainings at a time. Default: one a core.")
    ] = None,
    device: Device = None,
    baseline: Annotated[bool, typer.Option(help="Train `plain` beside the six.")] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Train the six models of the paper on a data set and write the report.

    What is done is not done again, and what was interrupted goes on.

    Example: mien study --data .data/fer2013 --scale cpu
    """
    _study(
        data, scale, out or Path("studies") / scale, runs, records, jobs, device, baseline, skip_bad
    )


def _study(
    data: str,
    scale: str,
    out: Path,
    runs: Path,
    records: Path | None,
    jobs: int | None,
    device: str | None,
    with_baseline: bool,
    skip_bad: bool,
) -> None:
    from mien.data import read
    from mien.report import write_report
    from mien.runs.recipe import unknown
    from mien.study.scales import baseline, scales
    from mien.study.study import run_study

    if scale not in scales():
        raise RecipeError(unknown("scale", scale, scales()))
    faces = read(data, skip_bad=skip_bad)
    with _stoppable():
        run_study(
            faces,
            scales()[scale],
            out,
            runs=runs,
            records=records,
            extra=[baseline()] if with_baseline else [],
            jobs=jobs,
            device=device,
            command=_command(),
            source=data,
        )
    page = write_report(out)
    print(f"report: {page}")
    _next(f"open {page}, or `mien predict PHOTOS --run {runs}/RUN --out predictions.csv`")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A study's folder, with results.json.")],
) -> None:
    """Write a study's report again from its results.

    Example: mien report studies/cpu
    """
    from mien.report import write_report

    print(f"report: {write_report(folder)}")


@app.command()
def train(
    data: Data,
    recipe: Annotated[
        str, typer.Option(help="A recipe by name (see `mien recipes`), or a TOML file.")
    ] = "plain",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set epochs=10")
    ] = None,
    runs: Runs = Path("runs"),
    records: Annotated[
        Path | None, typer.Option(help="Leave a small record of the finished run here.")
    ] = None,
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train one model on the training split, watching the validation split.

    Example: mien train --data .data/fer2013 --recipe plain --set epochs=10
    """
    from mien.data import read, roles
    from mien.training import fit, predict_splits

    chosen = _recipe(recipe, set_ or [])
    faces, parts = roles(read(data, skip_bad=skip_bad, votes=chosen.soft_labels))
    with _stoppable():
        run = fit(chosen, faces[parts.train], faces[parts.validation], runs=runs, device=device)
    if parts.test and not faces[parts.test].labelled:
        predict_splits(run, faces, [parts.test], device or "cpu")
    print(f"run: {run.path}")
    if records:
        print(f"record: {run.write_record(records)}")
    _print_metrics(run, parts.validation, faces)
    _next(f"mien predict PHOTOS --run {run.path} --out predictions.csv")


def _recipe(name: str, changes: list[str]) -> Any:
    from mien.runs.recipe import Recipe, unknown
    from mien.study.scales import recipes

    if name.endswith(".toml"):
        recipe = Recipe.from_toml(name)
    elif name in recipes():
        recipe = recipes()[name]
    else:
        raise RecipeError(unknown("recipe", name, recipes()) + "; or give a TOML file")
    settings = recipe.to_dict()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}: write it as NAME=VALUE, such as epochs=10")
        settings[key.strip()] = value.strip()
    return Recipe.from_dict(settings, source="--set" if changes else name)


def _print_metrics(run: Any, split: str, faces: Any) -> None:
    from mien.metrics import evaluate

    found = run.predictions(split)
    metrics = evaluate(found.probabilities, found.labels, run.classes)
    low, high = metrics.accuracy_interval
    print(
        f"{split} (validation): accuracy {metrics.accuracy:.4f} [{low:.4f}, {high:.4f}], "
        f"balanced {metrics.balanced_accuracy:.4f}, macro F1 {metrics.macro_f1:.4f}, "
        f"{metrics.n:,} images"
    )


@app.command()
def recipes() -> None:
    """List the recipes that `mien train --recipe` knows.

    Example: mien recipes
    """
    from mien.study.scales import recipes as known

    table = Table("recipe", "model", "pixels", "stride", "epochs", "batch", "optimiser", "rate")
    for name, r in known().items():
        table.add_row(
            name,
            r.title,
            str(r.image_size),
            str(r.stride),
            str(r.epochs),
            str(r.batch_size),
            r.optimiser,
            f"{r.lr:g}",
        )
    Console().print(table)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures of faces, or folders of them.")],
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("predictions.csv"),
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write image, label and the probability of each class for pictures of faces.

    Example: mien predict .data/fer2013/private --run runs/RUN --out predictions.csv
    """
    from mien.runs.run import Run
    from mien.training.predict import predict_files

    n = predict_files(Run.open(run), images, out, device=device or "cpu", skip_bad=skip_bad)
    print(f"{n:,} images: {out}")


@data_app.command("info")
def data_info(
    data: Annotated[str, typer.Argument(help="A data set, as for `mien study --data`.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write figures and tables into this folder.")
    ] = None,
    votes: Annotated[bool, typer.Option(help="Compare with FER+ votes (ferplus.csv).")] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Count the classes of a data set, audit it, and plot both.

    Example: mien data info .data/fer2013 --votes --out studies/data
    """
    from mien.data import read
    from mien.data.audit import audit
    from mien.report.data import write_data_sheet

    faces = read(data, votes=votes, skip_bad=skip_bad)
    console = Console()
    table = Table("class", *faces.splits, "in all", title=f"{faces.name} (after Table II)")
    rows = [faces[split].counts() for split in faces.splits]
    for number, name in enumerate(faces.classes):
        counts = [int(row[number]) for row in rows]
        table.add_row(name, *(f"{n:,}" for n in counts), f"{sum(counts):,}")
    unlabelled = [int((faces[split].labels < 0).sum()) for split in faces.splits]
    if any(unlabelled):
        table.add_row("unlabelled", *(f"{n:,}" for n in unlabelled), f"{sum(unlabelled):,}")
    totals = [len(faces[split]) for split in faces.splits]
    table.add_row("images", *(f"{n:,}" for n in totals), f"{sum(totals):,}", style="bold")
    console.print(table)
    found = audit(faces)
    table = Table("finding", "split", "number", title="audit")
    for finding, split, number in found.rows():
        table.add_row(finding, split, f"{number:,}")
    console.print(table)
    for note in faces.notes:
        console.print(f"note: {note}", highlight=False)
    if out is not None:
        for path in write_data_sheet(faces, found, out):
            print(path)
    else:
        _next(f"mien data info {data} --out studies/data, for the figures")


@data_app.command("fetch")
def data_fetch(
    destination: Annotated[Path, typer.Argument(help="The folder to make.")] = Path(
        ".data/fer2013"
    ),
) -> None:
    """Bring FER-2013 from Kaggle (needs an account there), or say how to by hand.

    Example: uv run --extra fetch mien data fetch .data/fer2013
    """
    from mien.data.fetch import fetch

    print(fetch(destination))
    _next(f"mien data info {destination}")


if __name__ == "__main__":
    main()
