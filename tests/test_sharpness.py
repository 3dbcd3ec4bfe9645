from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mien.data import FaceSet, draw_faces
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit
from mien.training.distributed import fit_distributed
from mien.training.loop import Training
from mien.training.sharpness import at_the_worst_near

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Recipe(
    model="plain", width=0.125, image_size=24, stride=8, epochs=2, batch_size=32, dropout=0.0,
    flip=0.5, sam=0.05,
)  # fmt: skip


def faces() -> FaceSet:
    return draw_faces(140, size=24)


def trained(recipe: Recipe, runs: Path) -> Run:
    return fit(recipe, faces()["train"], runs=runs, device="cpu", progress="none")


def test_the_worst_place_near_a_bowl_is_further_up_its_slope() -> None:
    # f(w) = sum a w^2 / 2, so the gradient at w + e is a (w + e), with e = rho g / |g|.
    weights = nn.ParameterList([torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])])
    slopes = (torch.tensor([1.0, 5.0]), torch.tensor([[1.0]]))

    def differentiate() -> None:
        sum((a * w**2).sum() / 2 for a, w in zip(slopes, weights, strict=True)).backward()

    differentiate()  # (3, 0, 4), of length 5
    with at_the_worst_near(weights, 0.5):
        torch.testing.assert_close(weights[0].data, torch.tensor([3.3, 0.0]))
        torch.testing.assert_close(weights[1].data, torch.tensor([[4.4]]))
        differentiate()
    assert weights[0].tolist() == [3.0, 0.0]
    torch.testing.assert_close(weights[0].grad, torch.tensor([3.3, 0.0]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([[4.4]]))


def test_weights_come_back_bit_for_bit_and_batch_norm_counts_a_batch_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    images = torch.randn(8, 1, 4, 4)
    once = copy.deepcopy(model)
    once(images).square().mean().backward()
    model(images).square().mean().backward()
    with at_the_worst_near(model, 0.3):
        there = model[0].weight.detach().clone()
        model(images).square().mean().backward()
    assert not torch.equal(there, once[0].weight)
    for name, tensor in once.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert not torch.equal(model[0].weight.grad, once[0].weight.grad)
    model(images)
    assert int(model[1].num_batches_tracked) == 2


def test_a_place_that_cannot_be_computed_at_leaves_the_weights_where_they_were() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ZeroDivisionError), at_the_worst_near(layer, 1.0):
        raise ZeroDivisionError
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_step_is_that_of_the_optimiser_with_the_gradients_of_the_worst_place(
    tmp_path: Path, optimiser: str
) -> None:
    recipe = TINY.but(
        optimiser=optimiser, epochs=1, batch_size=98, schedule="constant", lr=1e-2, l2=0.01,
        clip=0.5, momentum=0.0,
    )  # fmt: skip
    run = trained(recipe, tmp_path)
    # The same step by hand.
    training = Training(recipe, faces()["train"], None, torch.device("cpu"))
    model = training.model.train()
    weights = dict(model.named_parameters())
    (batch,) = training.batches.epoch(0)

    def gradients() -> dict[str, torch.Tensor]:
        loss = nn.functional.cross_entropy(model(batch.images), batch.targets)
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    slope = gradients()
    length = torch.cat([g.flatten() for g in slope.values()]).norm()
    start = {name: w.detach().clone() for name, w in weights.items()}
    with torch.no_grad():
        for name, w in weights.items():
            w += 0.05 * slope[name] / length
    found = gradients()
    with torch.no_grad():
        for name, w in weights.items():
            w.copy_(start[name])
            w.grad = found[name] + (2 * 0.01 * w if w.ndim > 1 else 0)
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    for group in training.optimiser.param_groups:
        group["lr"] = 1e-2
    training.optimiser.step()
    end = load_file(run.weights_path)

    def norm(tensors: dict[str, torch.Tensor]) -> float:
        return float(torch.cat([t.detach().flatten() for t in tensors.values()]).norm())

    wrong = norm({name: end[name] - w for name, w in weights.items()})
    moved = norm({name: start[name] - w for name, w in weights.items()})
    # RMSProp divides by gradients that may be near 0, so single weights may be off.
    assert wrong < 0.01 * moved
    assert norm({name: found[name] - slope[name] for name in found}) > 0.05 * norm(slope)


def test_a_stopped_training_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = TINY.but(ema=0.9, dropout=0.3, clip=1.0)
    whole = trained(recipe, tmp_path / "whole")
    epoch = Training._train_epoch

    def once(self: Training, progress: Any) -> None:
        if self.epoch:
            raise KeyboardInterrupt
        epoch(self, progress)

    monkeypatch.setattr(Training, "_train_epoch", once)
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, tmp_path)
    monkeypatch.undo()
    assert trained(recipe, tmp_path).weights_path.read_bytes() == whole.weights_path.read_bytes()


def test_two_processes_go_to_the_place_that_one_goes_to(tmp_path: Path) -> None:
    recipe = TINY.but(
        model="vgg19", batch_norm=False, width=1 / 16, optimiser="sgd", schedule="constant",
        lr=0.05, sam=0.5,
    )  # fmt: skip
    one = trained(recipe, tmp_path)
    two = fit_distributed(
        recipe, faces()["train"], runs=tmp_path, device="cpu", progress="none", processes=2
    )
    flat = trained(recipe.but(sam=0.0), tmp_path)

    def apart(first: Run, second: Run) -> float:
        one, other = load_file(first.weights_path), load_file(second.weights_path)
        return sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5

    # Sums in another order may put a unit on the other side of its ReLU, on some processors.
    assert apart(one, two) < 0.01 * apart(one, flat)
