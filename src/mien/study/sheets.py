"""The pictures of the data study: samples, an image at each step, feature maps (Figs. 1, 7-9)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.data.faceset import FaceSet
from mien.images import Augment, Normalisation, enhance, normalisation, resize
from mien.images.tensors import as_tensor
from mien.models.layers import hooked
from mien.runs.atomic import save_with
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import load_model
from mien.training.batches import prepared

SAMPLES = 8  # images per class on the sample sheet
STEPS = 5  # images that are followed through the steps
MAPS = 8  # feature maps shown per network


def sample_images(faces: FaceSet, k: int, seed: int = 0) -> np.ndarray:
    """Images of each class drawn at random, uint8 ``[C, k, H, W(, 3)]``; black where too few."""
    rng = np.random.default_rng(seed)
    sheet = np.zeros((len(faces.classes), k, *faces.images.shape[1:]), np.uint8)
    for label in range(len(faces.classes)):
        rows = rng.permutation(np.flatnonzero(faces.labels == label))[:k]
        sheet[label, : len(rows)] = faces.images[rows]
    return sheet


def image_steps(images: np.ndarray, size: int) -> list[tuple[str, np.ndarray]]:
    """What happens to images before a network sees them, each step under its title.

    Parameters
    ----------
    images : uint8 ``[n, H, W(, 3)]``
    size : side of the resized images in pixels
    """
    norm = normalisation("dataset", images)
    every = Augment(
        flip=0.5, shift=0.1, rotate=15, zoom=0.1, brightness=0.2, contrast=0.2, erase=0.5
    )
    pixels = as_tensor(images, "cpu").float() / 255
    augmented = every(pixels, torch.Generator().manual_seed(0))
    better = as_tensor(enhance(images, ("denoise", "clahe", "sharpen")), "cpu").float() / 255
    steps = {
        f"original, {images.shape[1]} pixels": pixels,
        f"resized with padding, {size} pixels": resize(pixels, size),
        "normalised": norm.apply(pixels),
        "enhanced": better,
        "augmented": augmented,
    }
    return [(title, step.mean(1).numpy()) for title, step in steps.items()]


@torch.inference_mode()
def feature_maps(run: Run, image: np.ndarray, maps: int = MAPS) -> np.ndarray:
    """What the first convolution of a trained network makes of one image, float32 ``[maps, h, w]``.

    The maps with the largest variance over the image, before any non-linearity.
    """
    model = load_model(run)
    # VGG19 lists its attention, which has a convolution of its own, before its features.
    first = next(
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and "attention" not in name.split(".")
    )
    caught: list[torch.Tensor] = []
    norm = Normalisation.from_dict(run.info["normalisation"])
    image = enhance(image[None], run.recipe.enhance)
    hook = first.register_forward_hook(lambda module, inputs, output: caught.append(output))
    with hooked([hook]):
        model(prepared(as_tensor(image, "cpu"), norm, run.recipe.image_size))
    found = caught[0][0].float().numpy()
    order = np.argsort(-found.var((1, 2)))[:maps]
    return found[order]


def write_sheets(
    path: Path,
    faces: FaceSet,
    recipe: Recipe,
    trained: Mapping[str, Run],
    others: Mapping[str, np.ndarray],
) -> None:
    """Write ``sheets.npz`` with the arrays that the figures with pictures are drawn from.

    Parameters
    ----------
    faces : the training images
    recipe : its image size is that of the resized step (224 where the networks read 48 pixels, so
        that the paper's step can be seen)
    trained : finished runs by key; those without weights (records) have no feature maps
    others : the pictures of a generator and of an explanation, by the names they are read by
    """
    samples = sample_images(faces, SAMPLES)
    followed = samples[:STEPS, 0]
    steps = image_steps(followed, recipe.image_size if recipe.image_size > faces.size else 224)
    arrays: dict[str, Any] = {"samples": samples}
    arrays["step_titles"] = np.array([title for title, _ in steps])
    for number, (_, images) in enumerate(steps):
        arrays[f"step_{number}"] = images.astype(np.float32)
    for key, run in trained.items():
        if run.weights_path.exists():
            arrays[f"features_{key}"] = feature_maps(run, followed[0])
    arrays |= others
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    save_with(path, lambda file: file.write(buffer.getvalue()))
