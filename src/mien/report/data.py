"""The sheet of a data set: its counts and audit as tables, its bars and samples as figures."""

from __future__ import annotations

from pathlib import Path

from mien.data.audit import Audit
from mien.data.faceset import FaceSet
from mien.plots import class_bars, sample_sheet, save
from mien.plots.style import figure_of
from mien.report.table import Column, Table
from mien.runs.atomic import write_text
from mien.study.sheets import SAMPLES, sample_images


def write_data_sheet(faces: FaceSet, found: Audit, out: Path) -> list[Path]:
    """Write Table II, the audit, the class bars (Figs. 5-6) and a sample sheet (Fig. 1) into `out`.

    Returns
    -------
    list of Path
        The files written: tables as CSV, figures as SVG and PDF.
    """
    splits = [split for split in faces.splits if faces[split].counts().any()]
    counts = {split: faces[split].counts() for split in splits}
    number = "{:,}".format
    tables = [
        Table(
            "classes",
            f"Images of {faces.name} per class and split (after Table II)",
            [
                Column("class"),
                *(Column(split, number) for split in splits),
                Column("in all", number),
            ],
            [
                [name, *(int(counts[s][i]) for s in splits), int(sum(counts[s][i] for s in splits))]
                for i, name in enumerate(faces.classes)
            ],
            notes=faces.notes,
        ),
        Table(
            "audit",
            f"Audit of {faces.name}",
            [Column("finding"), Column("split"), Column("number", number)],
            found.rows(),
        ),
    ]
    written = []
    for table in tables:
        path = out / f"{table.name}.csv"
        write_text(path, table.to_csv())
        written.append(path)
    bars = figure_of(class_bars(None, counts, faces.classes))
    samples = sample_sheet(list(sample_images(faces, SAMPLES)), faces.classes)
    return [*written, *save(bars, out / "class-bars"), *save(samples, out / "samples")]
