"""What a finished run looks at in faces, as plain values and pictures for tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mien.data.class_map import map_classes
from mien.data.faceset import FaceSet
from mien.errors import DataError
from mien.explanation.faithfulness import (
    STEPS,
    Scores,
    centre_maps,
    gain,
    random_maps,
    scores,
)
from mien.explanation.maps import (
    Gates,
    cbam,
    cbam_gates,
    grad_cam,
    grad_cam_plus_plus,
    occlusion,
    probability_of,
)
from mien.explanation.mistakes import confident_errors
from mien.images import Normalisation, enhance
from mien.images.tensors import as_tensor
from mien.runs.run import Run
from mien.training import load_model, predict_probabilities
from mien.training.batches import prepared

BASELINES = ("random", "centre")
"""Maps that know nothing of the network, beside which the others are judged."""

SHOWN = 7
"""Faces that are shown side by side with their maps."""

AT_ONCE = 64

Pictures = dict[str, np.ndarray]


def explain(
    run: Run, faces: FaceSet, *, steps: int = STEPS, device: str = "cpu"
) -> tuple[dict[str, Any], Pictures]:
    """What a run looks at in each of some faces when it calls them what it calls them.

    CBAM's own maps where it has any, Grad-CAM and Grad-CAM++ where it has maps at all (a
    transformer has tokens), and occlusion, all of the predicted class; how faithful each is, beside
    maps that know nothing; and their means over the faces that are called the same.

    Parameters
    ----------
    run : finished, with weights
    faces : labelled or not, of the size and channels of the run's
    steps : in how many parts pixels are taken away and brought back for the scores

    Returns
    -------
    found : plain values, as `mien.report.explaining` takes them
    pictures : uint8 ``shown_faces`` ``[k, H, W(, 3)]`` and ``shown_maps`` ``[M, k, H, W]``, the
        same of ``class_...``, and of CBAM, for the last module i of each size of map,
        ``spatial_i`` float ``[h, w]`` and ``channel_i`` float ``[C]``, the means of its gates

    Raises
    ------
    RunError
        if the run has no weights, or they are damaged.
    DataError
        for no faces at all, or faces of other channels.
    """
    if not len(faces):
        raise DataError(f"{faces.name}: has no faces to explain; choose a split that has some")
    if faces.channels != run.info["channels"]:
        raise DataError(
            f"{faces.name}: has {faces.channels} channel(s) and {run.name} was trained on "
            f"{run.info['channels']}; read the images with channels={run.info['channels']}"
        )
    model = load_model(run, device)
    normalisation = Normalisation.from_dict(run.info["normalisation"])
    images = as_tensor(enhance(faces.images, run.recipe.enhance), device)
    looks = [
        _look(
            model,
            prepared(part.to(device), normalisation, run.recipe.image_size),
            faces.size,
            steps,
            seed=number,
        )
        for number, part in enumerate(images.split(AT_ONCE))
    ]
    probabilities = np.concatenate([look.probabilities for look in looks])
    maps = {key: np.concatenate([look.maps[key] for look in looks]) for key in looks[0].maps}
    judged = {key: Scores.joined([look.scores[key] for look in looks]) for key in looks[0].scores}
    gates = _mean_gates([look.gates for look in looks])
    return _gathered(run, faces, probabilities, maps, judged, gates)


def explain_split(
    run: Run,
    faces: FaceSet,
    *,
    count: int = 140,
    steps: int = STEPS,
    device: str = "cpu",
    seed: int = 0,
) -> tuple[dict[str, Any], Pictures]:
    """`explain` for faces drawn from a split, as many of each predicted class, and its errors.

    Parameters
    ----------
    faces : a split; where it has labels, its most confident errors are found too
    count : faces to explain, drawn at random; fewer where a class is predicted less often
    seed : of the draw

    Returns
    -------
    as `explain`; ``found["errors"]`` has a row for each pair of classes, ``[true, predicted,
    faces, largest probability]``, the most frequent first, and ``errors_i`` in the pictures holds
    the faces of the i-th, the most confident first.
    """
    if faces.labelled and faces.classes != run.classes:
        if not set(faces.classes) <= set(run.classes):
            raise DataError(
                f"{faces.name}: has the classes {', '.join(faces.classes)}, and {run.name} was "
                f"trained on {', '.join(run.classes)}; give a data set with the same"
            )
        faces, _ = map_classes(faces, run.classes, None)
    probabilities = _kept(run, faces)
    if probabilities is None:
        probabilities = predict_probabilities(run, faces, device)
    called = probabilities.argmax(1)
    rng = np.random.default_rng(seed)
    each = max(1, count // len(run.classes))
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(called == c))[:each] for c in range(len(run.classes))]
    )
    rows = rows if len(rows) <= count else rng.permutation(rows)[:count]
    found, pictures = explain(run, faces[np.sort(rows)], steps=steps, device=device)
    errors = confident_errors(probabilities, faces.labels) if faces.labelled else []
    found["errors"] = [
        [run.classes[e.true], run.classes[e.predicted], e.count, e.largest] for e in errors
    ]
    pictures |= {f"errors_{i}": faces.images[error.rows] for i, error in enumerate(errors)}
    found["of"] = f"{len(faces):,} images of {', '.join(faces.splits)}"
    return found, pictures


def _kept(run: Run, faces: FaceSet) -> np.ndarray | None:
    """The probabilities that the run keeps of just these images of a split, if it does."""
    split = faces.split[0] if len(faces) else ""
    if len(faces.splits) != 1 or split not in run.predicted:
        return None
    kept = run.predictions(split)
    known = kept.pixels or faces.fingerprint in (
        part["fingerprint"] for part in run.info["data"].values()
    )
    return kept.probabilities if known and kept.are_of(faces) else None


@dataclass(frozen=True, eq=False)
class _Look:
    """What was found of some faces at once: `maps` uint8 ``[N, H, W]`` by method, and so on."""

    probabilities: np.ndarray
    maps: Pictures
    scores: dict[str, Scores]
    gates: dict[str, Gates]


def _look(model: nn.Module, pixels: torch.Tensor, side: int, steps: int, seed: int) -> _Look:
    with torch.no_grad():
        chances = model(pixels).float().softmax(1)
    called = chances.argmax(1)
    score = probability_of(model, called)
    size = (pixels.shape[2], pixels.shape[3])
    gates = cbam_gates(model, pixels)
    maps = {"CBAM": cbam(gates, size)} if gates else {}
    if model.stage_names:
        maps["Grad-CAM"] = grad_cam(model, pixels, called)
        maps["Grad-CAM++"] = grad_cam_plus_plus(model, pixels, called)
    maps["occlusion"] = occlusion(score, pixels)
    blind = {
        "random": random_maps(len(pixels), size, seed).to(pixels.device),
        "centre": centre_maps(len(pixels), size).to(pixels.device),
    }
    return _Look(
        chances.cpu().numpy(),
        {key: _as_bytes(found, side) for key, found in maps.items()},
        {key: scores(score, pixels, found, steps) for key, found in {**maps, **blind}.items()},
        gates,
    )


def _gathered(
    run: Run,
    faces: FaceSet,
    probabilities: np.ndarray,
    maps: Pictures,
    judged: dict[str, Scores],
    gates: dict[str, Gates],
) -> tuple[dict[str, Any], Pictures]:
    called = probabilities.argmax(1)
    # One face of each class first, so that the few that are shown are not all of the commonest.
    first = np.unique(called, return_index=True)[1]
    shown = np.concatenate([first, np.setdiff1d(np.arange(len(faces)), first)])[:SHOWN]
    present = np.unique(called)
    stacked = np.stack(list(maps.values()))
    means = [called == label for label in present]
    found = {
        "run": run.name,
        "title": run.recipe.title,
        "faces": len(faces),
        "of": faces.name,
        "methods": list(maps),
        "scores": {key: _summary(key, judged) for key in judged},
        "shown": [
            f"{run.classes[called[row]]}, {100 * probabilities[row].max():.0f} %" for row in shown
        ],
        "called": [[run.classes[label], int((called == label).sum())] for label in present],
        "gates": [
            [name, list(gate.spatial.shape), _ends(gate.spatial), _ends(gate.channel)]
            for name, gate in gates.items()
        ],
        "errors": [],
    }
    pictures = {
        "shown_faces": faces.images[shown],
        "shown_maps": stacked[:, shown],
        "class_faces": np.stack([_mean(faces.images[rows]) for rows in means]),
        "class_maps": np.stack([_mean(stacked[:, rows], 1) for rows in means], 1),
    }
    for number, gate in enumerate(gates.values()):
        pictures[f"spatial_{number}"] = gate.spatial.numpy()
        pictures[f"channel_{number}"] = gate.channel.numpy()
    return found, pictures


def _summary(key: str, judged: dict[str, Scores]) -> dict[str, Any]:
    """Mean scores of a method, and what it gains on each baseline with an interval."""
    return {
        "deletion": float(judged[key].deletion.mean()),
        "insertion": float(judged[key].insertion.mean()),
        "gains": {}
        if key in BASELINES
        else {base: gain(judged[key], judged[base]) for base in BASELINES},
    }


def _mean_gates(parts: list[dict[str, Gates]]) -> dict[str, Gates]:
    """The means of the gates over all faces, of the last module of each size of map."""
    last = {gate.spatial.shape[1:]: name for name, gate in parts[0].items()}
    return {
        name: Gates(*(torch.cat(kind).mean(0).cpu() for kind in zip(*same, strict=True)))
        for name in last.values()
        for same in [[part[name] for part in parts]]
    }


def _ends(values: torch.Tensor) -> list[float]:
    return [float(values.min()), float(values.max())]


def _as_bytes(maps: torch.Tensor, size: int) -> np.ndarray:
    """Maps at the size of the faces, in 8 bits, which is all that can be seen of them."""
    if maps.shape[1] != size:
        maps = F.interpolate(maps[:, None], (size, size), mode="bilinear", antialias=True)[:, 0]
    return (255 * maps).round().clamp(0, 255).byte().cpu().numpy()


def _mean(images: np.ndarray, along: int = 0) -> np.ndarray:
    return np.rint(images.mean(along)).astype(np.uint8)
