from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mien.runs.averaging import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def state(model: nn.Module) -> dict[str, np.ndarray]:
    """What is averaged: everything but the count of batches, as float64."""
    return {
        name: tensor.double().numpy().copy()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }


def train(model: nn.Module, average: WeightAverage, steps: int, seed: int) -> list[dict]:
    """Random steps; the states that the average has seen."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        model.train()
        model(torch.rand(4, 1, 6, 6, generator=generator))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator))
        average.update()
        seen.append(state(model))
    return seen


def expected(start: dict, seen: list[dict], decay: float) -> dict[str, np.ndarray]:
    averaged = start
    for t, live in enumerate(seen, 1):
        share = min(decay, (1 + t) / (10 + t))
        averaged = {k: share * averaged[k] + (1 - share) * live[k] for k in live}
    return averaged


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_the_average_follows_the_recursion_for_weights_and_statistics(decay: float) -> None:
    model = network()
    start = state(model)
    average = WeightAverage(model, decay)
    seen = train(model, average, 12, seed=1)
    average.swap()
    wanted = expected(start, seen, decay)
    assert set(wanted) == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"
    }  # fmt: skip
    for name, found in state(model).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-5, atol=1e-6)


def test_swapping_twice_gives_the_live_weights_back_bit_for_bit() -> None:
    model = network()
    average = WeightAverage(model, 0.9)
    live = train(model, average, 3, seed=1)[-1]
    average.swap()
    assert any((found != live[name]).any() for name, found in state(model).items())
    average.swap()
    for name, found in state(model).items():
        np.testing.assert_array_equal(found, live[name])


def test_an_average_taken_up_again_goes_on_bit_for_bit() -> None:
    whole, first, second = network(), network(), network()
    average = WeightAverage(whole, 0.5)
    train(whole, average, 5, seed=1)
    train(whole, average, 4, seed=2)

    half = WeightAverage(first, 0.5)
    train(first, half, 5, seed=1)
    taken_up = WeightAverage(second, 0.5)
    second.load_state_dict(first.state_dict())
    taken_up.load_state_dict(half.state_dict())
    train(second, taken_up, 4, seed=2)
    for a, b in zip(average.tensors, taken_up.tensors, strict=True):
        assert torch.equal(a, b)
