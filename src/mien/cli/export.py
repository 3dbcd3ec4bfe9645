"""The command that writes a trained model as a file: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.cli.app import SkipBad, app, next_step


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("model.onnx"),
    precision: Annotated[
        str,
        typer.Option(help="fp32; fp16: weights stored in half the space; int8: needs --data."),
    ] = "fp32",
    data: Annotated[
        str | None,
        typer.Option(help="The run's data set: int8 is calibrated on it, and parity checked."),
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write a trained model as ONNX, once it is seen to give what the run gives.

    Example: mien export runs/RUN --out model.onnx --precision fp16 --data .data/fer2013
    """
    from mien.data import read, roles
    from mien.export import export_onnx
    from mien.runs.run import Run

    faces = roles(read(data, skip_bad=skip_bad))[0] if data else None
    found = export_onnx(Run.open(run), out, precision=precision, faces=faces)
    print(
        f"{out}: {found['bytes'] / 2**20:.2f} MiB, {precision}; on {found['images']:,} images "
        f"{100 * found['same_labels']:.2f} % of labels are the run's, and no probability differs "
        f"by more than {found['largest_difference']:.1g}; temperature {found['temperature']:.2f}"
    )
    next_step(f"mien predict PHOTOS --run {out}")
