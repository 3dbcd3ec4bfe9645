"""Whether a map shows what the network goes by: deletion and insertion (Petsiuk et al. 2018).

A map says which pixels matter. If it is right, the probability falls fast when they are taken away
in its order, and rises fast when they come back. Maps that know nothing of the network do so too,
to a degree, as faces stand in the middle of their pictures: so each score stands beside those of a
random map and of the centre, and a map that does no better than these explains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mien.explanation.maps import Score

STEPS = 24
"""In how many parts the pixels are taken away or brought back."""

COARSE = 6
"""Places along a side of a random map. Lone pixels would disturb a network whatever they show."""

SEED = 0


@dataclass(frozen=True, eq=False)
class Scores:
    """Of a map of each face: `deletion` ``[N]``, the lower the better, `insertion` the higher.

    Both are means of a probability over the share of pixels taken away, or brought back.
    """

    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def together(self) -> np.ndarray:
        """Insertion minus deletion, ``[N]``: the higher the better."""
        return self.insertion - self.deletion

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """The scores of several sets of faces as one."""
        return cls(
            np.concatenate([part.deletion for part in parts]),
            np.concatenate([part.insertion for part in parts]),
        )


def scores(score: Score, pixels: torch.Tensor, maps: torch.Tensor, steps: int = STEPS) -> Scores:
    """Deletion and insertion of maps ``[N, H, W]`` of pixels ``[N, C, H, W]``."""
    found = (deletion(score, pixels, maps, steps), insertion(score, pixels, maps, steps))
    return Scores(*(value.cpu().numpy() for value in found))


def gain(method: Scores, baseline: Scores) -> list[float | None]:
    """What a method's insertion minus deletion is above a baseline's: mean, low and high.

    The interval is Student's for the paired differences of the faces, 95 %; one face has none.
    """
    from scipy.stats import t

    difference = (method.together - baseline.together).astype(np.float64)
    n, mean = len(difference), float(difference.mean())
    if n < 2:
        return [mean, None, None]
    half = float(t.ppf(0.975, n - 1) * difference.std(ddof=1) / n**0.5)
    return [mean, mean - half, mean + half]


def deletion(
    score: Score, pixels: torch.Tensor, maps: torch.Tensor, steps: int = STEPS
) -> torch.Tensor:
    """Area under the score, ``[N]``, as pixels become their image's mean, the best first."""
    return area(curve(score, pixels, pixels.mean((2, 3), keepdim=True), maps, steps))


def insertion(
    score: Score, pixels: torch.Tensor, maps: torch.Tensor, steps: int = STEPS
) -> torch.Tensor:
    """Area under the score, ``[N]``, as pixels come back into a blurred image, in the same order.

    The image is blurred and not empty, so that no sharp edges are brought in with the first ones.
    """
    return area(curve(score, blurred(pixels), pixels, maps, steps))


def curve(
    score: Score, start: torch.Tensor, end: torch.Tensor, maps: torch.Tensor, steps: int
) -> torch.Tensor:
    """The score, ``[N, steps + 1]``, as pixels of `start` are replaced by those of `end`.

    They go in the order of `maps` ``[N, H, W]``, the largest first; equal ones in a random order,
    for a map that is 0 over half the image must not go on from the top left.
    """
    n, _, height, width = start.shape
    flat = maps.reshape(n, -1)
    pixels = flat.shape[1]
    shuffled = torch.randperm(pixels, generator=torch.Generator().manual_seed(SEED)).to(flat.device)
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    place = order.argsort(1)
    found = []
    for step in range(steps + 1):
        replaced = place < round(step * pixels / steps)
        found.append(score(torch.where(replaced.view(n, 1, height, width), end, start)))
    return torch.stack(found, 1)


def area(curve: torch.Tensor) -> torch.Tensor:
    """Area under curves ``[N, steps + 1]`` over 0 to 1, by trapezoids: ``[N]``."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def blurred(pixels: torch.Tensor) -> torch.Tensor:
    """The pixels through a Gaussian an eighth of a side wide: a face, but not whose or how."""
    from torchvision.transforms.v2.functional import gaussian_blur

    sigma = min(pixels.shape[2:]) / 8
    return gaussian_blur(pixels, [2 * int(2 * sigma) + 1] * 2, [sigma])


def random_maps(n: int, size: tuple[int, int], seed: int = SEED) -> torch.Tensor:
    """Maps that know nothing: smooth noise, ``[n, H, W]`` in [0, 1)."""
    noise = torch.rand(n, 1, COARSE, COARSE, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size, mode="bilinear", align_corners=False)[:, 0]


def centre_maps(n: int, size: tuple[int, int]) -> torch.Tensor:
    """Maps that know where faces stand: a Gaussian a quarter of a side wide, ``[n, H, W]``."""
    along = [((torch.arange(side) + 0.5) / side - 0.5) * 4 for side in size]
    one = torch.exp(-(along[0][:, None] ** 2 + along[1] ** 2) / 2)
    return one.expand(n, -1, -1)
