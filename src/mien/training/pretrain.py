"""Pretraining without labels: two views of a face should look more alike than those of others."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mien.data.faceset import FaceSet
from mien.errors import DataError, RecipeError, RunError
from mien.images import enhance, normalisation, resize
from mien.images.augment import change, draw
from mien.images.tensors import as_float, brought
from mien.runs.atomic import write_bytes
from mien.runs.checkpoint import Stateful, load_checkpoint, save_checkpoint
from mien.runs.environment import choose_device, within_memory
from mien.runs.folder import noted
from mien.runs.lock import locked
from mien.runs.progress import TrainingProgress
from mien.runs.recipe import Recipe
from mien.runs.run import run_name
from mien.runs.seed import random_seed
from mien.training.batches import Batches
from mien.training.earlier import begin, beginning, noted_in
from mien.training.optimiser import create_optimiser
from mien.training.parts import refuse_test
from mien.training.predict import build_model
from mien.training.schedule import learning_rate

TEMPERATURE = 0.5
"""What cosine similarities are divided by; Chen et al.'s for small images."""

PROJECTED = 128
"""Length of the vectors that are compared, as in Chen et al."""


def nt_xent(vectors: torch.Tensor) -> torch.Tensor:
    """Mean over views of ``-log softmax`` of the similarity to the other view of the same image.

    The normalised, temperature-scaled cross-entropy of T. Chen et al., A simple framework for
    contrastive learning of visual representations (SimCLR), ICML 2020, eq. 1.

    Parameters
    ----------
    vectors : float ``[2N, D]``, the first views of N images and then the second ones
    """
    unit = F.normalize(vectors.float(), dim=1)
    similar = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-math.inf)
    other = torch.arange(len(vectors), device=vectors.device).roll(len(vectors) // 2)
    return F.cross_entropy(similar, other)


def pretrain(
    recipe: Recipe,
    faces: FaceSet,
    out: Path | str,
    *,
    epochs: int,
    device: str | None = None,
    progress: str = "live",
) -> Path:
    """Train the recipe's network to tell faces apart, and leave its weights in a file.

    ``weights = OUT`` in the same recipe then begins from them; the classifier in the file is a
    fresh one. A training that was stopped goes on from its last epoch, and one that is done is not
    done again. The network, optimiser, schedule, batch, augmentation (drawn twice), normalisation,
    enhancement, precision and seed are the recipe's.

    Parameters
    ----------
    faces : images to learn from; their labels are not looked at. The larger the batch, the more
        faces each is told apart from
    out : the safetensors file to write
    epochs : how many, in place of the recipe's

    Raises
    ------
    DataError
        for a final test split, or fewer than two faces, also in a batch.
    RecipeError
        if it would begin from what learned from labels or other images, since the file could not
        say so.
    RunError
        if `out` holds something else or cannot be written, or the loss is not finite.
    """
    from safetensors.torch import save

    refuse_test(faces, "pretraining")
    if min(len(faces), recipe.batch_size) < 2:
        raise DataError(f"{faces.name}: one face cannot be told apart from others; give more")
    known = noted_in(recipe.weights)
    own = known.get("alone") is True and known.get("fingerprint") == faces.fingerprint
    earlier = beginning(recipe)
    if earlier is not None or (known and not own):
        name = recipe.weights if earlier is None else earlier.name
        raise RecipeError(
            f"weights: {name} has learned from labels or from other images, and the file that "
            "pretraining leaves does not say from which; pretrain from none, or begin a training "
            "from it"
        )
    recipe, out = recipe.but(epochs=epochs), Path(out)
    key = run_name(recipe, faces, None)
    if out.exists():
        if noted_in(str(out)).get("pretraining") == key:
            return out
        raise RunError(f"{out}: holds something else; give another file, or remove it")
    folder = out.with_name(f"{out.stem}-{key}")  # of the checkpoint, while it is not finished
    with locked(folder), within_memory(folder):
        try:
            checkpoint = folder / "checkpoint.pt"
            model = _trained(recipe, faces, checkpoint, choose_device(device), progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; finished epochs are kept in {folder}: the same command goes on from "
                "there"
            ) from None
        state = {name: t.detach().contiguous().cpu() for name, t in model.state_dict().items()}
        says = noted(faces) | {"sketch": faces.sketch, "pretraining": key}
        if own or recipe.weights in ("none", "imagenet"):  # of another's file it is not known
            says["alone"] = True
        # One key: several stand in any order, and equal weights are to be equal files.
        write_bytes(out, save(state, {"trained_on": json.dumps(says)}))
    shutil.rmtree(folder)
    return out


def two_views(batches: Batches, epoch: int) -> Iterator[torch.Tensor]:
    """The batches of an epoch, each image augmented twice: ``[2N, C, H, W]``, the second ones last.

    What an epoch sees depends on the recipe's seed and the epoch's number alone.
    """
    recipe, size = batches.recipe, batches.size
    generator = torch.Generator().manual_seed(random_seed(recipe.seed, "views", epoch))
    order = torch.randperm(len(batches.images), generator=generator).to(batches.images.device)
    for step in range(batches.steps):
        chosen = brought(batches.images[order[step * size : (step + 1) * size]], batches.device)
        pixels = as_float(chosen).repeat(2, 1, 1, 1)
        numbers = brought(draw(2 * size, generator), pixels.device)
        pixels = change(pixels, batches.settings, numbers)
        pixels = batches.normalisation.apply(resize(pixels, recipe.image_size))
        yield pixels.contiguous(memory_format=torch.channels_last)


def _trained(
    recipe: Recipe, faces: FaceSet, checkpoint: Path, device: torch.device, show: str
) -> nn.Module:
    """The network after its epochs, those of the checkpoint among them."""
    torch.manual_seed(random_seed(recipe.seed, "weights"))
    model = build_model(recipe, len(faces.classes), faces.channels)
    begin(model, recipe, faces.classes)
    images = enhance(faces.images, recipe.enhance)
    scale = normalisation(recipe.normalise, images)
    batches = Batches(replace(faces, images=images), recipe, scale, device)
    both = nn.ModuleDict({"backbone": model, "projection": _projection(model, batches)})
    both.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = create_optimiser(both, recipe)
    parts: dict[str, Stateful | None] = {"networks": both, "optimiser": optimiser}
    log = load_checkpoint(checkpoint, parts) if checkpoint.exists() else []
    title = f"{recipe.title}, no labels"
    with TrainingProgress(title, recipe.epochs, batches.steps, len(log), show) as shown:
        for epoch in range(len(log), recipe.epochs):
            began = time.perf_counter()
            loss = _epoch(both, optimiser, batches, epoch, shown)
            seconds = time.perf_counter() - began
            if not math.isfinite(loss):
                kept = "; the epochs before are kept" if log else ""
                raise RunError(
                    f"{checkpoint.parent}: the loss is {loss} in epoch {epoch + 1}{kept}. Try a "
                    "lower lr"
                )
            row = {
                "epoch": epoch + 1,
                "loss": loss,
                "seconds": round(seconds, 3),
                "images_per_second": round(batches.steps * batches.size / seconds, 1),
            }
            log.append(row)
            save_checkpoint(checkpoint, log, parts)
            shown.epoch(row)
    return model


def _projection(model: nn.Module, batches: Batches) -> nn.Module:
    """The layers between pooled features and what is compared, thrown away in the end."""
    side = batches.recipe.image_size
    blank = torch.zeros(1, batches.images.shape[1], side, side)
    with torch.no_grad():
        length = model.eval().forward_features(blank).shape[1]  # type: ignore[operator]
    return nn.Sequential(nn.Linear(length, length), nn.ReLU(), nn.Linear(length, PROJECTED))


def _epoch(
    both: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    epoch: int,
    shown: TrainingProgress,
) -> float:
    """One epoch's steps; its mean loss."""
    recipe, device = batches.recipe, batches.device
    torch.manual_seed(random_seed(recipe.seed, "layers", epoch))  # for drop path
    both.train()
    losses = torch.zeros(batches.steps, device=device)
    began = time.perf_counter()
    for step, views in enumerate(two_views(batches, epoch)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, epoch * batches.steps + step, batches.steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            features = both["backbone"].forward_features(views)  # type: ignore[operator]
            vectors = both["projection"](features.mean((2, 3)))
        loss = nt_xent(vectors)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses[step] = loss.detach()
        if shown.due():
            rate = (step + 1) * batches.size / (time.perf_counter() - began)
            shown.step(epoch + 1, step + 1, float(losses[step]), rate)
    return float(losses.mean())
