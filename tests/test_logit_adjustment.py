"""Logit adjustment: the balanced softmax and its milder and stronger forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mien.data import FaceSet
from mien.errors import DataError
from mien.runs.recipe import Recipe
from mien.training import fit
from mien.training.loss import cross_entropy, log_prior, model_loss

TRAINING = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])
LABELS = np.repeat(np.arange(7), TRAINING)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(16, 7, generator=torch.Generator().manual_seed(0)) * 4


@pytest.fixture
def targets() -> torch.Tensor:
    return F.one_hot(torch.arange(16) % 7, 7).float()


def test_the_prior_is_each_classs_share_of_the_labelled_images() -> None:
    prior = log_prior(np.array([0, 1, 0, -1, 0]), 2)
    torch.testing.assert_close(prior, torch.tensor([math.log(3 / 4), math.log(1 / 4)]))
    assert prior.dtype == torch.float32


def test_a_class_without_images_has_no_prior() -> None:
    with pytest.raises(DataError, match="logit_adjustment: no training images of class 1, 3 "):
        log_prior(np.array([0, 0, 2]), 4)


def test_an_undecided_model_pays_for_a_rare_class_by_its_rarity() -> None:
    # By hand: three in four are common, so equal logits become 3 : 1 and the rare class costs ln 4.
    prior = log_prior(np.array([0, 0, 0, 1]), 2)
    logits, rare = torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])
    assert float(cross_entropy(logits, rare, adjustment=prior)) == pytest.approx(math.log(4))
    # tau = 2: 9 : 1. And logits that are ln 3 apart make up for the prior: 1 : 1.
    assert float(cross_entropy(logits, rare, adjustment=2 * prior)) == pytest.approx(math.log(10))
    logits = torch.tensor([[0.0, math.log(3)]])
    assert float(cross_entropy(logits, rare, adjustment=prior)) == pytest.approx(math.log(2))


def test_with_tau_1_it_is_the_balanced_softmax(logits: torch.Tensor, targets: torch.Tensor) -> None:
    # Ren et al., 2020: p_c = n_c exp(z_c) / sum_i n_i exp(z_i).
    weighted = TRAINING * np.exp(logits.double().numpy())
    shares = weighted / weighted.sum(1, keepdims=True)
    expected = -np.log(shares[np.arange(16), np.arange(16) % 7]).mean()
    found = cross_entropy(logits, targets, adjustment=log_prior(LABELS, 7))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.5])
def test_the_loss_and_its_gradients_are_torchs_on_adjusted_logits(
    logits: torch.Tensor, targets: torch.Tensor, tau: float
) -> None:
    prior = torch.from_numpy(np.log(TRAINING / TRAINING.sum())).float()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = cross_entropy(ours, targets, label_smoothing=0.1, adjustment=tau * log_prior(LABELS, 7))
    other = F.cross_entropy(theirs + tau * prior, targets, label_smoothing=0.1)
    torch.testing.assert_close(loss, other)
    loss.backward()
    other.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_a_model_that_sees_no_image_learns_what_is_left_of_the_prior(tau: float) -> None:
    # Closed form: softmax(b + tau log prior) = prior at the optimum, so softmax(b) ~ prior^(1-tau).
    counts = np.array([60, 30, 10])
    labels = np.repeat(np.arange(3), counts)
    targets = F.one_hot(torch.from_numpy(labels), 3).float()
    adjustment = tau * log_prior(labels, 3)
    bias = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.LBFGS([bias], max_iter=100, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(bias.expand(100, 3), targets, adjustment=adjustment)
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = (counts / 100) ** (1 - tau)
    found = bias.detach().softmax(0).numpy()
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


def test_auxiliary_logits_are_adjusted_too_and_the_models_own_are_given_back(
    logits: torch.Tensor, targets: torch.Tensor
) -> None:
    second, prior = logits.flip(0), log_prior(LABELS, 7)
    loss, kept = model_loss((logits, second), targets, 0.4, adjustment=prior)
    main, other = (F.cross_entropy(z + prior, targets) for z in (logits, second))
    torch.testing.assert_close(loss, main + 0.4 * other)
    assert kept is logits
    loss, kept = model_loss(logits, targets, 0.4, adjustment=prior)
    torch.testing.assert_close(loss, main)
    assert kept is logits


# In training

TINY = Recipe(model="plain", width=0.125, image_size=16, stride=8, epochs=6, batch_size=32)


def overlapping(common: int, rare: int, split: str, seed: int) -> FaceSet:
    """Noise whose brightness tells the class, but for an overlap."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [common, rare])
    brightness = np.array([110, 150])[labels] + rng.normal(0, 20, len(labels))
    pixels = brightness[:, None, None] + rng.normal(0, 10, (len(labels), 16, 16))
    return FaceSet(
        images=pixels.clip(0, 255).astype(np.uint8),
        labels=labels,
        classes=("common", "rare"),
        names=np.array([f"{split} {i}" for i in range(len(labels))]),
        split=np.full(len(labels), split),
    )


def test_the_recall_of_a_rare_class_rises_and_that_of_the_common_one_pays(tmp_path: Path) -> None:
    train, valid = overlapping(380, 20, "train", 0), overlapping(200, 200, "valid", 1)
    recall = {}
    for tau in (0.0, 1.0):
        recipe = TINY.but(logit_adjustment=tau)
        run = fit(recipe, train, valid, runs=tmp_path, device="cpu", progress="none")
        called = run.predictions("valid").probabilities.argmax(1)
        recall[tau] = [float((called[valid.labels == c] == c).mean()) for c in (0, 1)]
    # At equal shares the best border is at 130, one deviation from both: 84 % of each class.
    assert recall[1.0][1] > recall[0.0][1] + 0.2
    assert recall[1.0][0] < recall[0.0][0]
    assert min(recall[1.0]) > 0.7


def test_an_empty_class_is_an_error_before_training_starts(tmp_path: Path) -> None:
    train, valid = overlapping(40, 0, "train", 0), overlapping(10, 10, "valid", 1)
    with pytest.raises(DataError, match="no image of rare"):
        fit(TINY.but(logit_adjustment=1.0), train, valid, runs=tmp_path, progress="none")
    assert not list(tmp_path.iterdir())
