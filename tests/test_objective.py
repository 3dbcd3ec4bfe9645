from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from mien.data import FaceSet, draw_faces
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.training.batches import Batch
from mien.training.loss import cross_entropy, log_prior
from mien.training.objective import Objective


def uneven() -> FaceSet:
    """Faces of which the first class has fewer than the others."""
    faces = draw_faces(140, size=24)["train"]
    return faces[(faces.labels > 0) | (np.arange(len(faces)) < 30)]


def test_class_weights_and_label_smoothing_reach_the_loss_of_a_training() -> None:
    faces = uneven()
    logits, votes = torch.randn(2, 8, 7, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.zeros(8, 1, 24, 24), votes.softmax(1), None)
    recipe = Recipe(class_weights="balanced", label_smoothing=0.1)
    objective = Objective(recipe, faces, Normalisation((0.0,), (1.0,)), torch.device("cpu"))
    found, _ = objective(logits, batch, None)
    weights = compute_class_weight("balanced", classes=np.arange(7), y=faces.labels)
    assert weights.std() > 0.1
    expected = F.cross_entropy(
        logits, batch.targets, torch.from_numpy(weights).float(), label_smoothing=0.1
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["cross-entropy", "gce", "sce"])
def test_the_recipes_loss_is_the_one_that_is_trained_with(kind: str) -> None:
    faces = uneven()
    generator = torch.Generator().manual_seed(0)
    logits, votes = torch.randn(2, 8, 7, generator=generator)
    weights = torch.rand(8, generator=generator)
    batch = Batch(torch.zeros(8, 1, 24, 24), votes.softmax(1), weights)
    recipe = Recipe(loss=kind, logit_adjustment=0.5)
    objective = Objective(recipe, faces, Normalisation((0.0,), (1.0,)), torch.device("cpu"))
    found, kept = objective(logits, batch, objective.answered(batch))
    prior = 0.5 * log_prior(faces.labels, 7)
    assert prior.std() > 0.1
    expected = cross_entropy(
        logits, batch.targets, image_weights=weights, adjustment=prior, kind=kind
    )
    torch.testing.assert_close(found, expected)
    assert kept is logits


def test_votes_beside_the_labels_are_learned_by_a_classifier_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(8, 14, generator=generator)
    targets, votes = torch.randn(2, 8, 7, generator=generator).softmax(2)
    votes[2] = 0  # an image without any
    images, weights = torch.zeros(8, 1, 24, 24), torch.rand(8, generator=generator)
    batch = Batch(images, targets, weights, votes)
    recipe = Recipe(auxiliary_votes=0.5, label_smoothing=0.1)
    objective = Objective(recipe, uneven(), Normalisation((0.0,), (1.0,)), torch.device("cpu"))
    of_labels = cross_entropy(outputs[:, :7], targets, image_weights=weights, label_smoothing=0.1)
    each = F.cross_entropy(outputs[:, 7:], votes, reduction="none")
    assert float(each[2]) == 0
    expected = of_labels + 0.5 * (each * weights).mean()
    found, logits = objective(outputs, batch, None)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits, outputs[:, :7])
    second = torch.randn(8, 7, generator=generator)  # of InceptionV3's auxiliary classifier
    settings = {"image_weights": weights, "label_smoothing": 0.1}
    more = recipe.auxiliary * cross_entropy(second, targets, **settings)  # type: ignore[arg-type]
    found, _ = objective((outputs, second), batch, None)
    torch.testing.assert_close(found, expected + more)
