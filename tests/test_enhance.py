from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from mien.images import ENHANCEMENTS, enhance


def pictures(*shape: int) -> np.ndarray:
    """Smooth random pictures of moderate contrast."""
    noise = np.random.default_rng(0).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0)[: len(shape)])
    return np.clip(120 + smooth / smooth.std() * 15, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("step", ENHANCEMENTS)
@pytest.mark.parametrize("shape", [(3, 48, 48), (3, 40, 56, 3)])
def test_a_step_keeps_shape_and_type_and_leaves_its_input_alone(
    step: str, shape: tuple[int, ...]
) -> None:
    images = pictures(*shape)
    before = images.copy()
    enhanced = enhance(images, [step])
    assert enhanced.shape == shape
    assert enhanced.dtype == np.uint8
    assert not np.array_equal(enhanced, images)
    assert np.array_equal(images, before)


def test_no_steps_change_nothing() -> None:
    images = pictures(2, 48, 48)
    assert enhance(images, ()) is images


def test_clahe_widens_the_contrast() -> None:
    images = pictures(3, 48, 48)
    assert (enhance(images, ["clahe"]).std((1, 2)) > 1.5 * images.std((1, 2))).all()


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB values by its definition, scaled from 0..100 to 0..255."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance) * 2.55


def test_clahe_in_colour_equalises_the_lightness_alone() -> None:
    image = pictures(1, 48, 48, 3)[0]
    image[..., 0] += 60  # reddish, so that a confusion of red and blue shows
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4))
    expected = clahe.apply(np.rint(lightness(image)).astype(np.uint8))
    enhanced = enhance(image[None], ["clahe"])[0]
    inside_gamut = (enhanced > 5).all(-1) & (enhanced < 250).all(-1)
    assert inside_gamut.mean() > 0.5
    difference = np.abs(lightness(enhanced) - expected)[inside_gamut]
    assert np.median(difference) < 2
    assert np.percentile(difference, 95) < 10


def test_denoise_lowers_the_noise_and_keeps_the_edge() -> None:
    clean = np.full((1, 48, 48), 60, np.uint8)
    clean[:, :, 24:] = 180
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 8, clean.shape), 0, 255)
    noisy = noisy.astype(np.uint8)
    denoised = enhance(noisy, ["denoise"])
    assert (
        np.abs(denoised - clean.astype(float)).mean()
        < 0.6 * np.abs(noisy - clean.astype(float)).mean()
    )
    step = denoised[0, :, 24].astype(float) - denoised[0, :, 23]
    assert step.mean() > 110


@pytest.mark.parametrize("shape", [(2, 48, 48), (2, 48, 48, 3)])
def test_sharpen_is_an_unsharp_mask(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sigma = (0, 1, 1, 0)[: len(shape)]
    blurred = ndimage.gaussian_filter(images.astype(float), sigma, mode="mirror", truncate=3)
    expected = np.clip(images + 0.5 * (images - blurred), 0, 255)
    np.testing.assert_allclose(enhance(images, ["sharpen"]), expected, atol=1.5)


def test_steps_are_applied_in_the_order_given() -> None:
    images = pictures(2, 48, 48)
    both = enhance(images, ["clahe", "sharpen"])
    assert np.array_equal(both, enhance(enhance(images, ["clahe"]), ["sharpen"]))
    assert not np.array_equal(both, enhance(images, ["sharpen", "clahe"]))
