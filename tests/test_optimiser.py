from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from mien.runs.recipe import Recipe
from mien.training.muon import ADAM_SHARE, exact_products, orthogonalised, orthogonalised_in_half
from mien.training.optimiser import add_penalty_gradients, create_optimiser, penalised, penalty
from mien.training.predict import build_model

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


def test_orthogonalised_keeps_the_singular_vectors_and_brings_the_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((6, 20), (20, 6)):
        matrix = torch.randn(shape, dtype=torch.float64)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        in_its_own_axes = u.T @ orthogonalised([matrix])[0] @ v.T
        values = in_its_own_axes.diagonal()
        assert values.min() > 0.6
        assert values.max() < 1.3
        torch.testing.assert_close(in_its_own_axes, values.diag())


@pytest.mark.parametrize("shape", [(16, 144), (64, 27), (12, 12)])
@pytest.mark.parametrize("digits", [0, 4, 8])
def test_orthogonalised_is_five_steps_of_newton_and_schulz(
    shape: tuple[int, int], digits: int
) -> None:
    """Also of a matrix that is nearly singular, in float32."""
    rng = np.random.default_rng(0)
    u, s, v = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    x = matrix = (u * np.logspace(0, -digits, len(s))) @ v
    x = x / np.linalg.norm(x)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    beside = torch.randn(3, 5)
    _, found, _ = orthogonalised([beside, torch.from_numpy(matrix).float(), torch.eye(min(shape))])
    np.testing.assert_allclose(found.numpy(), x, atol=2.5e-3)


@pytest.mark.parametrize("shape", [(16, 144), (64, 27), (12, 12)])
def test_in_half_the_steps_are_the_same_but_for_rounding(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    regular = (u * torch.linspace(1, 0.3, min(shape))) @ v
    nearly_singular = (u * torch.logspace(0, -8, min(shape))) @ v
    beside = torch.randn(3, 5)
    found, _, other = orthogonalised_in_half([regular, beside, nearly_singular])
    exact, *_ = orthogonalised([regular])
    assert (found - exact).norm() < 0.03 * exact.norm()
    assert found.dtype == torch.float32
    assert torch.linalg.svdvals(other).max() < 1.3, "what was rounded away is not raised"


def test_muon_needs_all_digits_of_float32_and_leaves_what_was_allowed_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = []

    def watched(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
        used.append(torch.get_float32_matmul_precision())
        return orthogonalised(matrices)

    monkeypatch.setattr("mien.training.muon.orthogonalised", watched)
    model = nn.Conv2d(3, 8, 3)
    optimiser = create_optimiser(model, Recipe(optimiser="muon"))
    model(torch.rand(2, 3, 8, 8)).square().sum().backward()
    torch.set_float32_matmul_precision("high")
    try:
        optimiser.step()
        assert used == ["highest"]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_muon_does_not_set_anew_what_compiled_graphs_are_guarded_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "set_float32_matmul_precision", pytest.fail)
    assert torch.get_float32_matmul_precision() == "highest"
    with exact_products():
        pass


def test_muon_moves_a_kernel_as_pytorchs_muon_moves_its_matrix_and_the_rest_as_adamw() -> None:
    torch.manual_seed(0)
    kernel, bias = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8))
    matrix, other = (nn.Parameter(p.detach().flatten(1) if p.ndim == 4 else p.detach().clone())
                     for p in (kernel, bias))  # fmt: skip
    recipe = Recipe(optimiser="muon", lr=0.1, weight_decay=0.05)
    model = nn.Module()
    model.kernel, model.bias = kernel, bias
    ours = create_optimiser(model, recipe)
    theirs = torch.optim.Muon([matrix], 0.1, weight_decay=0.05)
    adam = torch.optim.AdamW([other], 0.1 * ADAM_SHARE, weight_decay=0.0)
    before = kernel.detach().clone()
    for _ in range(4):
        kernel.grad, bias.grad = torch.randn_like(kernel), torch.randn_like(bias)
        matrix.grad, other.grad = kernel.grad.flatten(1), bias.grad.clone()
        for optimiser in (ours, theirs, adam):
            optimiser.step()
    moved, as_much = kernel - before, matrix.view_as(kernel) - before
    assert (moved - as_much).norm() < 0.02 * moved.norm()  # theirs computes in bfloat16
    torch.testing.assert_close(bias, other)


def test_a_step_of_muon_is_few_kernels_for_an_accelerator_to_wait_for() -> None:
    recipe = Recipe(model="plain", optimiser="muon", width=0.25)
    model = build_model(recipe, 7, 1)
    optimiser = create_optimiser(model, recipe)
    model(torch.rand(2, 1, 48, 48)).square().sum().backward()
    with torch.profiler.profile() as profile:
        optimiser.step()
    products = [e for e in profile.events() if e.name in ("aten::bmm", "aten::baddbmm")]
    assert len(products) == 3 * 5 * 4  # six kernels of three heights, five steps, four products


def test_muon_leaves_the_linear_layer_to_adam() -> None:
    model = network()
    optimiser = create_optimiser(model, Recipe(optimiser="muon", lr=0.15))
    before = model[3].weight.detach().clone()
    model(torch.rand(5, 1, 4, 4)).square().sum().backward()
    optimiser.step()
    torch.testing.assert_close((model[3].weight - before).abs(), torch.full((4, 12), 0.01))
