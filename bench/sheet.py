"""The sheet that a benchmark leaves: its tables under machine, versions, date and command."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from mien.errors import MienError
from mien.report.table import Table
from mien.runs.atomic import write_text
from mien.runs.environment import choose_device, hardware, versions


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that every benchmark has."""
    new = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--data", default=".data/fer2013", help="as for `mien train`, or drawn:N")
    new.add_argument("--device", help="cpu, cuda, ...; default: an accelerator if there is one")
    new.add_argument("--threads", type=int, help="threads of torch; default: torch's own choice")
    new.add_argument("--out", type=Path, help="also write the sheet into this file")
    return new


def parse(
    known: argparse.ArgumentParser, argv: Sequence[str] | None, script: str
) -> argparse.Namespace:
    """Read the arguments, set the threads, and note what the machine does before we begin."""
    given = sys.argv[1:] if argv is None else list(argv)
    args = known.parse_args(given)
    args.command = shlex.join(["python", f"bench/{script}.py", *given])
    args.load = os.getloadavg()[0]
    args.device = str(choose_device(args.device))
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def publish(
    title: str, about: Sequence[str], tables: Sequence[Table], args: argparse.Namespace
) -> str:
    """Print the sheet as Markdown, write it to ``--out`` where that is given, and return it."""
    machine = hardware(args.device)
    lines = [
        f"# {title}",
        "",
        *(f"- {line}" for line in about),
        f"- machine: {', '.join([machine['cpu'], *machine['instructions']])}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GiB; "
        f"accelerator: {machine['accelerator'] or 'none'}; threads of torch: {machine['threads']}",
        f"- other work on the machine at the start: load average {args.load:.2f}",
        f"- versions: {', '.join(f'{name} {number}' for name, number in versions().items())}",
        f"- date: {datetime.now(UTC).isoformat(timespec='minutes')}",
        f"- command: `{args.command}`",
        "",
    ]
    text = "\n".join(lines) + "\n" + "\n".join(table.to_markdown() for table in tables)
    print(text)
    if args.out:
        write_text(args.out, text)
        print(f"written: {args.out}", file=sys.stderr)
    return text


def run(main: Callable[[], object]) -> None:
    """Run a benchmark from the command line; a mistake of the user's is one line."""
    try:
        main()
    except MienError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt as stopped:
        raise SystemExit(f"\n{stopped or 'stopped'}") from None
