"""The checkpoint of an unfinished training: all that an epoch hands to the next."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien.errors import RunError
from mien.runs.atomic import save_with
from mien.runs.averaging import WeightAverage


def save_checkpoint(
    path: Path,
    log: list[dict[str, Any]],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> None:
    """Keep the state after the epochs in `log`, whole or not at all."""
    state = {
        "epoch": len(log),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average.state_dict() if average else None,
        "log": log,
    }
    save_with(path, lambda file: torch.save(state, file))


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Bring model, optimiser and average back to where they were, and return the log until there.

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
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if average:
            average.load_state_dict(state["average"])
        return state["log"]
    except Exception as error:  # what zipfile and torch raise differs by what is damaged
        raise RunError(
            f"{path}: is damaged ({str(error).partition(chr(10))[0]}); remove this file to train "
            "the run again from its first epoch"
        ) from error
