"""Commands of the data: data info, data fetch, data store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mien.cli.app import SkipBad, app, command, command_line, next_step

data_app = typer.Typer(help="Look at a data set, or bring FER-2013.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("info")
def data_info(
    data: Annotated[str, typer.Argument(help="A data set, as for `mien study --data`.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write figures and tables into this folder.")
    ] = None,
    votes: Annotated[
        bool, typer.Option("--votes", help="Compare with FER+ votes (ferplus.csv).")
    ] = False,
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
        console.print(f"note: {note}", highlight=False, markup=False)
    if out is not None:
        for path in write_data_sheet(faces, found, out):
            print(path)
    else:
        next_step(f"{command_line()} --out studies/data, for the figures")


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
    next_step(command("data", "info", destination))


@data_app.command("store")
def data_store(
    data: Annotated[str, typer.Argument(help="A data set, as for `mien study --data`.")],
    folder: Annotated[Path, typer.Argument(help="The new folder to make.")],
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.", min=2)] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write a data set into one file that is mapped, not read: for sets larger than memory.

    Example: mien data store faces/ faces.store --size 96
    """
    from mien.data import read_to_store

    faces = read_to_store(data, folder, size=size, skip_bad=skip_bad)
    print(f"{len(faces):,} images of {faces.size} pixels: {folder}")
    next_step(command("train", "--data", folder))
