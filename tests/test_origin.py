"""A generated image may be trained on, and stands in no part that something is measured on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mien.data import FaceSet, draw_faces, roles
from mien.data.splits import carve
from mien.errors import DataError, RecipeError
from mien.evaluation.schemes import five_by_two, hold_out, k_fold, official
from mien.runs.recipe import Recipe
from mien.training import fit

TINY = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=32)


def faces(splits: tuple[str, ...], generated_in: str) -> FaceSet:
    """Drawn faces in equal shares of each class and split, the last two of one split generated."""
    drawn = draw_faces(140, size=24)
    order = np.argsort(drawn.labels, kind="stable")
    drawn = replace(drawn[order], split=np.resize(np.array(splits), 140))
    origin = drawn.origin.astype("U9")
    names = drawn.names.astype("U20")
    last = np.flatnonzero(drawn.split == generated_in)[-2:]
    origin[last] = "generated"
    names[last] = ["made_1.png", "made_2.png"]
    return replace(drawn, origin=origin, names=names)


@pytest.mark.parametrize("split", ["PublicTest", "PrivateTest"])
def test_a_split_that_is_measured_on_has_no_generated_image(split: str) -> None:
    whole = faces(("Training", "PublicTest", "PrivateTest"), generated_in=split)
    told = rf"split '{split}': 2 images are generated, the first is 'made_1.png'; .* training split"
    with pytest.raises(DataError, match=told):
        roles(whole)


def test_a_training_split_may_have_generated_images_where_nothing_is_carved_from_it() -> None:
    whole, found = roles(faces(("Training", "PublicTest"), generated_in="Training"))
    assert (whole[found.train].origin == "generated").sum() == 2
    for splits in (("Training",), ("all",)):
        whole = faces(splits, generated_in=splits[0])
        with pytest.raises(DataError, match=r"2 images are generated, the first is 'made_1.png'"):
            roles(whole)


def test_nothing_is_carved_from_a_split_with_generated_images() -> None:
    whole = faces(("a", "b"), generated_in="a")
    with pytest.raises(DataError, match=r"first is 'made_1.png'; .*divide the real ones alone"):
        carve(whole, "a", {"c": 0.2})
    assert "c" in carve(whole, "b", {"c": 0.2}).splits


@pytest.mark.parametrize(
    "scheme", [k_fold, five_by_two, hold_out, partial(k_fold, folds=2)], ids=["10", "5x2", "1", "2"]
)
def test_no_fold_is_made_of_a_set_with_generated_images(scheme) -> None:
    whole = faces(("Training",), generated_in="Training")
    with pytest.raises(DataError, match=r"first is 'made_1.png'; .*make more from each training"):
        scheme(whole)
    assert scheme(whole[whole.origin != "generated"])


def test_the_official_fold_holds_out_no_generated_image_and_may_train_on_them() -> None:
    whole = faces(("Training", "PublicTest"), generated_in="Training")
    [fold] = official(whole)
    assert (whole.origin[fold.train] == "generated").sum() == 2
    with pytest.raises(DataError, match="split 'PublicTest': 2 images are generated"):
        official(faces(("Training", "PublicTest"), generated_in="PublicTest"))


def test_fit_trains_on_generated_images_and_watches_none(tmp_path: Path) -> None:
    whole = faces(("train", "validation"), generated_in="train")
    train, valid = whole["train"], whole["validation"]
    assert fit(TINY, train, valid, runs=tmp_path, device="cpu", progress="none").finished
    train, valid = replace(valid, split=train.split), replace(train, split=valid.split)
    with pytest.raises(DataError, match="validation: 2 images are generated, the first is 'made_1"):
        fit(TINY, train, valid, runs=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_generator_is_fitted_to_no_generated_images(tmp_path: Path) -> None:
    whole = faces(("train", "validation"), generated_in="train")
    with pytest.raises(DataError, match=r"train: 2 images are generated, .*learns from real ones"):
        fit(TINY.but(generate="equal"), whole["train"], whole["validation"], runs=tmp_path)


@pytest.mark.parametrize(
    ("generate", "message"),
    [("3", "lifts no class"), ("disgusting=90", "did you mean 'disgust'"), ("most", "is no lift")],
)
def test_a_lift_that_cannot_be_is_refused_before_training_starts(
    tmp_path: Path, generate: str, message: str
) -> None:
    drawn = draw_faces(140, size=24)
    with pytest.raises(RecipeError, match=message):
        fit(TINY.but(generate=generate), drawn["train"], drawn["validation"], runs=tmp_path)
    assert not list(tmp_path.iterdir())
