"""Cross-entropy (eq. 2, with the minus sign the paper leaves out) and two robust kinds of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mien.errors import DataError

Outputs = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""What a network gives in training: logits, or a pair with those of an auxiliary classifier."""

GCE_Q = 0.7
"""Between cross-entropy (0) and the mean absolute error (1); the value of Zhang and Sabuncu."""

SCE_ALPHA, SCE_BETA, SCE_LOG_ZERO = 0.1, 1.0, -4.0
"""Shares of the two entropies and the logarithm of 0; those of Wang et al. for ten classes."""


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
    kind: str = "cross-entropy",
) -> torch.Tensor:
    """Mean over images of the cross-entropy, or of one of its robust kinds.

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
    kind : a key of `LOSSES`
    """
    if label_smoothing:
        targets = targets.lerp(targets.new_full((), 1 / logits.shape[1]), label_smoothing)
    logits = logits.float()
    if adjustment is not None:
        logits = logits + adjustment
    losses = LOSSES[kind](F.log_softmax(logits, 1), targets, class_weights)
    return losses.mean() if image_weights is None else (losses * image_weights).mean()


def plain(
    log_p: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """``-sum_c w_c t_c log p_c`` of each image, ``[N]``."""
    return -(_weighted(targets, class_weights) * log_p).sum(1)


def generalised(
    log_p: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """``sum_c w_c t_c (1 - p_c^q) / q`` of each image, ``[N]``, at most ``1 / q`` of a label.

    Its gradient is that of cross-entropy times ``p^q``, so an image that the network is sure to be
    of another class hardly counts. Of a target shared by classes it is least where p is in
    proportion to ``t^(1 / (1 - q))``: mixed images and votes are learned sharpened (Z. Zhang and
    M. R. Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy
    labels, NeurIPS 2018, eq. 6).
    """
    return (_weighted(targets, class_weights) * -torch.expm1(GCE_Q * log_p)).sum(1) / GCE_Q


def symmetric(
    log_p: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """``alpha H(t, p) + beta H(p, t)`` of each image, ``[N]``.

    In the reverse entropy ``H(p, t) = -sum_c p_c log t_c`` the logarithm of a target is never below
    `SCE_LOG_ZERO`, so that this part of what a wrong label costs is bounded. It has the mean weight
    of the classes in the target (Y. Wang et al., Symmetric cross entropy for robust learning
    with noisy labels, ICCV 2019, eq. 6).
    """
    reverse = -(log_p.exp() * targets.log().clamp_min(SCE_LOG_ZERO)).sum(1)
    if class_weights is not None:
        reverse = reverse * _weighted(targets, class_weights).sum(1)
    return SCE_ALPHA * plain(log_p, targets, class_weights) + SCE_BETA * reverse


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross-entropy": plain,
    "gce": generalised,
    "sce": symmetric,
}
"""Losses of a recipe: each takes log-probabilities, targets and weights of the classes."""


def _weighted(targets: torch.Tensor, class_weights: torch.Tensor | None) -> torch.Tensor:
    return targets if class_weights is None else targets * class_weights


def model_loss(
    outputs: Outputs,
    targets: torch.Tensor,
    auxiliary: float,
    **settings: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a model's outputs and the logits among them.

    `settings` are those of `cross_entropy`. The logits are the model's own, without the
    adjustment. A model that gives a second set of them (InceptionV3's auxiliary classifier; Szegedy
    et al., 2016) has ``auxiliary`` times their loss added.
    """
    if isinstance(outputs, tuple):
        logits, second = outputs
        loss = cross_entropy(logits, targets, **settings)
        return loss + auxiliary * cross_entropy(second, targets, **settings), logits
    return cross_entropy(outputs, targets, **settings), outputs
