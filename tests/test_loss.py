from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mien.training import loss
from mien.training.loss import GCE_Q, SCE_LOG_ZERO, cross_entropy, model_loss


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


# The robust kinds


def test_what_an_image_of_a_known_probability_costs_in_each_robust_loss() -> None:
    logits = torch.tensor([[math.log(3), 0.0]])  # 3/4 and 1/4
    label = torch.tensor([[1.0, 0.0]])
    generalised = cross_entropy(logits, label, kind="gce")
    assert float(generalised) == pytest.approx((1 - 0.75**0.7) / 0.7)
    # 0.1 times the entropy, and the share of the other class at the logarithm of 0 set to -4.
    symmetric = cross_entropy(logits, label, kind="sce")
    assert float(symmetric) == pytest.approx(0.1 * math.log(4 / 3) + 4 * 0.25)


def test_votes_cost_the_mean_of_their_labels_in_the_generalised_loss_and_less_in_the_symmetric(
    logits: torch.Tensor, votes: torch.Tensor
) -> None:
    labels = [F.one_hot(torch.full((16,), c), 7).float() for c in range(7)]
    each = torch.stack([_alone(logits, label, "gce") for label in labels], 1)
    torch.testing.assert_close(_alone(logits, votes, "gce"), (votes * each).sum(1))
    # Of a uniform target every logarithm is log 1/7, whatever the probabilities.
    even = torch.full((16, 7), 1 / 7)
    reverse = _alone(logits, even, "sce") - 0.1 * _alone(logits, even, "cross-entropy")
    torch.testing.assert_close(reverse, torch.full((16,), math.log(7)))


def _alone(logits: torch.Tensor, targets: torch.Tensor, kind: str) -> torch.Tensor:
    rows = zip(logits, targets, strict=True)
    return torch.stack([cross_entropy(z[None], t[None], kind=kind) for z, t in rows])


@pytest.mark.parametrize("kind", ["gce", "sce"])
@pytest.mark.parametrize("sure", [20.0, 200.0])
def test_a_wrong_label_costs_a_bounded_amount_and_pulls_less_than_in_cross_entropy(
    kind: str, sure: float
) -> None:
    label = torch.tensor([[0.0, 1.0]])
    pulls = {}
    for robust in ("cross-entropy", kind):
        logits = torch.tensor([[sure, 0.0]], requires_grad=True)
        cost = cross_entropy(logits, label, kind=robust)
        cost.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        pulls[robust] = float(logits.grad.abs().max())
    bound = {"gce": 1 / GCE_Q, "sce": 0.1 * sure - SCE_LOG_ZERO}[kind]
    assert float(cost.detach()) == pytest.approx(bound, rel=1e-5)
    assert pulls[kind] < 0.11 * pulls["cross-entropy"]


def test_towards_q_0_the_generalised_loss_is_cross_entropy_and_at_1_the_absolute_error(
    logits: torch.Tensor, labels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = F.one_hot(labels, 7).float()
    monkeypatch.setattr(loss, "GCE_Q", 1e-4)
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(
        cross_entropy(logits, targets, kind="gce"), expected, rtol=2e-3, atol=0
    )
    monkeypatch.setattr(loss, "GCE_Q", 1.0)
    halved = (logits.softmax(1) - targets).abs().sum(1).mean() / 2
    torch.testing.assert_close(cross_entropy(logits, targets, kind="gce"), halved)


@pytest.mark.parametrize("kind", ["gce", "sce"])
def test_the_robust_losses_take_weights_of_classes_and_images_and_an_adjustment(
    logits: torch.Tensor, labels: torch.Tensor, kind: str
) -> None:
    targets = F.one_hot(labels, 7).float()
    alone = _alone(logits + WEIGHTS, targets, kind)
    images = torch.rand(16, generator=torch.Generator().manual_seed(2))
    found = cross_entropy(logits, targets, WEIGHTS, images, adjustment=WEIGHTS, kind=kind)
    torch.testing.assert_close(found, (alone * WEIGHTS[labels] * images).mean())


def test_an_auxiliary_classifier_has_the_same_kind_of_loss(
    logits: torch.Tensor, votes: torch.Tensor
) -> None:
    found, _ = model_loss((logits, logits.flip(0)), votes, 0.4, kind="gce")
    main, other = (cross_entropy(z, votes, kind="gce") for z in (logits, logits.flip(0)))
    torch.testing.assert_close(found, main + 0.4 * other)
