"""Teachers: finished runs whose answers another training learns from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mien.data.faceset import FaceSet
from mien.errors import RecipeError
from mien.images import Normalisation, resize
from mien.runs.recipe import Recipe
from mien.training.earlier import Earlier


@dataclass(frozen=True)
class Teacher:
    """A trained network in evaluation mode, and what it wants its images to be."""

    model: nn.Module
    size: int
    normalisation: Normalisation


def check_teachers(recipe: Recipe, train: FaceSet, validation: FaceSet | None) -> None:
    """Refuse teachers that do not fit the images, or may know the validation part's labels.

    See `Earlier.check`.

    Raises
    ------
    RecipeError
        for a run that is not finished, has other classes, channels or enhancement, or may have
        learned from the validation part.
    RunError
        for a folder that is no run.
    """
    for source in recipe.teacher:
        earlier = Earlier.named(source, "teacher")
        wanted = {
            "classes": (earlier.classes, train.classes),
            "channels": (earlier.channels, train.channels),
            "enhance": (earlier.recipe.enhance, recipe.enhance),
        }
        for what, (its, ours) in wanted.items():
            if its != ours:
                raise RecipeError(
                    f"teacher: {earlier.name} has other {what} ({its}) than this training "
                    f"({ours}); give one with the same"
                )
        earlier.check("teacher", train, validation)


def load_teachers(recipe: Recipe, device: torch.device) -> list[Teacher]:
    """The networks of the recipe's teachers.

    Raises
    ------
    RunError
        if one has no weights, or they are damaged.
    """
    teachers = []
    for source in recipe.teacher:
        earlier = Earlier.named(source, "teacher")
        model = earlier.network(str(device)).requires_grad_(False)
        if recipe.compile and device.type != "cpu":
            model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        teachers.append(Teacher(model, earlier.recipe.image_size, earlier.normalisation))
    return teachers


@torch.no_grad()
def answers(
    teachers: list[Teacher], images: torch.Tensor, normalisation: Normalisation, temperature: float
) -> torch.Tensor:
    """The teachers' mean probabilities at a temperature, float32 ``[N, C]``.

    Parameters
    ----------
    images : float ``[N, C, H, W]``, augmented as the student sees them, but not degraded
    normalisation : the student's, which is undone; each teacher has its own size and normalisation
    temperature : that logits are divided by
    """
    pixels = normalisation.invert(images)
    found = []
    for teacher in teachers:
        own = teacher.normalisation.apply(resize(pixels, teacher.size))
        logits = teacher.model(own.contiguous(memory_format=torch.channels_last))
        found.append((logits.float() / temperature).softmax(1))
    return torch.stack(found).mean(0)


def distillation(
    logits: torch.Tensor,
    answered: torch.Tensor,
    temperature: float,
    image_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over images of ``T^2 KL(answered || softmax(logits / T))``.

    With the square its gradients stay as large whatever the temperature (G. Hinton, O. Vinyals and
    J. Dean, Distilling the knowledge in a neural network, 2015, section 2).

    Parameters
    ----------
    logits : float ``[N, C]``, taken to float32
    answered : float ``[N, C]``, the probabilities of `answers` at the same temperature
    image_weights : float ``[N]``, or None
    """
    ours = F.log_softmax(logits.float() / temperature, 1)
    divergence = F.kl_div(ours, answered, reduction="none").sum(1) * temperature**2
    return divergence.mean() if image_weights is None else (divergence * image_weights).mean()
