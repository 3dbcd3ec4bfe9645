"""Worse pictures in training: blurred or noisy, as distance and cameras make them."""

from __future__ import annotations

import torch

BLUR = 0.045
"""Largest deviation of the Gaussian that blurs, as a share of the image's side."""

NOISE = 0.18
"""Largest deviation of the noise, as a share of white."""

FIELD = 512
"""Least side of the field of normal numbers that every image's noise is cut from."""


class Degrade:
    """Blurs some of the images of a batch and adds noise to some, each by its own amount.

    Of the images it chooses, half are blurred and half are made noisy, independently, by amounts
    between none and the largest. The noise is a window of one field of normal numbers that is drawn
    once, so that no device draws any itself and all see the same.

    Parameters
    ----------
    share : of the images that are chosen, 0 to 1
    side : the longest that images have, in pixels
    generator : a CPU generator, for the field
    """

    def __init__(
        self,
        share: float,
        side: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.share = share
        size = max(FIELD, 2 * side)
        self.field = torch.randn(size, size, generator=generator).to(device)

    @staticmethod
    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        """What decides about `count` images: uniform numbers, ``[5, count]``."""
        return torch.rand(5, count, generator=generator)

    def __call__(self, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Change each image as its column of `numbers` decides.

        Parameters
        ----------
        images : float ``[N, C, H, W]`` in [0, 1], not changed in place
        numbers : as `draw` gives them, on the same device

        Returns
        -------
        float ``[N, C, H, W]`` in [0, 1]
        """
        chosen, blur, noise, top, left = numbers
        blur, noise = ((2 * u - 1).clamp_min(0) * (chosen < self.share) for u in (blur, noise))
        height, width = images.shape[-2:]
        rows, columns = (_blurring(side, BLUR * side * blur) for side in (height, width))
        windows = self.field.unfold(0, height, 1).unfold(1, width, 1)
        top, left = (
            (u * places).long() for u, places in zip((top, left), windows.shape[:2], strict=True)
        )
        grain = windows[top, left].unsqueeze(1) * (NOISE * noise).view(-1, 1, 1, 1)
        return (rows @ images @ columns.mT + grain).clamp(0, 1)


def _blurring(side: int, deviation: torch.Tensor) -> torch.Tensor:
    """``[N, 1, side, side]``: by what lines of an image are multiplied to be blurred.

    Beyond the border there is nothing: the weights within are made to add up to 1. A deviation of 0
    is the identity.
    """
    place = torch.arange(side, device=deviation.device)
    apart = (place[:, None] - place).square()
    weights = torch.exp(-apart / (2 * deviation.square().clamp_min(1e-6)).view(-1, 1, 1, 1))
    return weights / weights.sum(-1, keepdim=True)
