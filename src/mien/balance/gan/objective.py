"""What the two networks of a GAN are trained for, and the gradient penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def minimax_discriminator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The paper's eq. 1 (Goodfellow et al., 2014, eq. 1) as a loss: logits ``[N]`` to a scalar."""
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def minimax_generator(generated: torch.Tensor) -> torch.Tensor:
    """The non-saturating form: ``-log D(G(z))`` in place of ``log(1 - D(G(z)))``."""
    return F.softplus(-generated).mean()


def hinge_discriminator(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The hinge loss (Lim & Ye, 2017): logits ``[N]`` to a scalar."""
    return F.relu(1 - real).mean() + F.relu(1 + generated).mean()


def hinge_generator(generated: torch.Tensor) -> torch.Tensor:
    """The generator's side of the hinge loss."""
    return -generated.mean()


OBJECTIVES: dict[str, tuple[Loss, Callable[[torch.Tensor], torch.Tensor]]] = {
    "minimax": (minimax_discriminator, minimax_generator),
    "hinge": (hinge_discriminator, hinge_generator),
}


def r1_penalty(
    discriminator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Half the squared gradient of the logits with respect to real images (Mescheder et al., 2018).

    Parameters
    ----------
    images : ``[N, C, H, W]`` as the discriminator sees them, that is, augmented
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(
        discriminator(images, labels).sum(), images, create_graph=True
    )
    return gradient.square().sum((1, 2, 3)).mean() / 2
