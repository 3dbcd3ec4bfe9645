"""Sharpness-aware minimisation: gradients from the worst place near the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def at_the_worst_near(model: nn.Module, rho: float) -> Iterator[None]:
    """Move `model` by `rho` along its gradients, and back again at the end.

    What is computed and differentiated inside gives the gradients that the optimiser then applies
    to the weights where they were, bit for bit (P. Foret et al., Sharpness-aware minimization for
    efficiently improving generalization, ICLR 2021, eqs. 2 and 3). The gradients that lead there
    are used up.

    Batch norm takes the batch's statistics inside as ever, but does not add them to its running
    ones: these belong to the weights that are kept. Dropout draws anew.

    Where several processes have averaged their gradients, all go to the same place, that of the
    whole batch (the paper lets each go to its own).

    Parameters
    ----------
    model : with gradients of the loss alone, before penalties and clipping
    rho : length of the step, over all parameters together
    """
    moved = [p for p in model.parameters() if p.grad is not None]
    weights: list[torch.Tensor] = [p.detach() for p in moved]
    before = [w.clone() for w in weights]
    gradients = [p.grad for p in moved if p.grad is not None]
    length = torch.stack(torch._foreach_norm(gradients)).norm()
    # A scale on the device, so that nothing waits for it; no gradient at all is no step.
    torch._foreach_mul_(gradients, rho / length.clamp_min(1e-12))
    torch._foreach_add_(weights, gradients)
    model.zero_grad(set_to_none=True)
    counting = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True
        torch._foreach_copy_(weights, before)
