"""Commands of the study: demo, study, report, and the paper that it follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.cli.app import (
    Data,
    Device,
    Jobs,
    Records,
    Runs,
    SkipBad,
    app,
    command_line,
    next_step,
    stoppable,
)
from mien.cli.cluster import Cluster, CpusEach, GpusEach, Store, executor
from mien.errors import RecipeError, RunError


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("studies/demo"),
    runs: Runs = Path("runs"),
    jobs: Jobs = None,
) -> None:
    """Run the whole study on drawn faces, at demo scale, in minutes.

    Example: mien demo
    """
    _study("drawn", "demo", out, runs=runs, jobs=jobs)


@app.command()
def study(
    data: Data,
    scale: Annotated[str, typer.Option(help="smoke, tiny, cpu, paper or demo.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study. Default: studies/<scale>")
    ] = None,
    runs: Runs = Path("runs"),
    records: Records = None,
    jobs: Jobs = None,
    device: Device = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train `plain` beside the six.")
    ] = False,
    cluster: Cluster = None,
    cpus: CpusEach = None,
    gpus: GpusEach = None,
    store: Store = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Trial table of the searches: sqlite:///FILE or postgresql://..."),
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train the models of the paper, search, cross-validate, test, and write the report.

    What is done is not done again, and what was interrupted goes on.

    Example: mien study --data .data/fer2013 --scale cpu
    """
    from mien.study.scales import baseline as extra

    where = executor(cluster, cpus, gpus, store, 1)
    _study(
        data,
        scale,
        out or Path("studies") / scale,
        skip_bad=skip_bad,
        runs=runs,
        records=records,
        extra=[extra()] if baseline else [],
        jobs=jobs,
        device=device,
        executor=where if cluster else None,
        store=store,
        storage=storage,
    )


def _study(data: str, scale: str, out: Path, *, skip_bad: bool = False, **options: Any) -> None:
    from mien.data import read
    from mien.errors import unknown
    from mien.report import write_report
    from mien.study.scales import scales
    from mien.study.study import run_study

    if scale not in scales():
        raise RecipeError(unknown("scale", scale, scales()))
    faces = read(data, skip_bad=skip_bad)
    with stoppable():
        results = run_study(
            faces, scales()[scale], out, command=command_line(), source=data, **options
        )
    page = write_report(out)
    print(f"report: {page}")
    if json.loads(results.read_text(encoding="utf-8"))["state"] == "partial":
        raise RunError(
            "parts of the study failed, as said above and in the report; mend what they name, "
            "then run the same command again"
        )
    next_step(f"open {page}, or `mien predict PHOTOS --run runs/RUN --out predictions.csv`")


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
