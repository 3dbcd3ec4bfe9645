"""What happens to a picture where a model is used: hidden parts, blur, noise, dark, turned, small.

Strengths are shares of the image's side wherever they are lengths, so that they mean the same for
every image size. In FER-2013's mean face (Training) the eyes lie at 0.37 of the height and the
mouth at 0.79; the bands that hide them are centred there, and are right for faces that are aligned
like it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mien.errors import DataError, unknown

STRENGTHS = (1, 2, 3, 4, 5)
EYES, MOUTH = 0.37, 0.79
"""Where they lie in an aligned face, as shares of its height from the top."""


@dataclass(frozen=True)
class Corruption:
    """A way in which pictures get worse.

    Attributes
    ----------
    title : what it is called in tables
    unit : what its strengths are measured in
    values : the value of each of `STRENGTHS`
    apply : from an image, a value and a generator to the worse image
    """

    title: str
    unit: str
    values: tuple[float, float, float, float, float]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def corrupt(images: np.ndarray, name: str, strength: int, seed: int = 0) -> np.ndarray:
    """Corrupt every image, each by itself.

    What is random (noise, the sense of a rotation) comes from the seed and the image's own pixels,
    so an image is corrupted alike in every batch and in every order. The five strengths of an image
    share their draw.

    Parameters
    ----------
    images : uint8 ``[N, S, S]`` or RGB ``[N, S, S, 3]``
    name : one of `CORRUPTIONS`
    strength : 1 (weak) to 5 (strong)
    seed : of what is random

    Returns
    -------
    uint8 array of the same shape

    Raises
    ------
    DataError
        for another name, strength, or kind of images.

    References
    ----------
    The scheme, kinds by five strengths, is that of D. Hendrycks and T. Dietterich, "Benchmarking
    neural network robustness to common corruptions and perturbations", ICLR 2019; the values here
    are Mien's own, for small grey faces.
    """
    if name not in CORRUPTIONS:
        raise DataError(unknown("corruption", name, CORRUPTIONS))
    if strength not in STRENGTHS:
        raise DataError(f"strength {strength} of '{name}': give 1 (weak) to 5 (strong)")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[1] != images.shape[2]:
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}; give uint8 [N, S, S] or [N, S, S, 3]"
        )
    kind = CORRUPTIONS[name]
    worse = np.empty_like(images)
    for place, image in zip(worse, images, strict=True):
        digest = hashlib.blake2b(name.encode() + image.tobytes(), digest_size=16).digest()
        rng = np.random.default_rng([seed, *np.frombuffer(digest, np.uint32)])
        place[...] = kind.apply(image, kind.values[strength - 1], rng)
    return worse


def _hide(centre: float) -> Callable[[np.ndarray, float, np.random.Generator], np.ndarray]:
    """A band from edge to edge, of the image's own mean: hidden, but no darker or brighter."""

    def apply(image: np.ndarray, height: float, _: np.random.Generator) -> np.ndarray:
        side = len(image)
        top, bottom = (round(side * (centre + end * height / 2)) for end in (-1, 1))
        hidden = image.copy()
        hidden[top:bottom] = np.rint(image.mean((0, 1)))
        return hidden

    return apply


def _blur(image: np.ndarray, sigma: float, _: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma * len(image), borderType=cv2.BORDER_REFLECT)


def _noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    noisy = image + 255 * deviation * rng.standard_normal(image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _darken(image: np.ndarray, stops: float, _: np.random.Generator) -> np.ndarray:
    """Less light by so many stops: in linear light (IEC 61966-2-1), and in 8 bits again."""
    code = np.arange(256) / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4) / 2**stops
    dark = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * dark).astype(np.uint8)[image]


def _rotate(image: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """To either side; what comes in from outside is mirrored, since black would be an edge."""
    side = len(image)
    turn = degrees if rng.random() < 0.5 else -degrees
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn, 1)
    return cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)


def _shrink(image: np.ndarray, share: float, _: np.random.Generator) -> np.ndarray:
    """As many pixels as a face further away has, enlarged again."""
    side = len(image)
    small = max(2, round(side * share))
    few = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(few, (side, side), interpolation=cv2.INTER_CUBIC)


_BAND = "height of the band, share of the side"
_BANDS = (0.10, 0.16, 0.22, 0.28, 0.34)

CORRUPTIONS: dict[str, Corruption] = {
    "eyes": Corruption("eyes hidden", _BAND, _BANDS, _hide(EYES)),
    "mouth": Corruption("mouth hidden", _BAND, _BANDS, _hide(MOUTH)),
    "blur": Corruption(
        "blur", "sigma of the Gaussian, share of the side", (0.01, 0.02, 0.03, 0.045, 0.06), _blur
    ),
    "noise": Corruption(
        "noise", "deviation, share of white", (0.04, 0.08, 0.12, 0.18, 0.26), _noise
    ),
    "dark": Corruption("low light", "stops less light", (1.0, 2.0, 3.0, 4.0, 5.0), _darken),
    "rotation": Corruption("rotation", "degrees", (5.0, 10.0, 20.0, 30.0, 45.0), _rotate),
    "resolution": Corruption(
        "low resolution", "pixels left, share of the side", (0.67, 0.5, 0.33, 0.25, 0.17), _shrink
    ),
}
"""The kinds of corruption by name, each with its five strengths."""
