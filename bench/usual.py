"""The usual way to feed a training: JPEGs in folders, PIL transforms, a DataLoader."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler

from mien.data import FaceSet
from mien.images import Normalisation
from mien.runs.recipe import Recipe

PREFETCH = 2
"""Batches that a worker is ahead: the DataLoader's default."""

Step = Callable[[torch.Tensor, torch.Tensor], None]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time that `work` takes, to the end of what it has set going on the device."""
    if device.type != "cuda":
        began = perf_counter()
        work()
        return perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def write_jpegs(faces: FaceSet, folder: Path) -> None:
    """Write faces as ``<class>/<number>.jpg``, the form in which such data sets are handed on."""
    for name in faces.classes:
        (folder / name).mkdir()
    for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        Image.fromarray(image).save(folder / faces.classes[label] / f"{number}.jpg", quality=90)


class UsualWay:
    """Batches of a folder of JPEGs by torchvision and a DataLoader that never runs dry.

    An epoch is longer than what is timed of it: its first batches fill the queues of the workers
    and its last ones are read ahead while the clock runs, so that the workers have as much to do
    per timed batch as in the middle of a long epoch, and nothing once it is over.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        channels: int,
        statistics: Normalisation,
        steps: int,
        workers: int,
        device: torch.device,
    ) -> None:
        from torchvision import datasets, transforms

        # In the order of `Batches`: changed at the faces' own size, then resized.
        changes = transforms.Compose(
            [
                *([transforms.Grayscale()] if channels == 1 else []),
                transforms.RandomHorizontalFlip(recipe.flip),
                transforms.RandomAffine(
                    recipe.rotate,
                    translate=(recipe.shift, recipe.shift),
                    scale=(1 / (1 + recipe.zoom), 1 + recipe.zoom),
                    interpolation=transforms.InterpolationMode.BILINEAR,
                ),
                transforms.ColorJitter(brightness=recipe.brightness, contrast=recipe.contrast),
                transforms.Resize(recipe.image_size),
                transforms.ToTensor(),
                transforms.RandomErasing(recipe.erase, scale=(0.02, 0.2), value="random"),
                transforms.Normalize(statistics.mean, statistics.std),
            ]
        )
        images = datasets.ImageFolder(str(folder), changes)
        self.classes, self.device, self.steps = len(images.classes), device, steps
        self.ahead = workers * PREFETCH
        drawn = (steps + 2 * self.ahead) * recipe.batch_size
        self.loader = DataLoader(
            images,
            recipe.batch_size,
            sampler=RandomSampler(images, replacement=True, num_samples=drawn),
            num_workers=workers,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )

    def rate(self, step: Step) -> float:
        """Images per second with `step` done on every batch."""
        batches = iter(self.loader)

        def go(number: int) -> None:
            for images, labels in islice(batches, number):
                images = images.to(self.device, non_blocking=True)
                targets = F.one_hot(labels.to(self.device, non_blocking=True), self.classes)
                step(images.contiguous(memory_format=torch.channels_last), targets.float())

        go(self.ahead)
        passed = seconds(lambda: go(self.steps), self.device)
        for _ in batches:
            pass
        return self.steps * (self.loader.batch_size or 1) / passed
