"""Optimisers by name, and the penalties of the paper as gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mien.runs.recipe import Recipe
from mien.training.muon import Muon


def penalised(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that penalties and decay act on: kernels and matrices.

    Biases and the gains of normalisation layers are left out: shrinking them does not make a
    network simpler.
    """
    return [p for p in model.parameters() if p.requires_grad and p.ndim > 1]


def create_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of `recipe` over the parameters of `model`; SGD's momentum is Nesterov's."""
    decayed = penalised(model)
    ids = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in ids]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    momentum, lr = recipe.momentum, recipe.lr
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, lr, fused=True)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr, fused=True)
    if recipe.optimiser == "muon":
        return Muon(groups, lr, half=recipe.precision == "bf16")
    return torch.optim.RMSprop(groups, lr, momentum=momentum, foreach=True)


@torch.no_grad()
def add_penalty_gradients(parameters: Sequence[nn.Parameter], l1: float, l2: float) -> None:
    """Add the gradients of ``l1 * sum |w| + l2 * sum w^2`` (eqs. 3 and 4) to those of the loss.

    The same as adding the penalties to the loss, ``l1 * sign(w) + 2 * l2 * w``, without two more
    passes over the weights.
    """
    weights: list[torch.Tensor] = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in weights if p.grad is not None]
    if l1:
        torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=l1)
    if l2:
        torch._foreach_add_(gradients, weights, alpha=2 * l2)


@torch.no_grad()
def penalty(parameters: Sequence[nn.Parameter], l1: float, l2: float) -> float:
    """``l1 * sum |w| + l2 * sum w^2``, to be read beside the cross-entropy."""
    total = 0.0
    if l1:
        total += l1 * float(sum(p.abs().sum() for p in parameters))
    if l2:
        total += l2 * float(sum(p.square().sum() for p in parameters))
    return total
