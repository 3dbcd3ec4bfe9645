"""The command that writes a trained model as a file: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from mien.cli.app import SkipBad, app, command, next_step
from mien.errors import DataError
from mien.packaged import PACKAGED

if TYPE_CHECKING:
    from mien.data import FaceSet
    from mien.runs.run import Run

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


@app.command()
def export(
    run: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a finished run; several are averaged: an ensemble. Or an ONNX file, or "
            "packaged, to have it in another --precision."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file: .onnx, or .pt2 for torch.export.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="onnx or torch. Default: by the file's ending.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32; fp16, int8-weights: weights stored in a half, a quarter of the space; "
            "int8: computed in 8 bits, needs --data."
        ),
    ] = "fp32",
    attention: Annotated[
        bool, typer.Option("--attention", help="Also give a map of where the model looks.")
    ] = False,
    views: Annotated[
        int,
        typer.Option(
            help="Average 2 (with the mirror image) or 10 (also moved to each corner) views of "
            "each face, at as many times the cost; needs --data."
        ),
    ] = 1,
    accuracy: Annotated[
        float | None, typer.Option(help="Only answer where so many answers are right, as 0.8.")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Only answer for this share of images, the surest.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Write nothing; compare the precisions on --data.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="The run's data set: int8 is calibrated on it, and parity checked."),
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write a trained model as ONNX or torch.export, once it is seen to give what the run gives.

    Example: mien export runs/RUN --out model.onnx --precision fp16 --data .data/fer2013
    """
    from mien.data import read, roles
    from mien.errors import unknown
    from mien.export import convert_onnx, export_onnx, export_program
    from mien.runs.run import Run

    abstains = not (accuracy is None and coverage is None)
    if compare and (out or format_ or precision != "fp32" or abstains):
        raise DataError(
            "--compare measures every precision and writes nothing; leave out --out, --format, "
            "--precision, --accuracy and --coverage"
        )
    run = [PACKAGED if path == Path("packaged") else path for path in run]
    file = next(filter(Path.is_file, run), None)
    wishes: dict[str, Any] = {"attention": attention, "views": views}
    wishes |= {"accuracy": accuracy, "coverage": coverage}
    if file and (len(run) > 1 or compare or views != 1 or attention or abstains):
        raise DataError(
            f"{file}: a file alone is brought to another --precision; --attention, --views, "
            "--accuracy, --coverage and --compare are for the run that it was made from"
        )
    opened = [] if file else [Run.open(folder) for folder in run]
    faces = roles(read(data, skip_bad=skip_bad))[0] if data else None
    if compare:
        _compare(opened, faces, attention=attention, views=views)
        asked = [*run, *["--attention"] * attention, *(["--views", views] if views > 1 else [])]
        next_step(command("export", *asked, "--precision", "fp16", "--data", data))
        return
    if format_ is None:
        format_ = "torch" if out and out.suffix.lower() == FORMATS["torch"] else "onnx"
    if format_ not in FORMATS:
        raise DataError(unknown("format", format_, FORMATS))
    out = out or Path(f"model{FORMATS[format_]}")
    ending = out.suffix.lower()
    if ending in FORMATS.values() and ending != FORMATS[format_]:
        raise DataError(f"{out}: a file of {format_} ends in {FORMATS[format_]}; name it so")
    if format_ == "torch":
        if precision != "fp32":
            raise DataError(f"torch.export is written in fp32, not {precision}; export ONNX for it")
        if file:
            raise DataError(f"{file}: torch.export is written from a run; give its folder")
        found = export_program(opened, out, faces=faces, **wishes)
    elif file:
        found = convert_onnx(file, out, precision=precision, faces=faces)
    else:
        found = export_onnx(opened, out, precision=precision, faces=faces, **wishes)
    whose = "file" if file else "run"
    print(
        f"{out}: {found['bytes'] / 2**20:.2f} MiB, {precision}; on {found['images']:,} images "
        f"{100 * found['same_labels']:.2f} % of labels are the {whose}'s, and no "
        f"probability differs by more than {found['largest_difference']:.1g}"
    )
    if found.get("calibration"):
        print(_calibration(found["calibration"]))
    if format_ == "onnx":
        next_step(command("predict", "PHOTOS", "--run", out))
    else:
        next_step(f"python -c \"import torch; print(torch.export.load('{out}'))\"")


def _calibration(found: dict[str, Any]) -> str:
    """What the probabilities are worth, in words."""
    text = (
        f"temperature {found['temperature']:.2f}: calibration error {found['error_before']:.3f} "
        f"before, {found['error_after']:.3f} after, on {found['images']:,} images in "
        f"{found['folds']} folds it was not fitted on"
    )
    if threshold := found["threshold"]:
        low, high = threshold["interval"]
        text += (
            f"; answers from {threshold['value']:.3f} on: {100 * threshold['coverage']:.1f} % of "
            f"images, {100 * threshold['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of "
            "them right, likewise"
        )
    return text


def _compare(run: list[Run], faces: FaceSet | None, **wishes: Any) -> None:
    from mien.export import compare_precisions

    if faces is None:
        raise DataError("precisions are compared on the images of a data set: give --data")
    first = Column("precision", no_wrap=True)
    table = Table(first, "MiB", "ms, 1 image", "ms, each of 64", "accuracy", "labels", "")
    rows = compare_precisions(run, faces, **wishes)
    for row in rows:
        right = row.parity.accuracy
        table.add_row(
            row.precision,
            f"{row.bytes / 2**20:.2f}",
            f"{row.one:.2f}",
            f"{row.batch:.2f}",
            "unknown" if right is None else f"{100 * right:.2f} %",
            f"{100 * row.parity.same_labels:.2f} % the run's",
            "refused" if row.refused else "passes",
        )
    Console().print(table)
    for row in rows:
        if row.refused:
            print(f"{row.precision} is refused: {row.refused}")
