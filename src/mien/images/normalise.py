"""Normalisation: the affine map from [0, 1] to the range a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from mien.errors import DataError, RecipeError, unknown
from mien.runs.recipe import CHOICES

NORMALISATIONS = CHOICES["normalise"]
"""The kinds that `normalisation` knows."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# cv2.calcHist, 40 times as fast as np.bincount, counts in float32: up to 2**24 of a kind exactly.
_PIXELS_COUNTED_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Normalisation:
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Attributes
    ----------
    mean, std : one value per channel, for images in [0, 1]
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise RecipeError(
                f"normalisation: {len(self.mean)} means and {len(self.std)} standard deviations; "
                "give one of each per channel"
            )
        if (
            not np.isfinite(self.mean).all()
            or not np.isfinite(self.std).all()
            or min(self.std) <= 0
        ):
            raise RecipeError(
                f"normalisation: mean {self.mean} and std {self.std} must be finite and std above 0"
            )

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, C, H, W]`` in [0, 1] to ``(images - mean) / std``."""
        return (images - self._for(images, self.mean)) * self._for(
            images, tuple(1 / s for s in self.std)
        )

    def invert(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images ``[N, C, H, W]`` back to [0, 1]."""
        return images * self._for(images, self.std) + self._for(images, self.mean)

    def to_dict(self) -> dict[str, list[float]]:
        """The two statistics as lists, for JSON or TOML."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> Normalisation:
        """The inverse of `to_dict`."""
        try:
            mean, std = values["mean"], values["std"]
        except KeyError as missing:
            raise RecipeError(f"normalisation: {missing} is missing; give mean and std") from None
        return cls(tuple(map(float, mean)), tuple(map(float, std)))

    def _for(self, images: torch.Tensor, values: tuple[float, ...]) -> torch.Tensor | float:
        if images.shape[1] != len(values):
            raise RecipeError(
                f"normalisation for {len(values)} channels given images with {images.shape[1]}"
            )
        # A Python number costs no transfer to the accelerator, and grey is the usual case.
        if len(values) == 1:
            return values[0]
        # What is traced makes its own: a tensor of the tracing must not be kept for others.
        there = _of_channels if torch.compiler.is_compiling() else _there
        return there(values, images.dtype, images.device)


def _of_channels(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A number a channel, ``[1, C, 1, 1]``."""
    return torch.tensor(values, dtype=dtype).view(1, -1, 1, 1).to(device)


@lru_cache(maxsize=64)
def _there(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`_of_channels`, brought to the device once, for that waits for the device."""
    with torch.inference_mode(False):
        return _of_channels(values, dtype, device)


def normalisation(kind: str, images: np.ndarray) -> Normalisation:
    """Build the normalisation called `kind` for images like these.

    Parameters
    ----------
    kind : ``"unit"`` leaves [0, 1]; ``"symmetric"`` gives [-1, 1]; ``"dataset"`` gives the given
        images mean 0 and standard deviation 1 in each channel; ``"imagenet"`` subtracts and divides
        by the statistics of ImageNet's channels. Grey images take the mean of its three means and
        of its three standard deviations, which is what weights of a first layer summed over its
        colours expect up to the small differences between the channels.
    images : uint8 ``[N, H, W]`` or ``[N, H, W, 3]``. For ``"dataset"`` the training images, and
        only those: anything else lets the evaluation into the model.

    Raises
    ------
    RecipeError
        If `kind` is unknown.
    DataError
        If the statistics of the images do not exist: no images, or a channel that never varies.
    """
    channels = 1 if images.ndim == 3 else images.shape[3]
    if kind == "unit":
        return Normalisation((0.0,) * channels, (1.0,) * channels)
    if kind == "symmetric":
        return Normalisation((0.5,) * channels, (0.5,) * channels)
    if kind == "imagenet":
        if channels == 1:
            return Normalisation((sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,))
        return Normalisation(IMAGENET_MEAN, IMAGENET_STD)
    if kind == "dataset":
        return _statistics(images.reshape(*images.shape[:3], channels))
    raise RecipeError(unknown("normalisation", kind, NORMALISATIONS))


def _statistics(images: np.ndarray) -> Normalisation:
    """Mean and standard deviation of uint8 ``[N, H, W, C]``, exact because counted in integers."""
    if not images.size:
        raise DataError("normalisation 'dataset' needs training images, and there are none")
    values = np.arange(256)
    step = max(1, _PIXELS_COUNTED_AT_ONCE // images[0].size)
    means, stds = [], []
    for channel in range(images.shape[3]):
        histogram = np.zeros(256, np.int64)
        for start in range(0, len(images), step):
            part = images[start : start + step, ..., channel].reshape(1, -1)
            counts = cv2.calcHist([part], [0], None, [256], [0, 256])
            histogram += counts.ravel().astype(np.int64)
        count = int(histogram.sum())
        total = int(histogram @ values)
        # Python integers: n * sum of squares passes 2^63 from some 10^7 pixels on.
        variance = (count * int(histogram @ values**2) - total**2) / count**2
        if variance == 0:
            raise DataError(
                f"normalisation 'dataset': every pixel of channel {channel} has the same value; "
                "check the images, or choose 'symmetric'"
            )
        means.append(total / count / 255)
        stds.append(variance**0.5 / 255)
    return Normalisation(tuple(means), tuple(stds))
