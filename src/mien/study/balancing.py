"""The generator of a study: trained, sampled, and assessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.balance.counts import to_generate
from mien.balance.distances import nearest
from mien.balance.gan import GeneratorRun, check_truncation, fit_generator, generate
from mien.balance.quality import Quality, Sample, assess
from mien.data.faceset import FaceSet
from mien.errors import DataError, MienError
from mien.runs.environment import choose_device
from mien.runs.generator_recipe import GeneratorRecipe
from mien.runs.run import Run
from mien.training.predict import pooled_features, predict_probabilities

SHOWN = 10
"""Faces of a row in a sheet."""


def balance_classes(
    train: FaceSet,
    held_out: FaceSet,
    generator: GeneratorRecipe | GeneratorRun,
    lift: int | str | Mapping[str, int],
    *,
    features: Run | None = None,
    classifier: Run | None = None,
    truncation: float | None = None,
    seed: int = 0,
    runs: Path | str = "runs",
    device: str | None = None,
    progress: str = "live",
) -> tuple[dict[str, Any], dict[str, np.ndarray], FaceSet]:
    """Lift the small classes of a training part by generated faces, and assess these.

    Parameters
    ----------
    train : the training part; a generator is trained on nothing else
    held_out : labelled real faces to compare with; copies of training images are left out
    generator : a recipe, or a finished generator of these classes and this size
    lift : as in `to_generate`
    features, classifier : finished runs with weights that have not seen `held_out`: one whose
        pooled last map the faces are compared in, without which nothing is assessed, and one that
        says their classes, by default the same
    truncation, seed : of the sampling, as in `generate`
    runs, device, progress : as in `fit_generator`

    Returns
    -------
    what was done and found, as plain values; images for the sheets, as `balance_figures` takes
    them; and the generated faces
    """
    check_truncation(truncation)
    counts, where = to_generate(train.counts(), train.classes, lift), str(choose_device(device))
    if isinstance(generator, GeneratorRun):
        generator.check_fits(train)
        run = generator
    else:
        run = fit_generator(generator, train, runs=runs, device=device, progress=progress)
    made = generate(run, counts, truncation=truncation, seed=seed, device=where)
    # The generator may have been trained when this part was called otherwise.
    made = replace(made, split=np.full(len(made), train.split[0]))
    sheets = {
        kind: np.stack([_first(part, label) for label in range(len(train.classes))])
        for kind, part in (("real", train), ("generated", made))
    }
    quality, why = None, "no run was given whose features they could be seen in"
    if features is not None:
        try:
            found, pairs = _assess(
                made, train, held_out, features, classifier or features, where, seed
            )
            quality, why = found.to_dict(), ""
            sheets |= pairs
        except MienError as error:
            why = str(error)
    done = {
        "classes": list(train.classes),
        "lift": str(lift),
        "truncation": truncation,
        "seed": seed,
        "real": train.counts().tolist(),
        "generated": counts.tolist(),
        "generator": {
            "name": run.name,
            "recipe": run.recipe.to_dict(),
            "log": run.log,
            **{key: run.info[key] for key in ("epochs", "good_epoch", "stopped_early")},
            **{key: run.info[key] for key in ("train_seconds", "training_images_per_second")},
            **{key: run.info[key] for key in ("parameters", "data", "hardware")},
        },
        "quality": quality,
        "why": why,
        "features": features and f"{features.recipe.title} ({features.name})",
        "classifier": (judge := classifier or features) and f"{judge.recipe.title} ({judge.name})",
        "held_out": f"{len(held_out):,} images of {held_out.split[0]}",
    }
    return done, sheets, made


def _assess(
    made: FaceSet,
    train: FaceSet,
    held_out: FaceSet,
    features: Run,
    classifier: Run,
    device: str,
    seed: int,
) -> tuple[Quality, dict[str, np.ndarray]]:
    """The quality of generated faces, and some of them with the training faces nearest to them."""
    for run in (features, classifier):
        if run.classes != made.classes:
            raise DataError(
                f"{run.name} knows the classes {', '.join(run.classes)}, and the generated faces "
                f"have {', '.join(made.classes)}; give a run trained on this data set"
            )
    fresh = held_out[~held_out.stands_in(train)]
    known, real, ours = (pooled_features(features, part, device) for part in (train, fresh, made))
    quality = assess(
        Sample(known, train.labels),
        Sample(real, fresh.labels, predict_probabilities(classifier, fresh, device)),
        Sample(ours, made.labels, predict_probabilities(classifier, made, device)),
        made.images,
        made.classes,
        seed=seed,
    )
    copies = quality.held_out_copies + len(held_out) - len(fresh)
    quality = replace(quality, held_out_copies=copies)
    some = np.random.default_rng(seed).permutation(len(made))[:SHOWN]
    neighbours = nearest(ours[some], known)[1]
    return quality, {"sample": made.images[some], "nearest": train.images[neighbours]}


def _first(faces: FaceSet, label: int) -> np.ndarray:
    """The first faces of a class, filled up with grey where there are fewer than a row."""
    images = faces.images[faces.labels == label][:SHOWN]
    missing = np.full((SHOWN - len(images), *faces.images.shape[1:]), 200, np.uint8)
    return np.concatenate((images, missing))
