from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mien.data import CLASSES, FaceSet
from mien.images import Normalisation
from mien.images.augment import change
from mien.images.tensors import as_tensor
from mien.runs.recipe import Recipe
from mien.runs.seed import random_seed
from mien.training.batches import Batches, prepared, side_of, target_probabilities

CPU = torch.device("cpu")
UNIT = Normalisation((0.0,), (1.0,))


def numbered(n: int = 23, size: int = 16) -> FaceSet:
    """Image i is all of grey value i, so that a batch tells which images are in it."""
    images = np.repeat(np.arange(n, dtype=np.uint8), size * size).reshape(n, size, size)
    names = np.array([str(i) for i in range(n)])
    return FaceSet(images, np.arange(n) % 7, CLASSES, names, np.full(n, "Training"))


def epoch(recipe: Recipe, number: int, faces: FaceSet | None = None) -> list:
    return list(Batches(faces or numbered(), recipe, UNIT, CPU).epoch(number))


def members(batches: list) -> list[int]:
    return [int(v) for batch in batches for v in (batch.images[:, 0, 0, 0] * 255).round()]


PLAIN = Recipe(batch_size=5, image_size=16)


def test_an_epoch_shows_each_image_at_most_once_with_its_target() -> None:
    batches = epoch(PLAIN, 0)
    seen = members(batches)
    assert len(batches) == 4
    assert len(seen) == len(set(seen)) == 20
    labels = torch.cat([batch.targets for batch in batches]).argmax(1)
    assert labels.tolist() == [i % 7 for i in seen]


def test_epochs_differ_and_the_images_left_out_differ() -> None:
    left_out = [frozenset(range(23)) - set(members(epoch(PLAIN, e))) for e in range(6)]
    assert all(len(rest) == 3 for rest in left_out)
    assert len(set(left_out)) > 3
    assert members(epoch(PLAIN, 0)) != members(epoch(PLAIN, 1))
    assert members(epoch(PLAIN, 0)) != members(epoch(PLAIN.but(seed=1), 0))


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    recipe = PLAIN.but(flip=0.5, rotate=20.0, brightness=0.3, erase=0.5, mixup=0.4, cutmix=1.0)
    in_order = Batches(numbered(), recipe, UNIT, CPU)
    list(in_order.epoch(0))
    torch.rand(100)
    for again, first in zip(in_order.epoch(3), epoch(recipe, 3), strict=True):
        assert torch.equal(again.images, first.images)
        assert torch.equal(again.targets, first.targets)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    batches = epoch(PLAIN.but(batch_size=64), 0)
    assert [len(batch.images) for batch in batches] == [23]


def test_batches_are_resized_normalised_and_channels_last() -> None:
    halves = Normalisation((0.5,), (0.25,))
    batch = next(Batches(numbered(), PLAIN.but(image_size=24), halves, CPU).epoch(0))
    assert batch.images.shape == (5, 1, 24, 24)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    grey = batch.images * 0.25 + 0.5
    assert set((grey[:, 0, 12, 12] * 255).round().int().tolist()) <= set(range(23))


def test_mixup_and_cutmix_take_turns_by_the_batch() -> None:
    faces = numbered(200)
    both = epoch(PLAIN.but(batch_size=10, mixup=1.0, cutmix=1.0), 0, faces)
    # A mixed-up image is still of one grey; one with another's box in it is not.
    flat = [bool((b.images.amax((1, 2, 3)) - b.images.amin((1, 2, 3)) < 1e-6).all()) for b in both]
    assert 3 < sum(flat) < 17
    for batch in both:
        torch.testing.assert_close(batch.targets.sum(1), torch.ones(10))
        assert ((batch.targets > 0).sum(1) > 1).any()
    alone = epoch(PLAIN.but(batch_size=10, cutmix=1.0), 0, faces)
    assert not any((b.images.amax((1, 2, 3)) == b.images.amin((1, 2, 3))).all() for b in alone)


def test_weights_of_the_images_have_mean_1_and_follow_their_images() -> None:
    faces = replace(numbered(), weights=np.arange(23, dtype=np.float32) * 4)
    for batch in epoch(PLAIN, 0, faces):
        numbers = (batch.images[:, 0, 0, 0] * 255).round()
        torch.testing.assert_close(batch.weights, numbers / 11)
    assert next(Batches(numbered(), PLAIN, UNIT, CPU).epoch(0)).weights is None


def test_votes_are_learned_where_asked_for_and_known() -> None:
    soft = np.full((7, 7), 1 / 7, np.float32)
    soft[3] = np.nan
    faces = replace(numbered(7), soft=soft)
    np.testing.assert_array_equal(target_probabilities(faces, 0.0), np.eye(7))
    targets = target_probabilities(faces, 1.0)
    np.testing.assert_array_equal(targets[3], np.eye(7)[3])
    np.testing.assert_allclose(np.delete(targets, 3, 0), 1 / 7)
    np.testing.assert_array_equal(target_probabilities(numbered(7), 1.0), np.eye(7))
    quarter = target_probabilities(faces, 0.25)
    np.testing.assert_array_equal(quarter[3], np.eye(7)[3])
    np.testing.assert_allclose(quarter[0], 0.75 * np.eye(7)[0] + 0.25 / 7, rtol=1e-6)
    share = PLAIN.but(soft_labels=True, vote_share=0.25)
    batches = Batches(faces, share, UNIT, CPU)
    np.testing.assert_array_equal(batches.targets.numpy(), quarter)


