from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien.data import draw_faces
from mien.errors import RecipeError
from mien.runs.recipe import Recipe
from mien.training import fit, predict_probabilities


@pytest.mark.usefixtures("one_thread")
def test_two_views_are_the_mean_of_an_image_and_its_mirror_image(tmp_path: Path) -> None:
    faces = draw_faces(140, size=24)
    recipe = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=2, batch_size=32)
    run = fit(recipe, faces["train"], runs=tmp_path, device="cpu", progress="none")
    seen = faces["validation"]
    mirrored = replace(seen, images=seen.images[:, :, ::-1].copy())
    one, other = predict_probabilities(run, seen), predict_probabilities(run, mirrored)
    assert np.abs(one - other).max() > 1e-3
    for given in (seen, mirrored):
        both = predict_probabilities(run, given, views=2)
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    ten = predict_probabilities(run, seen, views=10)
    by = round(seen.size / 24)
    wide = np.pad(seen.images, ((0, 0), (by, by), (by, by)), mode="reflect")
    corners = [wide[:, y : y + 24, x : x + 24] for y in (0, 2 * by) for x in (0, 2 * by)]
    every = [given for image in (seen.images, *corners) for given in (image, image[:, :, ::-1])]
    each = [predict_probabilities(run, replace(seen, images=image.copy())) for image in every]
    np.testing.assert_allclose(ten, np.mean(each, 0), atol=1e-5)
    with pytest.raises(RecipeError, match="views = 3: give 1, 2, 10"):
        predict_probabilities(run, seen, views=3)
