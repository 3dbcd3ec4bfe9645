"""The classification loss (eq. 2, with the minus sign the paper leaves out)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    image_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean over images of ``-sum_c w_c t_c log p_c``.

    Parameters
    ----------
    logits : float ``[N, C]``, taken to float32
    targets : float ``[N, C]`` of probabilities
    class_weights : float ``[C]`` of mean 1 over images, or None
    image_weights : float ``[N]``, or None
    label_smoothing : share of each target that is spread evenly over the classes
    """
    if label_smoothing:
        targets = targets.lerp(targets.new_full((), 1 / logits.shape[1]), label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights
    losses = -(targets * F.log_softmax(logits.float(), 1)).sum(1)
    return losses.mean() if image_weights is None else (losses * image_weights).mean()


def model_loss(
    outputs: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    targets: torch.Tensor,
    auxiliary: float,
    **settings: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a model's outputs and the logits among them; `settings` are `cross_entropy`'s.

    A model that gives a second set of logits (InceptionV3's auxiliary classifier; Szegedy et al.,
    2016) has ``auxiliary`` times their cross-entropy added.
    """
    if isinstance(outputs, tuple):
        logits, second = outputs
        loss = cross_entropy(logits, targets, **settings)
        return loss + auxiliary * cross_entropy(second, targets, **settings), logits
    return cross_entropy(outputs, targets, **settings), outputs
