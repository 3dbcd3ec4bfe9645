from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mien.training.loss import cross_entropy, model_loss


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(16, 7, generator=torch.Generator().manual_seed(0)) * 4


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(16) % 7


@pytest.fixture
def votes() -> torch.Tensor:
    return torch.rand(16, 7, generator=torch.Generator().manual_seed(1)).softmax(1)


WEIGHTS = torch.tensor([0.5, 3.0, 1.0, 0.25, 1.0, 2.0, 0.75])


def test_an_image_costs_minus_the_logarithm_of_its_probability() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # 3/4 and 1/2 for the second class
    loss = cross_entropy(logits, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert float(loss) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_of_labels_is_torchs(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float
) -> None:
    ours = cross_entropy(logits, F.one_hot(labels, 7).float(), label_smoothing=smoothing)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_of_probabilities_is_torchs_with_class_weights_and_smoothing(
    logits: torch.Tensor, votes: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> None:
    ours = cross_entropy(logits, votes, weights, label_smoothing=smoothing)
    theirs = F.cross_entropy(logits, votes, weights, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


def test_gradients_are_torchs(logits: torch.Tensor, votes: torch.Tensor) -> None:
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    cross_entropy(ours, votes, WEIGHTS, label_smoothing=0.1).backward()
    F.cross_entropy(theirs, votes, WEIGHTS, label_smoothing=0.1).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_image_weights_are_as_good_as_copies(logits: torch.Tensor, votes: torch.Tensor) -> None:
    times = torch.tensor([1, 3, 2, 2] * 4)
    copied = cross_entropy(logits.repeat_interleave(times, 0), votes.repeat_interleave(times, 0))
    weighted = cross_entropy(logits, votes, image_weights=times / times.float().mean())
    torch.testing.assert_close(weighted, copied)


def test_half_precision_logits_are_taken_to_single_precision(votes: torch.Tensor) -> None:
    logits = torch.full((16, 7), 3.0, dtype=torch.bfloat16)
    loss = cross_entropy(logits, votes)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(7))


def test_an_auxiliary_classifier_adds_its_share(logits: torch.Tensor, votes: torch.Tensor) -> None:
    second = logits.flip(0)
    loss, kept = model_loss((logits, second), votes, 0.4, label_smoothing=0.1)
    main = F.cross_entropy(logits, votes, label_smoothing=0.1)
    other = F.cross_entropy(second, votes, label_smoothing=0.1)
    torch.testing.assert_close(loss, main + 0.4 * other)
    assert kept is logits


def test_a_model_without_auxiliary_classifier_has_its_cross_entropy_alone(
    logits: torch.Tensor, votes: torch.Tensor
) -> None:
    loss, kept = model_loss(logits, votes, 0.4, class_weights=WEIGHTS)
    torch.testing.assert_close(loss, F.cross_entropy(logits, votes, WEIGHTS))
    assert kept is logits
