"""All that is measured of some models on one set of images, as it goes into JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mien.data.faceset import FaceSet
from mien.evaluation.groups import by_group, slices
from mien.evaluation.robustness import claim_sentence, claims_of, measured, under_corruptions
from mien.evaluation.trained import Trained, attention_pairs
from mien.metrics import evaluate


def evaluate_models(
    models: Sequence[Trained],
    faces: FaceSet,
    groups: Mapping[str, np.ndarray],
    *,
    corruptions: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure models on the same images: as they are, by group, and where asked as they get worse.

    Parameters
    ----------
    models : with distinct titles, as `open_all` gives them
    faces : labelled, of the models' size, channels and classes
    groups : by name of the grouping, the group of each image; quarters by brightness, contrast,
        sharpness and asymmetry come by themselves
    corruptions : also measure under each of `CORRUPTIONS`, and test CBAM's claim on every two
        models that differ in it alone
    seed : of the corruptions, paired bootstraps and permutations
    progress : is told what is measured next

    Returns
    -------
    dict
        ``models``, by title: ``run``, ``metrics``, ``measured``, ``groups``, ``slices`` and where
        asked ``corruptions``; and ``claims``, a list of ``without``, ``with``, ``tests``
        and ``sentence``
    """
    quarters, robust = slices(faces.images), {}
    rows: dict[str, dict[str, Any]] = {}
    for model in models:
        progress(f"{model.title}: {len(faces):,} images")
        probabilities = model.predict_proba(faces.images)
        told = probabilities, faces.labels, model.classes
        rows[model.title] = {
            "run": model.name,
            "metrics": evaluate(*told).to_dict(),
            "measured": asdict(measured(*told)),
        }
        for kind, columns in (("groups", groups), ("slices", quarters)):
            found = by_group(*told, columns, seed=seed)
            rows[model.title][kind] = {name: one.to_dict() for name, one in found.items()}
        if corruptions:
            robust[model.title] = under_corruptions(model, faces, seed, progress)
            rows[model.title]["corruptions"] = robust[model.title].to_dict()
    claims = []
    for without, with_cbam in attention_pairs(models) if corruptions else ():
        tests = claims_of(robust[without.title], robust[with_cbam.title], seed)
        claims.append(
            {
                "without": without.title,
                "with": with_cbam.title,
                "tests": [test.to_dict() for test in tests],
                "sentence": claim_sentence(tests),
            }
        )
    return {"models": rows, "claims": claims}
