from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from mien.runs.recipe import Recipe
from mien.training.optimiser import add_penalty_gradients, create_optimiser, penalised, penalty

Step = Callable[[np.ndarray, np.ndarray, dict, int], np.ndarray]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))


def test_kernels_and_matrices_are_penalised_and_nothing_else() -> None:
    model = network()
    model[3].bias.requires_grad_(False)
    assert penalised(model) == [model[0].weight, model[3].weight]
    model[0].weight.requires_grad_(False)
    assert penalised(model) == [model[3].weight]


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_penalty_gradients_are_those_of_the_penalised_loss(l1: float, l2: float) -> None:
    ours, theirs = network(), network()
    images = torch.rand(5, 1, 4, 4)
    ours(images).square().sum().backward()
    add_penalty_gradients(penalised(ours), l1, l2)
    terms = [l1 * w.abs().sum() + l2 * (w**2).sum() for w in (theirs[0].weight, theirs[3].weight)]
    (theirs(images).square().sum() + sum(terms)).backward()
    assert penalty(penalised(ours), l1, l2) == pytest.approx(sum(float(t.detach()) for t in terms))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_weights_at_zero_and_without_gradient_are_left_alone() -> None:
    zero, idle = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    zero.grad = torch.zeros(2, 2)
    add_penalty_gradients([zero, idle], 1.0, 1.0)
    assert not zero.grad.any()
    assert idle.grad is None


def sgd(w: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    """Nesterov's momentum as Sutskever et al. (2013) give it, with the gradient at w."""
    s["v"] = 0.9 * s.get("v", 0) + g
    return w - 0.1 * (g + 0.9 * s["v"])


def plain_sgd(w: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    return w - 0.1 * g


def adam(w: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    """Kingma and Ba (2015), algorithm 1."""
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
    return w - 0.1 * (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)


def adamw(w: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    """Loshchilov and Hutter (2019): the decay does not pass through the moments."""
    decay = 0.05 if w.ndim > 1 else 0.0
    return adam(w - 0.1 * decay * w, g, s, t)


def rmsprop(w: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    s["b"] = 0.9 * s.get("b", 0) + g / (np.sqrt(s["v"]) + 1e-8)
    return w - 0.1 * s["b"]


@pytest.mark.parametrize(
    ("recipe", "rule"),
    [
        (Recipe(optimiser="sgd", lr=0.1), sgd),
        (Recipe(optimiser="sgd", lr=0.1, momentum=0), plain_sgd),
        (Recipe(optimiser="adam", lr=0.1), adam),
        (Recipe(optimiser="adamw", lr=0.1, weight_decay=0.05), adamw),
        (Recipe(optimiser="rmsprop", lr=0.1), rmsprop),
    ],
    ids=["nesterov", "sgd", "adam", "adamw", "rmsprop"],
)
def test_an_optimiser_follows_its_published_rule(recipe: Recipe, rule: Step) -> None:
    model = network()
    optimiser = create_optimiser(model, recipe)
    weights = [p.detach().double().numpy().copy() for p in model.parameters()]
    states: list[dict] = [{} for _ in weights]
    rng = np.random.default_rng(0)
    for t in range(1, 6):
        gradients = [rng.normal(size=w.shape) for w in weights]
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.grad = torch.from_numpy(g).float()
        optimiser.step()
        weights = [rule(w, g, s, t) for w, g, s in zip(weights, gradients, states, strict=True)]
    for p, w in zip(model.parameters(), weights, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw", "rmsprop"])
def test_frozen_parameters_are_not_optimised(optimiser: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    groups = create_optimiser(model, Recipe(optimiser=optimiser)).param_groups
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
