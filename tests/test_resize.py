from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.errors import RecipeError
from mien.images import resize
from mien.pixels import letterbox


def noise(height: int, width: int, channels: int = 1, n: int = 2) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_images_of_the_right_size_are_returned_as_they_are() -> None:
    images = noise(48, 48)
    assert resize(images, 48) is images


@pytest.mark.parametrize("size", [49, 64, 75, 224, 299, 320])
def test_enlarging_is_bilinear_as_in_opencv(size: int) -> None:
    images = noise(48, 48)
    expected = [
        cv2.resize(i, (size, size), interpolation=cv2.INTER_LINEAR) for i in images[:, 0].numpy()
    ]
    np.testing.assert_allclose(resize(images, size)[:, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("size", [24, 48, 100])
def test_shrinking_is_antialiased_as_in_pillow(size: int) -> None:
    images = noise(224, 224)
    expected = [
        np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
        for image in images[:, 0].numpy()
    ]
    np.testing.assert_allclose(resize(images, size)[:, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(30, 60), (60, 31), (200, 77), (5, 300), (47, 48)])
@pytest.mark.parametrize("size", [48, 65])
def test_the_padding_is_where_letterbox_puts_it(height: int, width: int, size: int) -> None:
    white = letterbox(np.full((height, width, 3), 255, np.uint8), size)
    ours = resize(torch.ones(1, 3, height, width), size)[0].permute(1, 2, 0)
    np.testing.assert_allclose(ours.numpy(), white / 255, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 90), st.integers(2, 90), st.integers(1, 120), st.sampled_from([1, 3]))
def test_any_shape_becomes_a_square_with_values_in_range(
    height: int, width: int, size: int, channels: int
) -> None:
    resized = resize(noise(height, width, channels), size)
    assert resized.shape == (2, channels, size, size)
    assert resized.dtype == torch.float32
    assert resized.min() >= 0
    assert resized.max() <= 1 + 1e-6


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(RecipeError, match="image size of 0"):
        resize(noise(8, 8), 0)
