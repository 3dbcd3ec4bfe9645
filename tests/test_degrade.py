from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from mien.images import Degrade
from mien.images.degrade import BLUR, NOISE


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def faces(n: int = 6, height: int = 40, width: int = 30) -> torch.Tensor:
    return torch.rand(n, 1, height, width, generator=seeded(1))


def numbers(n: int, blur: float = 0.0, noise: float = 0.0) -> torch.Tensor:
    """Of images that are all chosen: shares of the largest amounts."""
    drawn = torch.zeros(5, n)
    drawn[1], drawn[2] = (1 + blur) / 2, (1 + noise) / 2
    drawn[3:] = torch.rand(2, n, generator=seeded(2))
    return drawn


def test_an_image_is_blurred_as_scipy_blurs_it() -> None:
    images = faces()
    found = Degrade(1.0, 48, seeded())(images, numbers(len(images), blur=0.8))
    for image, blurred in zip(images[:, 0].numpy(), found[:, 0].numpy(), strict=True):
        sigma = [0.8 * BLUR * side for side in image.shape]
        within = ndimage.gaussian_filter(np.ones(image.shape), sigma, mode="constant", truncate=8)
        expected = ndimage.gaussian_filter(image, sigma, mode="constant", truncate=8) / within
        np.testing.assert_allclose(blurred, expected, atol=2e-3)  # SciPy's sums are cut off


def test_noise_has_the_deviation_asked_for_and_is_another_in_each_image() -> None:
    grey = torch.full((8, 3, 48, 48), 0.5)
    noise = Degrade(1.0, 48, seeded())(grey, numbers(8, noise=0.4)) - 0.5
    np.testing.assert_allclose(noise[:, 0].std((1, 2)), 0.4 * NOISE, rtol=0.06)
    assert abs(float(noise.mean())) < 0.003
    flat = noise[:, 0].flatten(1)
    alike = torch.corrcoef(flat) - torch.eye(8)
    assert float(alike.abs().max()) < 0.1


def test_half_of_the_chosen_are_blurred_half_noisy_and_the_others_are_as_they_were() -> None:
    images = faces(2000, 16, 16)
    degrade = Degrade(0.6, 48, seeded())
    drawn = degrade.draw(2000, seeded(3))
    found = degrade(images, drawn)
    same = (found - images).abs().amax((1, 2, 3)) < 1e-6
    chosen, above_half = drawn[0] < 0.6, drawn[1:3] > 0.5
    assert same[~chosen | ~above_half.any(0)].all()
    assert not same[chosen & (drawn[1:3] > 0.7).any(0)].any()
    torch.testing.assert_close(Degrade(0.0, 48, seeded())(images, drawn), images)


def test_what_happens_to_an_image_depends_on_its_own_numbers_alone() -> None:
    images, degrade = faces(7), Degrade(1.0, 48, seeded())
    drawn = degrade.draw(7, seeded(4))
    whole = degrade(images, drawn)
    torch.testing.assert_close(degrade(images[2:5], drawn[:, 2:5]), whole[2:5])


def test_images_stay_between_black_and_white_and_are_not_changed_in_place() -> None:
    images = faces()
    before = images.clone()
    found = Degrade(1.0, 48, seeded())(images, numbers(len(images), blur=1.0, noise=1.0))
    assert float(found.min()) == 0.0
    assert float(found.max()) == 1.0
    assert torch.equal(images, before)


def test_images_may_be_larger_than_the_field() -> None:
    images = torch.full((1, 1, 600, 600), 0.5)
    noise = Degrade(1.0, 600, seeded())(images, numbers(1, noise=0.5)) - 0.5
    assert float(noise.std()) == pytest.approx(0.5 * NOISE, rel=0.02)
