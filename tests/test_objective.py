from __future__ import annotations

import pytest
import torch

from mien.data import draw_faces
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.training.batches import Batch
from mien.training.loss import cross_entropy, log_prior
from mien.training.objective import Objective


@pytest.mark.parametrize("kind", ["cross-entropy", "gce", "sce"])
def test_the_recipes_loss_is_the_one_that_is_trained_with(kind: str) -> None:
    faces = draw_faces(140, size=24)["train"]
    generator = torch.Generator().manual_seed(0)
    logits, votes = torch.randn(2, 8, 7, generator=generator)
    weights = torch.rand(8, generator=generator)
    batch = Batch(torch.zeros(8, 1, 24, 24), votes.softmax(1), weights)
    recipe = Recipe(loss=kind, logit_adjustment=0.5)
    objective = Objective(recipe, faces, Normalisation((0.0,), (1.0,)), torch.device("cpu"))
    found, kept = objective(logits, batch, objective.answered(batch.images))
    prior = 0.5 * log_prior(faces.labels, 7)
    expected = cross_entropy(
        logits, batch.targets, image_weights=weights, adjustment=prior, kind=kind
    )
    torch.testing.assert_close(found, expected)
    assert kept is logits
