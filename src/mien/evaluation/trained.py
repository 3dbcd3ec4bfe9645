"""A trained model, from the folder of its run or from an exported file, to be measured alike."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import RecipeError, RunError
from mien.packaged import PACKAGED, sketched
from mien.runs.atomic import write_bytes
from mien.runs.recipe import Recipe
from mien.runs.run import digest_of


@dataclass(frozen=True)
class Trained:
    """A trained model and what is known of it.

    Attributes
    ----------
    name : of its run
    title : what it is called in tables
    classes : names in the order of the probabilities
    size, channels : of the images it takes
    predict_proba : from uint8 ``[N, S, S]`` or ``[N, S, S, 3]`` to float32 ``[N, C]``
    trained_on : name, splits and fingerprint of its training images; empty where unknown
    recipe : None where it is not known, or of another version
    digest : SHA-256 of its weights or its file
    single : one network that sees a face once
    watched : fingerprint of its validation part; empty where it had none, or where it is unknown
    """

    name: str
    title: str
    classes: tuple[str, ...]
    size: int
    channels: int
    predict_proba: Callable[[np.ndarray], np.ndarray]
    trained_on: Mapping[str, Any]
    recipe: Recipe | None
    digest: str
    single: bool = True
    watched: str = ""


def open_all(paths: Sequence[Path], device: str | None = None) -> list[Trained]:
    """Open run folders and ``.onnx`` files of models that can be measured on the same images.

    Parameters
    ----------
    paths : of folders and files; ``packaged`` is the model in the package
    device : that runs predict on; None takes an accelerator if there is one. Files go to the CPU

    Raises
    ------
    RunError
        if one is neither, has no weights, was given twice, or takes other images or has other
        classes than the first.
    """
    paths = [PACKAGED if str(path) == "packaged" else path for path in paths]
    found = [_run(path, device) if path.is_dir() else _file(path) for path in paths]
    if not found:
        raise RunError("there is no model to evaluate; give a run folder or an .onnx file")
    first = found[0]
    for path, model in zip(paths[1:], found[1:], strict=True):
        for what, ours, theirs in (
            ("classes", first.classes, model.classes),
            ("size", first.size, model.size),
            ("channels", first.channels, model.channels),
        ):
            if ours != theirs:
                raise RunError(
                    f"{path}: has {what} {theirs} and {paths[0]} has {ours}; evaluate them apart"
                )
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunError("a model was given twice; give each one once")
    titles = Counter(model.title for model in found)
    found = [
        model if titles[model.title] == 1 else replace(model, title=f"{model.title} ({model.name})")
        for model in found
    ]
    taken = Counter(model.title for model in found)  # a run beside its own exported file
    unlike = len({path.name for path in paths}) == len(paths)
    names = [path.name if unlike else str(path) for path in paths]
    return [
        model if taken[model.title] == 1 else replace(model, title=f"{model.title}, {name}")
        for name, model in zip(names, found, strict=True)
    ]


def attention_pairs(models: Sequence[Trained]) -> list[tuple[Trained, Trained]]:
    """Every two models, without CBAM and with it, that differ in nothing else."""

    def alike(model: Trained) -> Any:
        assert model.recipe is not None
        bare = model.recipe.but(attention="none", place="default", gates="paper")
        return bare, model.trained_on.get("fingerprint")

    known = [model for model in models if model.recipe is not None and model.single]
    return [
        (without, with_cbam)
        for with_cbam in known
        for without in known
        if with_cbam.recipe.attention == "cbam"  # type: ignore[union-attr]
        and without.recipe.attention == "none"  # type: ignore[union-attr]
        and alike(without) == alike(with_cbam)
    ]


def remembered(model: Trained, folder: Path) -> Trained:
    """The model with its predictions kept as files in a folder, and taken from there.

    So an evaluation that was interrupted goes on. A file is named by the model's weights and the
    images, and one that is damaged is written anew.
    """

    def predict_proba(images: np.ndarray) -> np.ndarray:
        key = hashlib.sha256(f"{model.digest} {images.shape}".encode())
        key.update(images.tobytes())
        path = folder / f"{key.hexdigest()[:32]}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):
            return np.load(path)
        found, content = model.predict_proba(images), io.BytesIO()
        np.save(content, found)
        write_bytes(path, content.getvalue())
        return found

    return replace(model, predict_proba=predict_proba)


def _run(path: Path, device: str | None) -> Trained:
    from mien.images import Normalisation, enhance
    from mien.images.tensors import as_tensor
    from mien.runs.environment import choose_device
    from mien.runs.run import Run
    from mien.training.predict import load_model, probabilities

    run = Run.open(path)
    where = choose_device(device)
    model = load_model(run, str(where))
    normalisation = Normalisation.from_dict(run.info["normalisation"])

    def predict_proba(images: np.ndarray) -> np.ndarray:
        pixels = as_tensor(enhance(images, run.recipe.enhance), where)
        return probabilities(model, pixels, normalisation, run.recipe.image_size).cpu().numpy()

    return Trained(
        run.name,
        run.recipe.title,
        run.classes,
        run.size,
        run.info["channels"],
        predict_proba,
        sketched(run.info["data"]["train"]),
        run.recipe,
        digest_of(run.weights_path),
        watched=run.info["data"].get("validation", {}).get("fingerprint", ""),
    )


def _file(path: Path) -> Trained:
    from mien.inference import load

    model = load(path)
    said = model.metadata
    data = json.loads(said.get("data", "{}"))
    try:
        recipe = Recipe.from_dict(tomllib.loads(said.get("recipe", "")), source=str(path))
    except (RecipeError, tomllib.TOMLDecodeError):  # a file of another version is still a model
        recipe = None
    single = "recipe 2" not in said and said.get("views", "1") == "1"
    return Trained(
        said.get("run", path.stem),
        recipe.title if recipe and "recipe" in said and single else path.stem,
        model.classes,
        model.size,
        model.channels,
        model.predict_proba,
        sketched(data.get("train", {})),
        recipe if "recipe" in said else None,
        digest_of(path),
        single,
        data.get("validation", {}).get("fingerprint", ""),
    )
