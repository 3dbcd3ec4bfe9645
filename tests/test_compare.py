"""Comparing models: which test goes with which scheme, and what makes a comparison invalid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mien.data import CLASSES, FaceSet
from mien.errors import DataError, RunError
from mien.evaluation.compare import compare_folds, compare_runs
from mien.evaluation.cross_validation import CrossValidation
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run

N = 210
LABELS = np.arange(N) % 7


def faces() -> FaceSet:
    """Twice `N` images; the first three of the second half are copies of the first half's."""
    images = np.random.default_rng(0).integers(0, 256, (2 * N, 4, 4)).astype(np.uint8)
    images[N : N + 3] = images[:3]
    return FaceSet(
        images,
        np.tile(LABELS, 2),
        CLASSES,
        np.array([f"{i}.png" for i in range(2 * N)]),
        np.repeat(["Training", "PublicTest"], N),
        name="some faces",
    )


def right(seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(N) < share


def record(
    folder: Path,
    hits: np.ndarray,
    seen: Sequence[int] | None = (),
    *,
    recipe: Recipe | None = None,
    split: str = "PublicTest",
    name: str = "run",
    **other: Any,
) -> Run:
    """A finished run that is right on `hits` and has seen the images at `seen`."""
    part = {"split": ["Training"], "fingerprint": faces()["Training"].fingerprint}
    info = {
        "classes": list(CLASSES),
        "state": "finished",
        "data": {"train": part, "validation": {"split": ["PublicTest"]}},
    }
    run = Run.create(folder / name, recipe or Recipe(model=name), info)
    called = np.where(hits, LABELS, (LABELS + 1) % 7)
    noted = None if seen is None else np.isin(np.arange(N), seen)
    found = Predictions(faces().names[N:], LABELS, np.eye(7, dtype=np.float32)[called], noted)
    run.save_predictions({split: replace(found, **other)})
    return run


def folds(accuracy: Any, scheme: str, held_out: int = 20) -> CrossValidation:
    scores = np.asarray(accuracy, float)
    models, n = scores.shape
    return CrossValidation(
        scheme=scheme,
        label="tiny",
        data={},
        recipes={"abc"[row]: Recipe(seed=row) for row in range(models)},
        folds=[
            {"name": f"fold {i + 1}", "n_train": 200 - held_out, "n_held_out": held_out}
            for i in range(n)
        ],
        accuracy=scores,
        balanced_accuracy=scores,
        macro_f1=scores,
        runs=[[None] * n] * models,
        failures=[],
    )


def test_two_runs_are_compared_by_mcnemar_and_the_bootstrap(tmp_path: Path) -> None:
    a, b = right(1, 0.7), right(2, 0.5)
    found = compare_runs([record(tmp_path, a, name="a"), record(tmp_path, b, name="b")])
    chi, bootstrap = found.pairs
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    expected = mcnemar(table, exact=False, correction=True)
    assert chi.test.p == pytest.approx(expected.pvalue)
    assert chi.test.statistic == pytest.approx(expected.statistic)
    assert "bootstrap" in bootstrap.test.name
    for pair in found.pairs:
        assert (pair.first, pair.second) == ("a", "b")
        assert pair.test.difference == pytest.approx(a.mean() - b.mean())
        assert pair.p_holm == pair.test.p  # one pair is a family of one
    assert [model["accuracy"] for model in found.models] == pytest.approx([a.mean(), b.mean()])
    assert found.notes == (f"on {N} images of 'PublicTest'",)
    assert found.family is None
    assert len(found.sentences) == 2
    assert all("a minus b" in sentence and "Holm" not in sentence for sentence in found.sentences)


def test_three_runs_are_one_family_for_each_test(tmp_path: Path) -> None:
    runs = [
        record(tmp_path, right(i, share), name=name)
        for i, (name, share) in enumerate([("a", 0.6), ("b", 0.5), ("c", 0.65)])
    ]
    found = compare_runs(runs).to_dict()
    json.dumps(found, allow_nan=False)
    pairs = [(row["first"], row["second"]) for row in found["tests"]]
    assert pairs == [("a", "b"), ("a", "b"), ("a", "c"), ("a", "c"), ("b", "c"), ("b", "c")]
    for kind in (0, 1):
        rows = found["tests"][kind::2]
        expected = multipletests([row["p"] for row in rows], method="holm")[1]
        np.testing.assert_allclose([row["p_holm"] for row in rows], expected)
        assert len({row["name"] for row in rows}) == 1
    assert all("after Holm" in sentence for sentence in found["sentences"])


def test_seeds_of_one_recipe_are_told_apart_by_their_runs(tmp_path: Path) -> None:
    runs = [
        record(tmp_path, right(seed, 0.5), recipe=Recipe(model="vgg19", seed=seed), name=f"r{seed}")
        for seed in (0, 1)
    ]
    names = [model["name"] for model in compare_runs(runs).models]
    assert names == ["VGG19 (r0)", "VGG19 (r1)"]


def test_images_that_a_run_was_trained_on_are_refused_or_left_out_for_all(tmp_path: Path) -> None:
    a, b = right(1, 0.7), right(2, 0.5)
    runs = [record(tmp_path, a, [0, 1], name="a"), record(tmp_path, b, [1, 5], name="b")]
    with pytest.raises(
        DataError, match=r"^3 of 210 images of 'PublicTest' stand .*2 for a, 2 for b.*without_cop"
    ):
        compare_runs(runs)
    found = compare_runs(runs, without_copies=True)
    new = np.delete(np.arange(N), [0, 1, 5])
    assert found.pairs[0].test.n == N - 3
    assert found.pairs[0].test.difference == pytest.approx(a[new].mean() - b[new].mean())
    assert any("3 of 210 images" in note and "left out" in note for note in found.notes)
    everything = record(tmp_path, a, range(N), name="all")
    with pytest.raises(DataError, match="so none is left; compare on another split"):
        compare_runs([everything, runs[1]], without_copies=True)


def test_where_it_was_not_noted_the_data_set_tells_what_a_run_has_seen(tmp_path: Path) -> None:
    runs = [
        record(tmp_path, right(1, 0.7), None, name="a"),
        record(tmp_path, right(2, 0.5), name="b"),
    ]
    with pytest.raises(DataError, match=r"a: did not note which images .* give the data set too"):
        compare_runs(runs)
    with pytest.raises(DataError, match=r"3 of 210 images .*3 for a, 0 for b"):
        compare_runs(runs, faces=faces())
    assert compare_runs(runs, faces=faces(), without_copies=True).pairs[0].test.n == N - 3
    with pytest.raises(DataError, match="does not hold the images that a was trained on"):
        compare_runs(runs, faces=faces()[1:])
    renamed = replace(faces(), names=faces().names[::-1])
    with pytest.raises(DataError, match="'PublicTest' are not those that a has predictions for"):
        compare_runs(runs, faces=renamed)


def test_other_images_or_labels_are_refused_by_the_first_that_differs(tmp_path: Path) -> None:
    first = record(tmp_path, right(1, 0.7), name="a")

    def against(**other: Any) -> Run:
        return record(tmp_path, right(2, 0.5), name="b", **other)

    names, labels = faces().names[N:], LABELS.copy()
    names[[4, 9]], labels[7] = "x.png", 6
    with pytest.raises(DataError, match=r"image 4 is '214.png' for .* and 'x.png' .* 1 more diff"):
        compare_runs([first, against(names=names)])
    with pytest.raises(DataError, match="label 7 is '0' for the one and '6'"):
        compare_runs([first, against(labels=labels)])
    fewer = {key: getattr(first.predictions("PublicTest"), key)[1:] for key in ("names", "labels")}
    with pytest.raises(DataError, match="210 and 209 images"):
        compare_runs([first, against(**fewer)])
    for digest in ({"pixels": "a"}, {"pixels": "b"}):
        compare_runs([first, other := against(**digest)])  # of the first it is not known
    with pytest.raises(DataError, match="same names and other pixels"):
        compare_runs([other, record(tmp_path, right(1, 0.7), name="c", pixels="a")])
    validated = [record(tmp_path, right(1, 0.7), name=name) for name in "de"]
    for run in validated:
        run.info["data"]["validation"]["fingerprint"] = run.name
    with pytest.raises(DataError, match="same names and other pixels"):
        compare_runs(validated)
    compare_runs([validated[0], other])  # noted in two ways, which tell nothing of each other
    other = against()
    other.info["classes"] = list(CLASSES[::-1])
    with pytest.raises(DataError, match="classes differ"):
        compare_runs([first, other])


def test_the_split_is_the_one_labelled_split_that_all_have(tmp_path: Path) -> None:
    runs = [record(tmp_path, right(i, 0.6), name=f"r{i}") for i in range(2)]
    kept = [run.predictions("PublicTest") for run in runs]
    unlabelled = replace(kept[0], labels=np.full(N, -1))
    for run in runs:
        run.save_predictions({"PrivateTest": unlabelled})
    assert compare_runs(runs).notes == (f"on {N} images of 'PublicTest'",)
    with pytest.raises(DataError, match="r0: 210 images of 'PrivateTest' have no label"):
        compare_runs(runs, "PrivateTest")
    runs[0].save_predictions({"test": kept[0]})
    assert compare_runs(runs).notes[0].endswith("images of 'PublicTest'")
    runs[1].save_predictions({"test": kept[1]})
    with pytest.raises(RunError, match=r"PublicTest, test .*; name one"):
        compare_runs(runs)
    assert compare_runs(runs, "test").notes[0].endswith("images of 'test'")
    with pytest.raises(RunError, match="holds no predictions for 'train'"):
        compare_runs(runs, "train")


def test_runs_of_a_hold_out_go_by_the_split_they_were_divided_from(tmp_path: Path) -> None:
    runs = [record(tmp_path, right(i, 0.6), name=f"r{i}", split="Training") for i in range(2)]
    assert compare_runs(runs).notes == (f"on {N} images held out of 'Training'",)


def test_a_run_that_chose_on_the_split_is_marked(tmp_path: Path) -> None:
    runs = [
        record(tmp_path, right(1, 0.7), recipe=Recipe(patience=3), name="a"),
        record(tmp_path, right(2, 0.5), recipe=Recipe(model="vgg19"), name="b"),
    ]
    assert compare_runs(runs).notes[1:] == (
        "plain chose its last epoch on 'PublicTest', so its accuracy there is too high",
    )


def test_one_run_the_same_twice_and_unfinished_ones_are_refused(tmp_path: Path) -> None:
    run = record(tmp_path, right(1, 0.7), name="a")
    with pytest.raises(RunError, match=r"1 run.*nothing to compare"):
        compare_runs([run])
    with pytest.raises(RunError, match="a: was given 2 times"):
        compare_runs([run, run])
    other = record(tmp_path, right(2, 0.5), name="b")
    other.info["state"] = "training"
    with pytest.raises(RunError, match="b: is not finished"):
        compare_runs([run, other])


def test_folds_are_compared_by_the_corrected_resampled_t(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    accuracy = [rng.normal(0.62, 0.02, 10), rng.normal(0.6, 0.02, 10)]
    found = compare_folds(folds(accuracy, "k-fold", held_out=20))
    [pair] = found.pairs
    d = accuracy[0] - accuracy[1]
    # By hand: 20 images held out of 200, so the variance counts 1/10 + 20/180 times.
    t = d.mean() / np.sqrt((1 / 10 + 20 / 180) * d.var(ddof=1))
    assert pair.test.statistic == pytest.approx(t)
    assert pair.test.p == pair.p_holm == pytest.approx(2 * stats.t.sf(abs(t), 9))
    assert found.family is None
    assert found.notes == ("tiny",)
    assert found.models[0]["std"] == pytest.approx(np.std(accuracy[0], ddof=1))


def test_halves_are_compared_by_the_5x2cv_tests_in_the_order_of_the_repeats() -> None:
    rng = np.random.default_rng(1)
    accuracy = rng.normal(0.6, 0.02, (2, 10))
    paired, combined = compare_folds(folds(accuracy, "5x2")).pairs
    d = accuracy[0] - accuracy[1]
    # By hand after Dietterich and Alpaydin: folds 1 and 2 are the halves of repeat 1, and so on.
    variances = [(d[i] - d[i : i + 2].mean()) ** 2 + (d[i + 1] - d[i : i + 2].mean()) ** 2
                 for i in range(0, 10, 2)]  # fmt: skip
    assert paired.test.statistic == pytest.approx(d[0] / np.sqrt(np.mean(variances)))
    assert combined.test.statistic == pytest.approx((d**2).sum() / (2 * np.sum(variances)))
    assert paired.test.degrees_of_freedom == (5,)
    assert combined.test.degrees_of_freedom == (10, 5)


def test_three_models_over_folds_are_ranked_too_with_the_caveat() -> None:
    rng = np.random.default_rng(2)
    accuracy = rng.normal([[0.6], [0.62], [0.65]], 0.02, (3, 10))
    found = compare_folds(folds(accuracy, "5x2")).to_dict()
    json.dumps(found, allow_nan=False)
    expected = stats.friedmanchisquare(*accuracy)
    assert found["family"]["p"] == pytest.approx(expected.pvalue)
    assert found["family"]["blocks"] == 10
    assert "not independent" in found["family"]["assumptions"]
    assert found["sentences"][-1].startswith(("The 3 models", "No difference in rank"))
    for kind in (0, 1):
        rows = found["tests"][kind::2]
        adjusted = multipletests([row["p"] for row in rows], method="holm")[1]
        np.testing.assert_allclose([row["p_holm"] for row in rows], adjusted)


def test_only_the_pairs_asked_for_are_tested_and_adjusted_for() -> None:
    accuracy = np.random.default_rng(2).normal([[0.6], [0.62], [0.65]], 0.02, (3, 10))
    every = {(p.first, p.second): p.test for p in compare_folds(folds(accuracy, "k-fold")).pairs}
    found = compare_folds(folds(accuracy, "k-fold"), [("a", "c"), ("b", "c")])
    assert [(p.first, p.second) for p in found.pairs] == [("a", "c"), ("b", "c")]
    assert all(p.test == every[p.first, p.second] for p in found.pairs)
    adjusted = multipletests([p.test.p for p in found.pairs], method="holm")[1]
    np.testing.assert_allclose([p.p_holm for p in found.pairs], adjusted)


@pytest.mark.parametrize("scheme", ["hold-out", "official"])
def test_a_scheme_of_one_fold_is_refused_with_what_to_do(scheme: str) -> None:
    with pytest.raises(DataError, match=r"trains each model once.*compare the runs"):
        compare_folds(folds([[0.6], [0.7]], scheme))


def test_missing_folds_single_models_and_folds_without_variance_are_refused() -> None:
    accuracy = np.random.default_rng(0).normal(0.6, 0.02, (2, 10))
    accuracy[1, [2, 5]] = np.nan
    with pytest.raises(DataError, match=r"missing .b on fold 3, b on fold 6.*cross-validate again"):
        compare_folds(folds(accuracy, "k-fold"))
    with pytest.raises(DataError, match=r"1 model.*nothing to compare"):
        compare_folds(folds(accuracy[:1], "k-fold"))
    with pytest.raises(DataError, match=r"^a and b: the differences do not vary"):
        compare_folds(folds([[0.5] * 10, [0.25] * 10], "5x2"))
