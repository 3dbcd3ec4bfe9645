"""What the two networks of a GAN are trained for, and the gradient penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of logits of real and of generated images, ``[N]`` each, the i-th of one class, to a scalar."""


def minimax_discriminator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The paper's eq. 1 (Goodfellow et al., 2014, eq. 1) as a loss."""
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def minimax_generator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The non-saturating form: ``-log D(G(z))`` in place of ``log(1 - D(G(z)))``."""
    return F.softplus(-generated).mean()


def hinge_discriminator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The hinge loss (Lim & Ye, 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + generated).mean()


def hinge_generator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The generator's side of the hinge loss."""
    return -generated.mean()


def relativistic_discriminator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """A real image is to look more real than a generated one (Jolicoeur-Martineau, 2019).

    Images are told apart in pairs, so no mode of the real ones is without a pull (Sun et al., 2020;
    Huang et al., The GAN is dead; long live the GAN, 2024).
    """
    return F.softplus(generated - real).mean()


def relativistic_generator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The generator's side of the relativistic loss."""
    return F.softplus(real - generated).mean()


OBJECTIVES: dict[str, tuple[Loss, Loss]] = {
    "minimax": (minimax_discriminator, minimax_generator),
    "hinge": (hinge_discriminator, hinge_generator),
    "relativistic": (relativistic_discriminator, relativistic_generator),
}
"""Losses of discriminator and generator by name."""


def told_apart(
    objective: str, real: torch.Tensor, generated: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of real and of generated images taken for what they are; of pairs, where it is those.

    Logits ``[N]`` each to two scalars.
    """
    border = (generated, real) if objective == "relativistic" else (0, 0)
    return (real > border[0]).float().mean(), (generated < border[1]).float().mean()


def gradient_penalty(
    discriminator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Half the squared gradient of the logits with respect to images (Mescheder et al., 2018).

    R1 where these are real, R2 where they are generated.

    Parameters
    ----------
    images : ``[N, C, H, W]`` as the discriminator sees them, that is, augmented
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(
        discriminator(images, labels).sum(), images, create_graph=True
    )
    return gradient.square().sum((1, 2, 3)).mean() / 2
