"""The votes as a task beside the labels: a second classifier, which is left out in the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mien.training.loss import Outputs


class VoteClassifier(nn.Module):
    """A classifier of the labels and, in training mode, another of the votes on the same features.

    Where a label is one person's, ten people's votes say more of the face, and of another question
    than the labels answer: as targets they cost accuracy, as a task beside it they shape the
    features (R. Caruana, Multitask learning, 1997).

    Parameters
    ----------
    labels : the classifier of ``C`` labels, as it stands in a network
    """

    def __init__(self, labels: nn.Linear) -> None:
        super().__init__()
        self.labels = labels
        self.votes = nn.Linear(labels.in_features, labels.out_features)
        self.train(labels.training)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, C]``; in training mode ``[N, 2C]``, those of the votes last."""
        labels = self.labels(features)
        return torch.cat((labels, self.votes(features)), 1) if self.training else labels


def add_votes(model: nn.Module) -> None:
    """Give a network of ours a `VoteClassifier`."""
    place = _place(model)
    place.fc = VoteClassifier(place.fc)


def leave_out_votes(model: nn.Module) -> None:
    """Leave a network the classifier it had before `add_votes`."""
    place = _place(model)
    place.fc = place.fc.labels


def parted(outputs: Outputs) -> tuple[Outputs, torch.Tensor]:
    """What a network with a `VoteClassifier` gives in training, and the logits of the votes."""
    if isinstance(outputs, tuple):
        both, second = outputs
        labels, votes = both.chunk(2, 1)
        return (labels, second), votes
    labels, votes = outputs.chunk(2, 1)
    return labels, votes


def _place(model: Any) -> Any:
    """The module whose ``fc`` is the classifier."""
    return getattr(model, "head", model)
