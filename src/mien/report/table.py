"""A table that renders as HTML, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mien.report.results import is_missing
from mien.runs.atomic import instead_of_earlier, write_text

MISSING = "–"
NOT_RUN = "not run"
ONE_SEED = "One seed a model: differences between models are not tested here."


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes
    ----------
    title : what its values are
    show : how they are shown; None for text, which stands to the left
    unit : the unit they are shown in
    raw : the unit they are in themselves, as CSV has them; shares and counts have none
    """

    title: str
    show: Callable[[Any], str] | None = None
    unit: str = ""
    raw: str = ""


@dataclass(frozen=True)
class Table:
    """Values with a caption, shown alike in four formats.

    Attributes
    ----------
    name : file name without ending
    caption : what the table shows, one sentence
    columns : the columns, the first of which names the rows
    rows : one sequence of values a row. Strings stand as they are, also in a column of numbers
        ('not run'); None and NaN are shown as a dash; a pair is an interval
    notes : remarks under the table
    context : scale, protocol, split, seeds, machine and date; part of the caption, and a last
        column in CSV, so that no row can be read without it
    marked : positions of the rows to stand out
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()
    context: str = ""
    marked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.name}: {len(row)} cells, {len(self.columns)} columns"
                )

    @property
    def titles(self) -> list[str]:
        """The titles of the columns, with the units that their values are shown in."""
        return [_with_unit(column.title, column.unit) for column in self.columns]

    def shown(self) -> list[list[str]]:
        """The rows as text, the same in HTML, Markdown and LaTeX."""
        return [[_show(v, c) for v, c in zip(row, self.columns, strict=True)] for row in self.rows]

    def to_html(self) -> str:
        """A ``<table>`` in a box that scrolls sideways, the first column as row headers."""
        right = ['class="n"' if column.show else "" for column in self.columns]
        head = "".join(
            _tag("th", title, 'scope="col"', cls)
            for title, cls in zip(self.titles, right, strict=True)
        )
        body = []
        for i, row in enumerate(self.shown()):
            cells = [_tag("th", row[0], 'scope="row"', right[0])]
            cells += [_tag("td", cell, cls) for cell, cls in zip(row[1:], right[1:], strict=True)]
            row_class = ' class="marked"' if i in self.marked else ""
            body.append(f"<tr{row_class}>{''.join(cells)}</tr>")
        context = f'<span class="context">{escape(self.context)}</span>' if self.context else ""
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f'<div class="table" id="table-{escape(self.name)}">'
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(self.caption)}">'
            f"<table><caption><b>{escape(self.caption)}</b>{context}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n"
            + "\n".join(body)
            + "\n</tbody></table></div>"
            + (f'<ul class="notes">{notes}</ul>' if notes else "")
            + "</div>"
        )

    def to_csv(self) -> str:
        """Comma-separated values (RFC 4180) in full precision and their raw units.

        An interval becomes two columns.
        """
        wide = [
            any(isinstance(row[i], list | tuple) for row in self.rows)
            for i in range(len(self.columns))
        ]
        head: list[str] = []
        for column, pair in zip(self.columns, wide, strict=True):
            title = _with_unit(column.title, column.raw)
            head += [f"{title}, low", f"{title}, high"] if pair else [title]
        lines = [head + (["context"] if self.context else [])]
        for row in self.rows:
            line: list[Any] = []
            for value, pair in zip(row, wide, strict=True):
                if isinstance(value, list | tuple):
                    line += value
                else:
                    value = "" if is_missing(value) else value
                    line += [value, value] if pair else [value]
            lines.append(line + ([self.context] if self.context else []))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue()

    def to_markdown(self) -> str:
        """A pipe table under its caption."""
        rule = ["---:" if column.show else "---" for column in self.columns]
        rows = [list(map(_markdown, cells)) for cells in (self.titles, *self.shown())]
        for i in self.marked:
            rows[i + 1] = [f"**{cell}**" if cell else "" for cell in rows[i + 1]]
        lines = [f"**{_markdown(self.caption)}** {_markdown(self.context)}".rstrip(), ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in (rows[0], rule, *rows[1:])]
        if self.notes:
            lines += ["", *(f"- {_markdown(note)}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """A floating ``table`` with rules of the package booktabs; long texts wrap."""
        shown = self.shown()
        kinds = []
        long = [
            max([len(row[i]) for row in shown], default=0) > 40 for i in range(len(self.titles))
        ]
        for column, wrapped in zip(self.columns, long, strict=True):
            width = f"p{{{0.8 / max(sum(long), 1):.2f}\\linewidth}}"
            kinds.append("r" if column.show else width if wrapped else "l")
        rows = [[latex(cell) for cell in row] for row in shown]
        for i in self.marked:
            rows[i] = [rf"\textbf{{{cell}}}" for cell in rows[i]]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(f'{self.caption} {self.context}'.rstrip())}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{{''.join(kinds)}}}",
            r"\toprule",
            " & ".join(latex(title) for title in self.titles) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip\footnotesize {latex(note)}" for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def write_tables(tables: Iterable[Table], folder: Path) -> None:
    """Write each table as CSV, Markdown and LaTeX, each file whole or not at all.

    Tables that an earlier result left in the folder are removed.
    """
    files = {}
    for table in tables:
        files[f"{table.name}.csv"] = table.to_csv()
        files[f"{table.name}.md"] = table.to_markdown()
        files[f"{table.name}.tex"] = table.to_latex()
    with instead_of_earlier(folder, files):
        for name, text in files.items():
            write_text(folder / name, text)


def percent(value: float) -> str:
    """A share as per cent with one decimal."""
    return f"{100 * value:.1f}"


def interval(value: Sequence[float]) -> str:
    """A pair of shares as per cent."""
    return f"{percent(value[0])} to {percent(value[1])}"


def signed(value: float) -> str:
    """A difference with its sign, one decimal."""
    return f"{value:+.1f}".replace("-", "−")


def count(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


def decimals(places: int) -> Callable[[float], str]:
    """Numbers with so many decimals."""
    return lambda value: f"{value:,.{places}f}"


def minutes(seconds: float) -> str:
    """Seconds as minutes with one decimal."""
    return f"{seconds / 60:,.1f}"


ACCURACY = Column("accuracy", percent, "%")
INTERVAL = Column("95 % interval", interval, "%")
TRAINING = Column("training", minutes, "min", "s")


def _with_unit(title: str, unit: str) -> str:
    return f"{title} ({unit})" if unit else title


def _show(value: Any, column: Column) -> str:
    if is_missing(value):
        return MISSING
    return value if isinstance(value, str) or column.show is None else column.show(value)


def _tag(name: str, text: str, *attributes: str) -> str:
    given = "".join(f" {attribute}" for attribute in attributes if attribute)
    return f"<{name}{given}>{escape(str(text))}</{name}>"


def _markdown(text: Any) -> str:
    # Between letters or digits an underscore is one, without a backslash.
    special = r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_]))"
    return re.sub(special, r"\\\1", " ".join(str(text).split()))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "–": "--", "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "…": r"\ldots{}",
}  # fmt: skip


def latex(text: Any) -> str:
    """Text with everything escaped that LaTeX would take for a command."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(str(text).split()))
