"""What a training minimises: the loss of the labels, of what teachers say, and of the votes."""

from __future__ import annotations

import torch

from mien.balance import class_weights
from mien.data.faceset import FaceSet
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.training.batches import Batch
from mien.training.loss import Outputs, cross_entropy, log_prior, model_loss
from mien.training.teacher import answers, distillation, load_teachers
from mien.training.votes import parted


class Objective:
    """The loss of a recipe on the batches of its training images.

    Parameters
    ----------
    train : what is learned from, for the shares of its classes
    normalisation : that of the batches, which teachers have another one of
    """

    def __init__(
        self, recipe: Recipe, train: FaceSet, normalisation: Normalisation, device: torch.device
    ) -> None:
        self.recipe, self.normalisation = recipe, normalisation
        self.class_weights = None
        if recipe.class_weights != "none":
            weights = class_weights(train.labels, len(train.classes), recipe.class_weights)
            self.class_weights = torch.from_numpy(weights).to(device)
        self.adjustment = None
        if recipe.logit_adjustment:
            prior = log_prior(train.labels, len(train.classes)).to(device)
            self.adjustment = recipe.logit_adjustment * prior
        self.teachers = load_teachers(recipe, device)

    def answered(self, batch: Batch) -> torch.Tensor | None:
        """What the teachers say of a batch before it was degraded, ``[N, C]``; None without any."""
        if not self.teachers:
            return None
        images = batch.images if batch.clean is None else batch.clean
        return answers(self.teachers, images, self.normalisation, self.recipe.temperature)

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch,
        answered: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a model's outputs on a batch, and the logits of the labels among them."""
        recipe, of_votes = self.recipe, None
        if batch.votes is not None:
            outputs, of_votes = parted(outputs)
        loss, logits = model_loss(
            outputs,
            batch.targets,
            recipe.auxiliary,
            class_weights=self.class_weights,
            image_weights=batch.weights,
            label_smoothing=recipe.label_smoothing,
            adjustment=self.adjustment,
            kind=recipe.loss,
        )
        if answered is not None:
            taught = distillation(logits, answered, recipe.temperature, batch.weights)
            loss = (1 - recipe.distil) * loss + recipe.distil * taught
        if of_votes is not None and batch.votes is not None:
            voted = cross_entropy(of_votes, batch.votes, image_weights=batch.weights)
            loss = loss + recipe.auxiliary_votes * voted
        return loss, logits
