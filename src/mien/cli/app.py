"""The application that the commands belong to, the options they share, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import io
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from mien.errors import MienError, RecipeError

if TYPE_CHECKING:
    from mien.data.faceset import FaceSet

ORDER = (
    "predict", "serve", "fetch", "demo", "data", "study", "report", "train", "pretrain", "recipes",
    "balance", "tune", "crossval", "compare", "evaluate", "explain", "export", "paper",
)  # fmt: skip
"""The commands as ``mien --help`` lists them: what most come for first."""


class InOrder(TyperGroup):
    """Lists its commands in `ORDER`."""

    def list_commands(self, ctx: object) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=InOrder,
    help="Facial expression recognition: train, compare, explain and run models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"mien {version('mien')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options before any command."""


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="A data set: the Kaggle folder or its zip, fer2013.csv, <split>/<class>/* folders, "
        "or 'drawn[:N[:SEED]]' for N drawn faces, which need no files.",
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder of the runs.")]
Records = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Folder with records of finished runs that count as done.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: an accelerator if any.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Trainings at a time. Default: one a core, on an accelerator one."),
]
Views = Annotated[
    int | None,
    typer.Option(
        help="Of a face, by the packaged model: 2, or 1 by a smaller network, far faster."
    ),
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: --set epochs=10")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable images, counted.")]


def main() -> None:
    """Run the command line; a mistake of the user's is one line and exit status 1."""
    warnings.filterwarnings("ignore", message=".*CUDA.*")
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # ours is an error
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have what its encoding has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except MienError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            sys.stdout = None  # type: ignore[assignment]  # or Python would try again at its end
            print("error: standard output: the disk is full; make room", file=sys.stderr)
            raise SystemExit(1) from None
        if error.filename is None:  # nothing that the user named
            raise
        print(
            f"error: {error.filename}: {error.strerror}; check the path and its permissions",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "mien"):
            raise
        print(
            f"error: this needs {package}, which is not installed; mien[train] has all that "
            "training, measuring, explaining and exporting need: pip install 'mien[train]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C print what is kept and how to go on; typer alone would end without a word."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        print(f"\n{str(stopped) or 'stopped'}", file=sys.stderr)
        raise typer.Exit(130) from None


def settings_given(changes: Sequence[str] | None) -> dict[str, str]:
    """The settings of ``--set NAME=VALUE``, still as text."""
    settings = {}
    for change in changes or ():
        key, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}: write it as NAME=VALUE, such as epochs=10")
        settings[key.strip()] = value.strip()
    return settings


def command_line() -> str:
    """The command as it was typed, for the report."""
    return command(*sys.argv[1:])


def command(*words: object) -> str:
    """A command of ours as it can be typed into a shell."""
    return shlex.join(["mien", *map(str, words)])


def say_notes(faces: FaceSet) -> None:
    """Say how a data set was read, and what was left out of it."""
    for note in faces.notes:
        print(f"note: {note}", file=sys.stderr)


def next_step(text: str) -> None:
    Console().print(f"next: {text}", style="dim", highlight=False, soft_wrap=True, markup=False)