def test_grey_and_colour_images_become_tensors_with_channels_in_front() -> None:
    grey = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    assert torch.equal(as_tensor(grey, "cpu")[:, 0], torch.from_numpy(grey))
    colour = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    tensor = as_tensor(colour, "cpu")
    assert tensor.shape == (2, 3, 3, 4)
    assert int(tensor[1, 2, 0, 3]) == colour[1, 0, 3, 2]


def test_prepared_images_are_those_of_a_batch_without_augmentation() -> None:
    faces = numbered()
    seen = epoch(PLAIN.but(image_size=32), 0, faces)
    images = prepared(as_tensor(faces.images, CPU), UNIT, 32)
    torch.testing.assert_close(torch.cat([b.images for b in seen]), images[members(seen)])


@pytest.mark.parametrize("other", [(1, "epoch", 0), (0, "layers", 0), (0, "epoch", 1)])
def test_a_seed_depends_on_every_part(other: tuple) -> None:
    assert random_seed(0, "epoch", 0) == random_seed(0, "epoch", 0)
    assert random_seed(0, "epoch", 0) != random_seed(*other)
    assert 0 <= random_seed(*other) < 2**63


def test_images_grow_in_steps_of_the_stride_and_are_whole_in_the_last_three_tenths() -> None:
    recipe = Recipe(epochs=10, image_size=48, start_size=24, stride=8)
    assert [side_of(recipe, e) for e in range(10)] == [24, 24, 24, 32, 32, 40, 40, 48, 48, 48]
    coarse = recipe.but(start_size=32, stride=16)
    assert [side_of(coarse, e) for e in range(10)] == [32] * 7 + [48] * 3
    for epochs in (1, 2, 3):
        assert side_of(coarse.but(epochs=epochs), epochs - 1) == 48
    assert side_of(coarse.but(epochs=2), 0) == 32
    assert {side_of(recipe.but(start_size=0), e) for e in range(10)} == {48}


def test_the_first_epochs_of_growing_images_are_smaller_and_show_the_same_faces() -> None:
    recipe = PLAIN.but(image_size=32, start_size=16, epochs=10)
    first, last = epoch(recipe, 0), epoch(recipe, 9)
    assert {batch.images.shape[-2:] for batch in first} == {(16, 16)}
    assert {batch.images.shape[-2:] for batch in last} == {(32, 32)}
    assert members(first) == members(epoch(recipe.but(start_size=0), 0))


def test_augmentation_is_compiled_where_all_is_and_there_is_an_accelerator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = []

    def compile(what: Any, **settings: Any) -> Any:
        compiled.append((what, settings))
        return what

    monkeypatch.setattr(torch, "compile", compile)
    for recipe, device in ((PLAIN, "meta"), (PLAIN.but(compile=True), "cpu")):
        Batches(numbered(), recipe, UNIT, torch.device(device))
    assert compiled == []
    Batches(numbered(), PLAIN.but(compile=True), UNIT, torch.device("meta"))
    assert compiled == [(change, {"dynamic": False})]


def test_degraded_images_are_those_of_the_recipe_without_it_which_teachers_are_shown() -> None:
    recipe = PLAIN.but(flip=0.5, brightness=0.3, mixup=0.4, cutmix=1.0)
    clean = epoch(recipe, 1)
    worse = epoch(recipe.but(degrade=1.0, teacher=["runs/T"]), 1)
    for one, other in zip(clean, worse, strict=True):
        assert torch.equal(one.images, other.clean)
        assert torch.equal(one.targets, other.targets)
        assert not torch.allclose(one.images, other.images)
    assert all(batch.clean is None for batch in (*clean, *epoch(recipe.but(degrade=1.0), 1)))


def test_degraded_images_depend_on_seed_and_epoch() -> None:
    recipe = PLAIN.but(degrade=1.0)
    shown = [torch.cat([b.images for b in epoch(r, e)]) for r, e in (
        (recipe, 0), (recipe, 0), (recipe, 1), (recipe.but(seed=1), 0)
    )]  # fmt: skip
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[3])


@pytest.mark.parametrize("mix", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_a_mixture_has_of_each_image_what_its_weight_allows(mix: dict[str, float]) -> None:
    of_first = np.arange(200) % 7 == 0
    faces = replace(numbered(200), weights=np.where(of_first, 0.0, 1.0).astype(np.float32))
    for batch in epoch(PLAIN.but(batch_size=50, **mix), 0, faces):
        assert batch.weights is not None
        mass = batch.weights[:, None] * batch.targets
        assert float(mass[:, 0].abs().max()) == 0
        some = batch.weights > 1e-6
        torch.testing.assert_close(batch.targets.sum(1)[some], torch.ones(int(some.sum())))
