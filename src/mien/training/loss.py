"""The classification loss (eq. 2, with the minus sign the paper leaves out)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mien.errors import DataError


def log_prior(labels: np.ndarray, classes: int) -> torch.Tensor:
    """The logarithm of each class's share of the images, float32 ``[classes]``.

    Parameters
    ----------
    labels : int ``[N]`` of the training images; -1 (unknown) is not counted
    classes : number of classes

    Raises
    ------
    DataError
        for a class without images, whose logarithm is none.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    if not counts.all():
        empty = ", ".join(map(str, np.flatnonzero(counts == 0)))
        raise DataError(
            f"logit_adjustment: no training images of class {empty} (of 0 to {classes - 1}); add "
            "images, leave the class out, or set logit_adjustment to 0"
        )
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    image_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    adjustment: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over images of ``-sum_c w_c t_c log p_c``.

    Parameters
    ----------
    logits : float ``[N, C]``, taken to float32
    targets : float ``[N, C]`` of probabilities
    class_weights : float ``[C]`` of mean 1 over images, or None
    image_weights : float ``[N]``, or None
    label_smoothing : share of each target that is spread evenly over the classes
    adjustment : float ``[C]`` that is added to the logits of every image, or None. With
        ``tau * log_prior`` the logits learn what the classes would be at equal shares (A. K. Menon
        et al., Long-tail learning via logit adjustment, ICLR 2021, eq. 10); with tau = 1 it is the
        balanced softmax of J. Ren et al., NeurIPS 2020.
    """
    if label_smoothing:
        targets = targets.lerp(targets.new_full((), 1 / logits.shape[1]), label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights
    logits = logits.float()
    if adjustment is not None:
        logits = logits + adjustment
    losses = -(targets * F.log_softmax(logits, 1)).sum(1)
    return losses.mean() if image_weights is None else (losses * image_weights).mean()


def model_loss(
    outputs: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    targets: torch.Tensor,
    auxiliary: float,
    **settings: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a model's outputs and the logits among them; `settings` are `cross_entropy`'s.

    The logits are the model's own, without the adjustment. A model that gives a second set of them
    (InceptionV3's auxiliary classifier; Szegedy et al., 2016) has ``auxiliary`` times their
    cross-entropy added.
    """
    if isinstance(outputs, tuple):
        logits, second = outputs
        loss = cross_entropy(logits, targets, **settings)
        return loss + auxiliary * cross_entropy(second, targets, **settings), logits
    return cross_entropy(outputs, targets, **settings), outputs
