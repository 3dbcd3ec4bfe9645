"""Cross-validation: each fold a run, measured on the very images that it did not see."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.data import FaceSet
from mien.errors import DataError, RecipeError, RunError
from mien.evaluation.cross_validation import CrossValidation, cross_validate
from mien.evaluation.schemes import Fold, five_by_two, k_fold, official
from mien.executors import Local
from mien.runs.atomic import write_json
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import loop, predict_probabilities

TINY = Recipe(model="plain", width=0.1, image_size=24, stride=8, epochs=1, batch_size=32)
TWO = {"plain": TINY, "plain, slower": TINY.but(lr=1e-4)}


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def faces() -> FaceSet:
    """Two splits, as FER-2013's Training and PublicTest would be divided together."""
    drawn = mien.read("drawn:140")
    return drawn[drawn.split != "test"]


def validated(
    runs: Path, folds: list[Fold], recipes: dict[str, Recipe] = TWO, scheme: str = "k-fold"
) -> CrossValidation:
    return cross_validate(
        recipes, faces(), scheme, folds, executor=Local(), runs=runs, progress="none", label="tiny"
    )


def test_each_fold_is_a_run_measured_on_what_it_holds_out(tmp_path: Path) -> None:
    folds = k_fold(faces(), 2)
    found = validated(tmp_path, folds)
    assert found.accuracy.shape == (2, 2)
    assert not found.failures
    assert len({name for row in found.runs for name in row}) == 4
    for row in range(2):
        for column, fold in enumerate(folds):
            run = Run.open(tmp_path / str(found.runs[row][column]))
            assert run.recipe == list(TWO.values())[row]
            held_out = faces()[fold.held_out]
            # Predicted anew from the weights, and scored by hand.
            called = predict_probabilities(run, held_out).argmax(1)
            right = called == held_out.labels
            recalls = [right[held_out.labels == label].mean() for label in range(7)]
            assert found.accuracy[row, column] == pytest.approx(right.mean())
            assert found.balanced_accuracy[row, column] == pytest.approx(np.mean(recalls))
            assert not run.predictions("train").seen.any()  # type: ignore[union-attr]
            # What is learned of the pixels is learned of the training part alone.
            pixels = faces().images[fold.train] / 255
            assert run.info["normalisation"]["mean"] == pytest.approx([pixels.mean()], rel=1e-6)
            assert run.info["normalisation"]["std"] == pytest.approx([pixels.std()], rel=1e-6)


def test_asking_again_trains_nothing_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = k_fold(faces(), 2)
    first = validated(tmp_path, folds)
    monkeypatch.setattr(loop.Training, "_train_epoch", None)
    assert validated(tmp_path, folds).to_dict() == first.to_dict()


def test_a_set_whose_splits_have_other_names_takes_the_same_runs(tmp_path: Path) -> None:
    folds = k_fold(faces(), 2)
    first = validated(tmp_path, folds)
    renamed = replace(faces(), split=np.char.add("my ", faces().split))
    again = cross_validate(
        TWO, renamed, "k-fold", folds, executor=Local(), runs=tmp_path, progress="none"
    )
    assert not again.failures
    assert again.runs == first.runs
    np.testing.assert_array_equal(again.accuracy, first.accuracy)


def test_a_fold_that_fails_is_reported_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = k_fold(faces(), 3)
    train, calls = loop.Training._train_epoch, []

    def second_fails(training: loop.Training, *arguments: object) -> None:
        calls.append(training)
        if len(calls) == 2:
            raise RunError("the loss is nan")
        train(training, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Training, "_train_epoch", second_fails)
    found = validated(tmp_path, folds, {"plain": TINY})
    assert found.failures == [{"model": "plain", "fold": "fold 2 of 3", "error": "the loss is nan"}]
    np.testing.assert_array_equal(np.isnan(found.accuracy), [[False, True, False]])
    assert found.runs[0][1] is None
    # The means are those of the folds that are done, and JSON knows no NaN.
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))["models"][0]
    assert plain["accuracy"][1] is None
    done = found.accuracy[0, [0, 2]]
    assert plain["summary"]["accuracy"] == {
        "mean": pytest.approx(done.mean()),
        "std": pytest.approx(abs(done[0] - done[1]) / 2**0.5),
        "folds": 2,
    }
    # Asking again trains only what is missing.
    again = validated(tmp_path, folds, {"plain": TINY})
    assert len(calls) == 4
    assert not again.failures
    np.testing.assert_array_equal(again.accuracy[0, [0, 2]], done)


def test_it_is_read_back_from_json_as_it_was_written(tmp_path: Path) -> None:
    found = validated(tmp_path / "runs", official(faces()), scheme="official")
    assert [dict(fold) for fold in found.folds] == [
        {"name": "official", "n_train": 98, "n_held_out": 21}
    ]
    write_json(tmp_path / "found.json", found.to_dict())
    values = json.loads((tmp_path / "found.json").read_text())
    back = CrossValidation.from_dict(values)
    assert back.to_dict() == found.to_dict()
    assert back.recipes == TWO
    del values["models"][1]["macro_f1"]
    with pytest.raises(DataError, match=r"is no whole cross-validation .it lacks 'macro_f1'"):
        CrossValidation.from_dict(values)


def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    folds = k_fold(faces(), 2)
    settings = {"runs": tmp_path / "two", "threads": 1, "progress": "none", "label": "tiny"}
    several = cross_validate(TWO, faces(), "k-fold", folds, executor=Local(2), **settings)  # type: ignore[arg-type]
    assert several.to_dict() == validated(tmp_path / "one", folds).to_dict()


def test_a_recipe_that_would_choose_on_what_is_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="patience = 3 would choose the last epoch"):
        validated(tmp_path, k_fold(faces(), 2), {"plain": TINY.but(patience=3)})
    with pytest.raises(RecipeError, match="'one' and 'two' are the same recipe"):
        validated(tmp_path, k_fold(faces(), 2), {"one": TINY, "two": TINY})
    with pytest.raises(RecipeError, match="no model"):
        validated(tmp_path, k_fold(faces(), 2), {})


def test_folds_that_are_none_of_the_scheme_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown scheme 'loo'; known: hold-out, official, k-fold"):
        validated(tmp_path, k_fold(faces(), 2), scheme="loo")
    with pytest.raises(DataError, match="9 folds are no '5x2'"):
        validated(tmp_path, five_by_two(faces())[1:], scheme="5x2")
    groups = np.arange(len(faces()))
    groups[-1] = 0
    straddling = Fold("fold 1 of 1", np.arange(100), np.arange(100, len(faces())))
    with pytest.raises(DataError, match="fold 1 of 1: images held out stand in its training part"):
        cross_validate(
            TWO,
            replace(faces(), groups=groups),
            "k-fold",
            [straddling],
            executor=Local(),
            runs=tmp_path,
        )
    assert not list(tmp_path.iterdir())
