"""Probabilities from a trained model."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mien.data.faceset import FaceSet
from mien.data.layout import SUFFIXES
from mien.errors import DataError, RunError
from mien.images import Normalisation, enhance
from mien.images.tensors import as_tensor
from mien.models import create_model
from mien.pixels import decode, letterbox
from mien.runs.atomic import write_text
from mien.runs.environment import choose_device
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run, digest_of
from mien.training.batches import prepared


def build_model(recipe: Recipe, classes: int, channels: int) -> nn.Module:
    """The network that `recipe` describes, with fresh weights."""
    return create_model(
        recipe.model,
        classes=classes,
        channels=channels,
        attention=recipe.attention,
        place=recipe.place,
        gates=recipe.gates,
        width=recipe.width,
        stride=recipe.stride,
        image_size=recipe.image_size,
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        batch_norm=recipe.batch_norm,
    )


def load_model(run: Run, device: str = "cpu") -> nn.Module:
    """The trained network of a finished run, in evaluation mode.

    Raises
    ------
    RunError
        if the run has no weights (a record keeps none), or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not run.weights_path.exists():
        why = "a record keeps no weights" if run.finished else "it is not finished"
        raise RunError(f"{run.path}: has no weights ({why}); train it again to use the model")
    model = build_model(run.recipe, len(run.classes), run.info["channels"])
    try:
        written = run.info.get("weights_sha256")
        if written is not None and digest_of(run.weights_path) != written:
            raise ValueError("its bytes are not those that were written")
        model.load_state_dict(load_file(run.weights_path))
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise RunError(
            f"{run.weights_path}: is damaged or of another version ({why:.200}); "
            "remove the run folder and train again"
        ) from error
    return model.eval().to(choose_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    images: torch.Tensor,
    normalisation: Normalisation,
    size: int,
    batch_size: int = 256,
    precision: str = "fp32",
) -> torch.Tensor:
    """Class probabilities, float32 ``[N, C]``, of uint8 images ``[N, channels, H, W]``.

    The images may lie on the CPU and the model on an accelerator. The model is put into evaluation
    mode and left as it was found.
    """
    was_training = model.training
    model.eval()
    found = []
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for part in images.split(batch_size):
            found.append(model(prepared(part.to(device), normalisation, size)).float().softmax(1))
    model.train(was_training)
    return torch.cat(found)


def predict_probabilities(run: Run, faces: FaceSet, device: str = "cpu") -> np.ndarray:
    """Class probabilities, float32 ``[N, C]``, that a finished run gives to a set of faces.

    Raises
    ------
    RunError
        if the run has no weights, they are damaged, or there is no such device.
    DataError
        if the faces have another number of channels than those the run was trained on.
    """
    return _predict(run, load_model(run, device), faces, device)


@torch.inference_mode()
def pooled_features(run: Run, faces: FaceSet, device: str = "cpu") -> np.ndarray:
    """What a finished run's network sees in faces: its last map, averaged over the places.

    Returns
    -------
    float32 array ``[N, D]``

    Raises
    ------
    RunError, DataError
        as `predict_probabilities`.
    """
    model = load_model(run, device)
    images, normalisation = _inputs(run, faces, device)
    found = []
    for part in images.split(256):
        pixels = prepared(part.to(device), normalisation, run.recipe.image_size)
        found.append(model.forward_features(pixels).mean((2, 3)))  # type: ignore[operator]
    return torch.cat(found).cpu().numpy()


def predict_splits(run: Run, faces: FaceSet, splits: list[str], device: str = "cpu") -> None:
    """Keep in `run` its predictions for the named splits of `faces` it has none for yet.

    Which images stand in the training part is kept too, where `faces` has that part.
    """
    missing = [split for split in splits if split not in run.predicted]
    if not missing:
        return
    model = load_model(run, device)
    train = run.training_part(faces)
    found = {}
    for split in missing:
        part = faces[split]
        seen = None if train is None else part.stands_in(train)
        predicted = _predict(run, model, part, device)
        found[split] = Predictions(part.names, part.labels, predicted, seen)
    run.save_predictions(found)


def _predict(run: Run, model: nn.Module, faces: FaceSet, device: str) -> np.ndarray:
    images, normalisation = _inputs(run, faces, device)
    return probabilities(model, images, normalisation, run.recipe.image_size).cpu().numpy()


def _inputs(run: Run, faces: FaceSet, device: str) -> tuple[torch.Tensor, Normalisation]:
    """The faces as uint8 ``[N, C, H, W]``, and how the run's network wants them normalised."""
    if faces.channels != run.info["channels"]:
        raise DataError(
            f"{faces.name}: has {faces.channels} channels and the run {run.name} was trained on "
            f"{run.info['channels']}; read the images with channels={run.info['channels']}"
        )
    images = as_tensor(enhance(faces.images, run.recipe.enhance), device)
    return images, Normalisation.from_dict(run.info["normalisation"])


def predict_files(
    run: Run, images: Sequence[Path], out: Path, *, device: str = "cpu", skip_bad: bool = False
) -> int:
    """Write a CSV of image, label and the probability of each class for pictures of faces.

    Parameters
    ----------
    images : files, or folders whose pictures (also those in folders below) are taken in order of
        their names
    out : the CSV, written whole or not at all. An image goes by its file name, or by its path
        where two files share a name.
    skip_bad : leave out files that cannot be read, and say on standard error how many

    Returns
    -------
    int
        The number of images.

    Raises
    ------
    DataError
        if there is no image, or one cannot be read and `skip_bad` is off.
    RunError
        if the run has no weights, or the CSV cannot be written.
    """
    files = list(dict.fromkeys(file for path in images for file in _pictures(path)))
    if not files:
        raise DataError(f"{', '.join(map(str, images))}: no picture found")
    # Runs of the first days did not note the size of their images, which was the recipe's.
    size = run.info.get("size", run.recipe.image_size)
    pictures, read = [], []
    for file in files:
        try:
            pixels = decode(file, str(file), channels=run.info["channels"])
        except DataError:
            if skip_bad:
                continue
            raise
        pictures.append(letterbox(pixels, size))
        read.append(file)
    if not pictures:
        raise DataError(f"{', '.join(map(str, images))}: none of {len(files)} files can be read")
    if len(read) < len(files):
        print(f"left out {len(files) - len(read):,} unreadable files", file=sys.stderr)
    times = Counter(file.name for file in read)
    names = [file.name if times[file.name] == 1 else str(file) for file in read]
    faces = FaceSet(
        np.stack(pictures),
        np.full(len(pictures), -1),
        run.classes,
        np.array(names),
        np.full(len(pictures), "given"),
    )
    found = predict_probabilities(run, faces, device)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "label", *run.classes])
    for name, row in zip(names, found, strict=True):
        label = run.classes[int(row.argmax())]
        writer.writerow([name, label, *(f"{p:.6f}" for p in row)])
    write_text(out, table.getvalue())
    return len(names)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    return [path]
