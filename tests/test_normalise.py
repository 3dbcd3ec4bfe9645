from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mien.errors import DataError, RecipeError
from mien.images import NORMALISATIONS, Normalisation, normalisation


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 256, shape, dtype=np.uint8)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    channels_last = torch.from_numpy(images.reshape(*images.shape[:3], -1))
    return channels_last.permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("shape", [(50, 12, 9), (50, 12, 9, 3)])
def test_data_set_statistics_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    images = pictures(*shape)
    images[..., 0] //= 2
    flat = images.reshape(-1, shape[3] if len(shape) == 4 else 1) / 255
    ours = normalisation("dataset", images)
    np.testing.assert_allclose(ours.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(ours.std, flat.std(0), rtol=1e-12)


def test_data_set_statistics_hold_over_more_pixels_than_are_counted_at_once() -> None:
    images = np.full((3000, 48, 48), 255, np.uint8)
    images[:1000] = 0
    ours = normalisation("dataset", images)
    np.testing.assert_allclose((ours.mean[0], ours.std[0]), (2 / 3, np.sqrt(2) / 3), rtol=1e-12)


@pytest.mark.parametrize("shape", [(50, 12, 9), (50, 12, 9, 3)])
def test_after_data_set_normalisation_each_channel_has_mean_0_and_deviation_1(
    shape: tuple[int, ...],
) -> None:
    images = pictures(*shape)
    normal = normalisation("dataset", images).apply(as_tensor(images)).numpy()
    np.testing.assert_allclose(normal.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 2, 3)), 1, atol=1e-5)


def test_unit_leaves_0_to_1_and_symmetric_gives_minus_1_to_1() -> None:
    images = pictures(4, 6, 6)
    black_to_white = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    assert torch.equal(normalisation("unit", images).apply(black_to_white), black_to_white)
    torch.testing.assert_close(
        normalisation("symmetric", images).apply(black_to_white), black_to_white * 2 - 1
    )


def test_imagenet_in_colour_is_that_of_torchvision() -> None:
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=8)
    ours = normalisation("imagenet", pictures(2, 8, 8, 3))
    assert (list(ours.mean), list(ours.std)) == (preset.mean, preset.std)


def test_imagenet_in_grey_takes_the_mean_of_the_channels() -> None:
    ours = normalisation("imagenet", pictures(2, 8, 8))
    np.testing.assert_allclose((ours.mean[0], ours.std[0]), (0.449, 0.226), atol=1e-9)


@pytest.mark.parametrize("kind", NORMALISATIONS)
@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 8, 3)])
def test_every_kind_can_be_inverted_and_survives_json(kind: str, shape: tuple[int, ...]) -> None:
    images = pictures(*shape)
    ours = normalisation(kind, images)
    again = Normalisation.from_dict(json.loads(json.dumps(ours.to_dict())))
    assert again == ours
    tensor = as_tensor(images)
    torch.testing.assert_close(again.invert(ours.apply(tensor)), tensor)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'imagnet'.*did you mean 'imagenet'"):
        normalisation("imagnet", pictures(2, 8, 8))


@pytest.mark.parametrize("images", [np.zeros((3, 8, 8), np.uint8), np.zeros((0, 8, 8), np.uint8)])
def test_images_without_statistics_are_an_error_and_not_infinite(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="dataset"):
        normalisation("dataset", images)


def test_colour_statistics_are_not_applied_to_grey_images() -> None:
    with pytest.raises(RecipeError, match="3 channels given images with 1"):
        normalisation("imagenet", pictures(2, 8, 8, 3)).apply(torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(
    "values", [{"mean": [0.5]}, {"mean": [0.5], "std": [0.0]}, {"mean": [0.5], "std": [1, 1]}]
)
def test_damaged_statistics_are_refused(values: dict[str, list[float]]) -> None:
    with pytest.raises(RecipeError, match="normalisation"):
        Normalisation.from_dict(values)
