"""The command that measures models where they will be used: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mien.cli.app import (
    Data,
    Device,
    SkipBad,
    app,
    command,
    command_line,
    next_step,
    stoppable,
)


@app.command()
def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished runs, files of `mien export`, or packaged: the package's own."
        ),
    ],
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            help="validation (the default), all, a split by name, or test: the opening of a final "
            "test split is written down. A foreign set of one split is taken whole."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help='TOML with a line "their name" = "ours", or "" to leave it out.'),
    ] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also hide, blur, darken, ... at five strengths.")
    ] = False,
    groups: Annotated[
        Path | None, typer.Option(help="CSV of image and groupings, such as image,age,device.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the corruptions and of what is drawn anew.", min=0)
    ] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("studies/evaluate"),
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Measure models on a data set, by groups, on worse pictures, with intervals and tests.

    One that was interrupted goes on when the same command is given again.

    Example: mien evaluate runs/A runs/B --data .data/fer2013 --corruptions --groups groups.csv
    """
    from mien.evaluation.measuring import measure
    from mien.report.drawing import write_figures
    from mien.report.robustness import robustness_figures, robustness_tables
    from mien.report.table import write_tables
    from mien.runs.atomic import write_json

    with stoppable():
        found = measure(
            models,
            data,
            out,
            split=split,
            classes=classes,
            groups=groups,
            corruptions=corruptions,
            seed=seed,
            device=device,
            skip_bad=skip_bad,
            progress=print,
        )
    tables = list(robustness_tables(found))
    for table in tables:
        if table.name in ("evaluation", "corruption-summary", "differences", "attention"):
            Console().print(table.to_markdown(), markup=False, highlight=False, soft_wrap=True)
    for sentence in [claim["sentence"] for claim in found["claims"]]:
        print(sentence)
    for note in found["notes"]:
        print(f"note: {note}")
    write_json(out / "evaluation.json", found)
    write_tables(tables, out / "tables")
    print(f"{out / 'evaluation.json'}\n{out / 'tables'}")
    write_figures(robustness_figures(found), out / "figures")
    print(out / "figures")
    if found["opened"]:
        print(f"the opening of '{found['opened']}' is written down in {out / 'openings.jsonl'}")
    if not corruptions:
        next_step(f"{command_line()} --corruptions")
    elif len(models) > 1 and all(path.is_dir() for path in models):
        next_step(command("compare", *models, "--without-copies"))
