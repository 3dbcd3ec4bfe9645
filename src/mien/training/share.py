"""The share that one process has in a training that several do together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Share:
    """Which process this is, and of how many; a training in one process has the whole.

    Where there are several, each has the same model and the same batches in mind, works on its
    part of every batch, and takes every step with the gradients of the whole batch.

    Attributes
    ----------
    rank : number of this process, from 0. The first one leads: it alone validates and writes files
    processes : how many there are
    """

    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def of(self, batch: int) -> slice:
        """This process's part of a batch of that many images."""
        part = batch // self.processes
        return slice(self.rank * part, (self.rank + 1) * part)

    def joined(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are averaged over the processes as they are computed.

        The parts being of one size, their mean is the gradient of the whole batch's mean loss.
        """
        if self.processes == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.processes > 1:
            distributed.all_reduce(values)
        return values

    def told(self, value: Any) -> Any:
        """The leader's value, which every process has to ask for."""
        if self.processes == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]


WHOLE = Share()
"""The share of a process that trains alone."""


def synchronised(model: nn.Module) -> nn.Module:
    """The model with batch norm over the parts of all processes (on accelerators only)."""
    from timm.layers import convert_sync_batchnorm  # torch's own would drop timm's activations

    before = dict(model.named_modules())
    model = convert_sync_batchnorm(model)
    for name, module in model.named_modules():
        if name in before and module is not before[name]:
            # Where a stage of timm's is a batch norm, attention hangs on it.
            module._forward_hooks = before[name]._forward_hooks
    return model
