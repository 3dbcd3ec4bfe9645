from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from mien.images import cutmix, mixup

Mix = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_images(n: int, height: int = 20, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is all of value i / n, and class i: what a result is made of can be read off it."""
    values = torch.arange(n) / n
    return values.view(n, 1, 1, 1).repeat(1, 3, height, width), torch.eye(n)


def test_mixup_blends_targets_in_the_shares_of_the_images() -> None:
    images, targets = plain_images(64)
    mixed, shares = mixup(images, targets, 1.0, seeded())
    expected = (shares @ (torch.arange(64) / 64)).view(-1, 1, 1, 1).expand_as(mixed)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(shares.sum(1), torch.ones(64))
    assert ((shares > 0).sum(1) == 2).sum() > 50


def test_mixup_draws_each_image_its_own_share_from_the_beta_distribution() -> None:
    labels = torch.arange(4000) % 2
    _, shares = mixup(torch.zeros(4000, 1, 1, 1), torch.eye(2)[labels], 0.4, seeded())
    kept = shares[torch.arange(4000), labels]
    kept = kept[kept < 1]  # the others met an image of their own class
    assert len(kept.unique()) > 1500
    assert stats.kstest(kept.numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_cutmix_targets_are_the_shares_of_the_pixels() -> None:
    images, targets = plain_images(64)
    mixed, shares = cutmix(images, targets, 1.0, seeded())
    source = (mixed[:, 0] * 64).round().long()
    torch.testing.assert_close(source[:, None] / 64, mixed[:, :1])
    counted = torch.stack([(source == i).float().mean((1, 2)) for i in range(64)], 1)
    torch.testing.assert_close(shares, counted)
    assert ((shares > 0).sum(1) == 2).sum() > 45


def test_cutmix_puts_in_one_rectangle_whose_pixels_keep_their_place() -> None:
    images = torch.rand(40, 2, 24, 16, generator=seeded(1))
    mixed, shares = cutmix(images, torch.eye(40), 1.0, seeded())
    boxes = 0
    for i, (image, share) in enumerate(zip(mixed, shares, strict=True)):
        others = [int(j) for j in share.nonzero() if int(j) != i]
        put_in = (image != images[i]).any(0)
        if not others:
            assert not put_in.any()
            continue
        rows, columns = put_in.nonzero(as_tuple=True)
        box = (
            slice(None),
            slice(rows.min(), rows.max() + 1),
            slice(columns.min(), columns.max() + 1),
        )
        assert put_in[box[1:]].all()
        assert torch.equal(image[box], images[others[0]][box])
        boxes += 1
    assert boxes > 25


def test_cutmix_boxes_have_the_drawn_size_and_are_cut_at_the_border() -> None:
    labels = torch.arange(4000) % 2
    _, shares = cutmix(torch.zeros(4000, 1, 96, 96), torch.eye(2)[labels], 1.0, seeded())
    kept = shares[torch.arange(4000), labels]
    kept = kept[(kept < 1)]
    # A box of sides s with a uniform centre keeps s * (1 - s/4) of each side on average,
    # and s^2 is uniform: the mean of (s - s^2/4)^2 is 1/2 - 1/5 + 1/48.
    assert float(1 - kept.mean()) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.02)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_equal_pairs_in_one_batch_get_different_shares(mix: Mix) -> None:
    labels = torch.arange(64) % 2
    images = labels.view(-1, 1, 1, 1).float().repeat(1, 1, 48, 48)
    _, shares = mix(images, torch.eye(2)[labels], 1.0, seeded())
    assert len(shares[:, 0].unique()) > 20


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_follows_the_generator_and_leaves_its_input_alone(mix: Mix) -> None:
    images, targets = plain_images(16)
    before = images.clone(), targets.clone()
    first = mix(images, targets, 1.0, seeded(3))
    again = mix(images, targets, 1.0, seeded(3))
    other = mix(images, targets, 1.0, seeded(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_soft_targets_stay_probabilities(mix: Mix) -> None:
    targets = torch.rand(32, 7, generator=seeded()).softmax(1)
    _, shares = mix(torch.rand(32, 1, 9, 9), targets, 0.2, seeded())
    np.testing.assert_allclose(shares.sum(1).numpy(), 1, atol=1e-6)
    assert (shares >= 0).all()
