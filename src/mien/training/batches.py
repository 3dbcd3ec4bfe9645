"""The training images as one tensor on the device, and the batches taken from it.

A face of 48x48 grey pixels is 2,304 bytes, so a data set of tens of thousands is a tensor, and a
loader is an index into it: no files, no worker processes, no copies. The images of a store are a
tensor too, mapped from their file, of which only the batches come to the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mien.balance.oversample import balanced_order
from mien.data.faceset import FaceSet
from mien.images import Augment, Degrade, Normalisation, cutmix, mixup, resize
from mien.images.augment import change, draw
from mien.images.tensors import as_float, as_tensor, brought
from mien.runs.recipe import Recipe
from mien.runs.seed import random_seed
from mien.training.share import WHOLE, Share

GROWING = 0.7
"""Share of the epochs whose images are smaller than the last, where a recipe has a start_size."""


def prepared(images: torch.Tensor, normalisation: Normalisation, size: int) -> torch.Tensor:
    """uint8 ``[N, C, H, W]`` as what a model reads: resized, normalised, channels last."""
    pixels = resize(as_float(images), size)
    return normalisation.apply(pixels).contiguous(memory_format=torch.channels_last)


def target_probabilities(faces: FaceSet, votes: float) -> np.ndarray:
    """What is learned, float32 ``[N, C]``: the label, and a share of `votes` where it has any."""
    targets = np.eye(len(faces.classes), dtype=np.float32)[faces.labels]
    if votes and faces.soft is not None:
        known = np.isfinite(faces.soft).all(1)
        targets[known] = votes * faces.soft[known] + (1 - votes) * targets[known]
    return targets


def side_of(recipe: Recipe, epoch: int) -> int:
    """Pixels of a side of the images of `epoch`, counted from 0.

    They grow from ``start_size`` to ``image_size`` in steps of the stride; the sizes below
    ``image_size`` share the first `GROWING` of the epochs equally, and the last has ``image_size``.
    What is coarse is learned from small images at a fraction of the cost: progressive resizing
    (Howard, DAWNBench 2018).
    """
    if epoch >= recipe.epochs - 1:
        return recipe.image_size
    smaller = range(recipe.start_size or recipe.image_size, recipe.image_size, recipe.stride)
    place = math.floor(epoch / (GROWING * recipe.epochs) * len(smaller))
    return smaller[place] if place < len(smaller) else recipe.image_size


@dataclass
class Batch:
    """A batch, or this process's part of it.

    Attributes
    ----------
    images : float ``[B, channels, H, W]``
    targets : float ``[B, C]``
    weights : float ``[B]``, or None
    votes : float ``[B, C]``, rows of zeros where there are none; None if they are not learned
        beside the targets
    clean : float ``[B, channels, H, W]``, the images before they were degraded, for teachers; None
        where none were, or there are no teachers
    """

    images: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None
    votes: torch.Tensor | None = None
    clean: torch.Tensor | None = None


class Batches:
    """A training set on the device that gives each epoch its shuffled, augmented batches.

    What an epoch sees depends on the recipe's seed and the epoch's number alone, so a training that
    goes on after an interruption sees what it would have seen. The images left over when the set
    does not divide into batches differ from epoch to epoch. Oversampled, an epoch is as long as
    ever, and an image that comes again is augmented afresh.

    Of each batch it gives the part of `share`; what is drawn for an image does not depend on it.
    """

    def __init__(
        self,
        faces: FaceSet,
        recipe: Recipe,
        normalisation: Normalisation,
        device: torch.device,
        share: Share = WHOLE,
    ) -> None:
        self.recipe, self.normalisation, self.device = recipe, normalisation, device
        self.share = share
        self.images = as_tensor(faces.images, device)
        votes = recipe.vote_share if recipe.soft_labels else 0.0
        self.targets = torch.from_numpy(target_probabilities(faces, votes)).to(device)
        self.votes = None
        if recipe.auxiliary_votes and faces.soft is not None:
            self.votes = torch.from_numpy(np.nan_to_num(faces.soft, nan=0.0)).to(device)
        self.labels = torch.tensor(faces.labels)
        self.weights = None
        if faces.weights is not None:
            weights = faces.weights / faces.weights.mean()
            self.weights = torch.from_numpy(weights.astype(np.float32)).to(device)
        # Two dozen small kernels become a few; a CPU compiles attention alone (`loop.compiled`).
        fused = recipe.compile and device.type != "cpu"
        self.change = torch.compile(change, dynamic=False) if fused else change
        self.degrade = None
        if recipe.degrade:
            field = torch.Generator().manual_seed(random_seed(recipe.seed, "noise"))
            self.degrade = Degrade(recipe.degrade, recipe.image_size, field, device)
        self.size = min(recipe.batch_size, len(faces))
        self.steps = len(faces) // self.size
        self.settings = Augment.of(recipe)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        generator, quality = (
            torch.Generator().manual_seed(random_seed(self.recipe.seed, use, epoch))
            for use in ("epoch", "quality")
        )
        if self.recipe.oversample:
            order = balanced_order(self.labels, self.targets.shape[1], generator)
        else:
            order = torch.randperm(len(self.images), generator=generator)
        # Images of a store lie on the CPU, and an index that had to come back would stop the loop.
        of_images, of_targets = order.to(self.images.device), order.to(self.device)
        side = side_of(self.recipe, epoch)
        for step in range(self.steps):
            chosen = slice(step * self.size, (step + 1) * self.size)
            yield self._batch(of_images[chosen], of_targets[chosen], side, generator, quality)

    def _batch(
        self,
        of_images: torch.Tensor,
        of_targets: torch.Tensor,
        side: int,
        generator: torch.Generator,
        quality: torch.Generator,
    ) -> Batch:
        recipe, share = self.recipe, self.share.of(self.size)
        numbers = draw(self.size, generator)
        # Images are mixed with any others of the batch, so that it must be whole until then.
        mixed = recipe.mixup or recipe.cutmix
        early, late = (slice(None), share) if mixed else (share, slice(None))
        pixels = as_float(brought(self.images[of_images[early]], self.device))
        numbers = brought(numbers[:, early], self.device)
        pixels = self.change(pixels, self.settings, numbers)
        pixels, targets = resize(pixels, side), self.targets[of_targets[early]]
        if self.votes is not None:  # which are mixed as the targets are
            targets = torch.cat((targets, self.votes[of_targets[early]]), 1)
        weights = None if self.weights is None else self.weights[of_targets[early]]
        if mixed and weights is not None:  # each image counts in a mixture by its own weight
            targets = torch.cat((weights[:, None] * targets, weights[:, None]), 1)
        # Where both are asked for, a coin decides which of the two a batch gets.
        either = recipe.mixup and recipe.cutmix and float(torch.rand((), generator=generator)) < 0.5
        if recipe.mixup and (not recipe.cutmix or either):
            pixels, targets = mixup(pixels, targets, recipe.mixup, generator)
        elif recipe.cutmix:
            pixels, targets = cutmix(pixels, targets, recipe.cutmix, generator)
        if mixed and weights is not None:
            targets, weights = targets[:, :-1], targets[:, -1]
            targets = targets / weights.clamp_min(1e-12)[:, None]
        weights = None if weights is None else weights[late]
        pixels, targets, votes, clean = pixels[late], targets[late], None, None
        if self.degrade is not None:
            clean = self._finished(pixels) if recipe.teacher else None
            amounts = self.degrade.draw(self.size, quality)[:, share]
            pixels = self.degrade(pixels, brought(amounts, self.device))
        if self.votes is not None:
            targets, votes = targets.chunk(2, 1)
        return Batch(self._finished(pixels), targets, weights, votes, clean)

    def _finished(self, pixels: torch.Tensor) -> torch.Tensor:
        """As a network reads them."""
        return self.normalisation.apply(pixels).contiguous(memory_format=torch.channels_last)
