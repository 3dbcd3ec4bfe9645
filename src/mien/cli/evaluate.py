"""The command that measures models where they will be used: evaluate."""

from __future__ import annotations

from datetime import UTC, datetime
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
    from mien.data import read
    from mien.data.class_map import map_classes, read_class_map
    from mien.evaluation.evaluated import evaluate_models
    from mien.evaluation.groups import read_groups
    from mien.evaluation.openings import write_openings
    from mien.evaluation.part import part_of
    from mien.evaluation.trained import open_all, remembered
    from mien.report.drawing import write_figures
    from mien.report.robustness import robustness_figures, robustness_tables
    from mien.report.table import write_tables
    from mien.runs.atomic import write_json

    mapping = read_class_map(classes) if classes else None
    opened = open_all(models, device)
    first = opened[0]
    faces = read(data, size=first.size, channels=first.channels, skip_bad=skip_bad)
    part = part_of(faces, opened, split)
    chosen, mapped = map_classes(part.faces, first.classes, mapping, str(classes or ""))
    given = read_groups(groups, chosen.names) if groups else None
    notes = list(part.notes)
    for row in mapped if classes else ():
        print(f"{row.theirs} -> {row.ours or 'left out'}: {row.images:,} images")
    if given:
        print(f"groups: {given.unlisted:,} of {len(chosen):,} images are not in {groups}")
        if given.elsewhere:
            print(f"groups: {given.elsewhere:,} rows are about other images")
    if part.opened:
        names = [model.name for model in opened]
        notes += write_openings(out / "openings.jsonl", part.opened, part.fingerprint, names)
    with stoppable():
        found = evaluate_models(
            [remembered(model, out / "predictions") for model in opened],
            chosen,
            given.columns if given else {},
            corruptions=corruptions,
            seed=seed,
            progress=print,
        )
    found |= {
        "data": {
            "name": chosen.name,
            "fingerprint": chosen.fingerprint,
            "split": part.name,
            "role": part.role,
        },
        "opened": part.opened,
        "notes": notes,
        "classes": [vars(row) for row in mapped],
        "unlisted": given and given.unlisted,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    tables = list(robustness_tables(found))
    for table in tables:
        if table.name in ("evaluation", "corruption-summary", "differences", "attention"):
            Console().print(table.to_markdown(), markup=False, highlight=False, soft_wrap=True)
    for sentence in [claim["sentence"] for claim in found["claims"]]:
        print(sentence)
    for note in notes:
        print(f"note: {note}")
    write_json(out / "evaluation.json", found)
    write_tables(tables, out / "tables")
    print(f"{out / 'evaluation.json'}\n{out / 'tables'}")
    write_figures(robustness_figures(found), out / "figures")
    print(out / "figures")
    if part.opened:
        print(f"the opening of '{part.opened}' is written down in {out / 'openings.jsonl'}")
    if not corruptions:
        next_step(f"{command_line()} --corruptions")
    elif len(opened) > 1 and all(path.is_dir() for path in models):
        next_step(command("compare", *models, "--without-copies"))
