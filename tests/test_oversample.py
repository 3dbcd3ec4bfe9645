"""Oversampling: an epoch as long as ever in which every class has the same share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.balance.oversample import balanced_order
from mien.data import CLASSES, FaceSet
from mien.errors import DataError
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.runs.seed import random_seed
from mien.training.batches import Batch, Batches
from mien.training.share import Share

CPU = torch.device("cpu")
UNIT = Normalisation((0.0,), (1.0,))
RECIPE = Recipe(batch_size=10, image_size=16, oversample=True)
COUNTS = (30, 3, 25, 60, 40, 20, 32)


def ordered(labels: torch.Tensor, classes: int, seed: int = 0) -> torch.Tensor:
    return balanced_order(labels, classes, torch.Generator().manual_seed(seed))


def labelled(counts: list[int] | tuple[int, ...], seed: int = 0) -> torch.Tensor:
    labels = np.repeat(np.arange(len(counts)), counts)
    return torch.from_numpy(np.random.default_rng(seed).permutation(labels))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 99))
def test_every_class_has_its_share_and_no_image_comes_back_before_its_class_is_through(
    counts: list[int], seed: int
) -> None:
    labels = labelled(counts, seed)
    order = ordered(labels, len(counts), seed)
    assert order.dtype == torch.int64
    assert len(order) == sum(counts)
    share, rest = divmod(sum(counts), len(counts))
    times = labels[order].bincount(minlength=len(counts)).tolist()
    assert sorted(times) == [share] * (len(counts) - rest) + [share + 1] * rest
    for number, count in enumerate(counts):
        seen = order[labels[order] == number].tolist()
        for start in range(0, len(seen), count):
            cycle = seen[start : start + count]
            assert len(set(cycle)) == len(cycle)


def test_each_cycle_of_a_class_is_shuffled_afresh() -> None:
    labels = labelled((8, 400))
    seen = ordered(labels, 2)
    seen = seen[labels[seen] == 0]
    cycles = {tuple(cycle) for cycle in seen[:200].reshape(25, 8).tolist()}
    assert len(cycles) == 25
    firsts = {cycle[0] for cycle in cycles}
    assert len(firsts) > 5


def test_which_images_of_a_large_class_are_left_out_and_who_has_one_more_changes() -> None:
    labels = labelled(COUNTS)  # 210 images, 30 of each class
    of_happy = [set(o[labels[o] == 3].tolist()) for o in (ordered(labels, 7, s) for s in range(9))]
    assert all(len(images) == 30 for images in of_happy)
    assert len(set.union(*of_happy)) == 60
    labels = labelled((5, 5, 3))  # 13 images: one class has five, the others four
    largest = {int(labels[ordered(labels, 3, s)].bincount().argmax()) for s in range(20)}
    assert largest == {0, 1, 2}


def test_the_classes_stand_mixed() -> None:
    labels = labelled((4000, 100, 900))
    place = torch.arange(5000) / 5000
    classes = labels[ordered(labels, 3)]
    for number in range(3):
        # The mean of 1,667 uniform numbers has a deviation of 0.007.
        assert float(place[classes == number].mean()) == pytest.approx(0.5, abs=0.035)
    assert not (ordered(labels, 3) == ordered(labels, 3, seed=1)).all()
    assert torch.equal(ordered(labels, 3), ordered(labels, 3))


def test_a_class_without_images_cannot_be_oversampled() -> None:
    with pytest.raises(DataError, match=r"oversample: no training image of class 1 .of 0 to 2"):
        ordered(torch.tensor([0, 0, 2]), 3)


# In training


def numbered() -> FaceSet:
    """Image i is all of grey value i, so that a batch tells which images are in it."""
    n = sum(COUNTS)
    images = np.repeat(np.arange(n, dtype=np.uint8), 256).reshape(n, 16, 16)
    names = np.array([str(i) for i in range(n)])
    return FaceSet(images, labelled(COUNTS).numpy(), CLASSES, names, np.full(n, "Training"))


def epoch(recipe: Recipe, number: int = 0, faces: FaceSet | None = None) -> list[Batch]:
    return list(Batches(faces or numbered(), recipe, UNIT, CPU).epoch(number))


def members(batches: list[Batch]) -> list[int]:
    return [int(v) for batch in batches for v in (batch.images[:, 0, 0, 0] * 255).round()]


def test_an_epoch_is_as_long_as_ever_and_has_the_classes_in_equal_shares() -> None:
    batches = epoch(RECIPE)
    assert [len(b.images) for b in batches] == [10] * 21
    labels = torch.cat([b.targets for b in batches]).argmax(1)
    assert labels.bincount().tolist() == [30] * 7
    assert labels.tolist() == numbered().labels[members(batches)].tolist()


def test_an_oversampled_epoch_depends_on_seed_and_number_alone() -> None:
    recipe = RECIPE.but(flip=0.5, rotate=20.0, brightness=0.3, mixup=0.4)
    in_order = Batches(numbered(), recipe, UNIT, CPU)
    list(in_order.epoch(0))
    torch.rand(100)
    for again, first in zip(in_order.epoch(3), epoch(recipe, 3), strict=True):
        assert torch.equal(again.images, first.images)
        assert torch.equal(again.targets, first.targets)
    assert members(epoch(RECIPE, 0)) != members(epoch(RECIPE, 1))


def test_an_image_that_comes_again_is_augmented_afresh() -> None:
    faces = replace(numbered(), images=np.full((210, 16, 16), 100, np.uint8))
    batches = epoch(RECIPE.but(brightness=0.5), 0, faces)
    images = torch.cat([b.images for b in batches])
    disgust = images[torch.cat([b.targets for b in batches]).argmax(1) == 1]
    assert len(disgust) == 30  # of three images
    assert len(disgust[:, 0, 0, 0].unique()) == 30


def test_the_shares_of_several_processes_make_up_the_oversampled_batch() -> None:
    shares = [Batches(numbered(), RECIPE, UNIT, CPU, Share(rank, 2)).epoch(1) for rank in (0, 1)]
    for whole, first, second in zip(epoch(RECIPE, 1), *shares, strict=True):
        assert torch.equal(torch.cat([first.images, second.images]), whole.images)
        assert torch.equal(torch.cat([first.targets, second.targets]), whole.targets)


def test_a_mapped_set_is_oversampled_as_one_in_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", numbered().images)
    mapped = replace(numbered(), images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert members(epoch(RECIPE, 2, mapped)) == members(epoch(RECIPE, 2))


def test_without_oversampling_an_epoch_is_the_permutation_that_it_always_was() -> None:
    generator = torch.Generator().manual_seed(random_seed(0, "epoch", 4))
    expected = torch.randperm(210, generator=generator).tolist()
    assert members(epoch(RECIPE.but(oversample=False), 4)) == expected
