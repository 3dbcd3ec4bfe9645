"""The checkpoint of an unfinished training: all that an epoch hands to the next."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from mien.errors import RunError
from mien.runs.atomic import save_with


class Stateful(Protocol):
    """A network, an optimiser, or weights averaged over the steps."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def save_checkpoint(
    path: Path, log: list[dict[str, Any]], parts: Mapping[str, Stateful | None]
) -> None:
    """Keep the state of the parts after the epochs in `log`, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items() if part is not None}
    content = {"epoch": len(log), **state, "log": log}
    save_with(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path, parts: Mapping[str, Stateful | None]) -> list[dict[str, Any]]:
    """Bring the parts back to where they were, and return the log until there.

    Each part takes what is its own to its device; Adam's count of steps is to stay on the CPU.

    Raises
    ------
    RunError
        if the file is damaged. Every bit of it is checked, since torch itself takes flipped ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"wrong checksum of {broken}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        return state["log"]
    except Exception as error:  # what zipfile and torch raise differs by what is damaged
        raise RunError(
            f"{path}: is damaged ({str(error).partition(chr(10))[0]}); remove this file to train "
            "the run again from its first epoch"
        ) from error
