"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from mien.runs.recipe import Recipe

ONECYCLE_RISE = 0.3  # share of the training in which one-cycle rises
ONECYCLE_START = 1 / 25  # share of the highest rate it starts from (Smith and Topin, 2018)
STEP_DROPS = (0.5, 0.75)  # shares of the training after which 'step' divides the rate by ten


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate for `step` (counted from 0) of a training of ``recipe.epochs`` epochs.

    ``constant``, ``step`` and ``cosine`` begin with ``recipe.warmup`` epochs of linear rise from
    zero; ``onecycle`` rises linearly and falls as a half cosine to zero (Smith and Topin, 2018).
    """
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "onecycle":
        rise = max(1, round(ONECYCLE_RISE * total))
        if step < rise:
            return recipe.lr * (ONECYCLE_START + (1 - ONECYCLE_START) * step / rise)
        return recipe.lr * _half_cosine((step - rise) / max(1, total - rise))
    warm = round(recipe.warmup * steps_per_epoch)
    if step < warm:
        return recipe.lr * (step + 1) / warm
    if recipe.schedule == "cosine":
        return recipe.lr * _half_cosine((step - warm) / max(1, total - warm))
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** sum(step >= share * total for share in STEP_DROPS)
    return recipe.lr


def _half_cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
