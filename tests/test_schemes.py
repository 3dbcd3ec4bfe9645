"""Schemes: every division keeps copies together, classes even, and the final test out of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

import mien
from mien.data import CLASSES, FaceSet
from mien.errors import DataError
from mien.evaluation.schemes import SCHEMES, Fold, five_by_two, hold_out, k_fold, official


def faces(labels, groups=None, split="Training", classes=CLASSES) -> FaceSet:
    n = len(labels)
    return FaceSet(
        images=np.zeros((n, 2, 2), np.uint8),
        labels=np.asarray(labels, np.int64),
        classes=classes,
        names=np.array([f"{number}.png" for number in range(n)]),
        split=np.full(n, split) if isinstance(split, str) else np.asarray(split),
        groups=np.arange(n) if groups is None else np.asarray(groups),
        name="some faces",
    )


def counts(whole: FaceSet, folds: list[Fold]) -> np.ndarray:
    """Images of each class that each fold holds out, [F, C]."""
    return np.stack([whole[fold.held_out].counts() for fold in folds])


def like_fer2013(seed: int) -> FaceSet:
    """1,000 images with its shares of the classes, and copies, some with several labels."""
    rng = np.random.default_rng(seed)
    groups = np.arange(1000)
    groups[rng.choice(1000, 80, replace=False)] = rng.integers(0, 30, 80)
    labels = rng.choice(7, 1000, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])
    mixed = rng.random(1000) < 0.1
    return faces(np.where(mixed, labels, labels[groups]), groups)


SEVEN = np.tile(np.arange(7), 20)


@st.composite
def sets(draw) -> tuple[FaceSet, int]:
    """Faces of three classes with groups of copies, and a number of folds they suffice for."""
    parts = draw(st.integers(2, 6))
    drawn = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=80))
    own = [(label, 100 + label * parts + i) for label in range(3) for i in range(parts)]
    groups = [group for _, group in [*drawn, *own]]
    # Of drawn copies with several labels only the first label is kept.
    first = {group: label for label, group in reversed([*drawn, *own])}
    return faces([first[group] for group in groups], groups, classes=("a", "b", "c")), parts


@settings(max_examples=30, deadline=None)
@given(sets(), st.integers(0, 1000))
def test_every_image_is_held_out_once_and_no_copy_is_on_both_sides(drawn, seed):
    whole, parts = drawn
    rounds = [k_fold(whole, parts, seed), hold_out(whole, 0.3, seed)]
    halves = five_by_two(whole, seed)
    rounds += [halves[i : i + 2] for i in range(0, 10, 2)]
    for folds in rounds:
        for fold in folds:
            both = np.concatenate([fold.train, fold.held_out])
            np.testing.assert_array_equal(np.sort(both), np.arange(len(whole)))
            assert (np.diff(fold.train) > 0).all()
            assert (np.diff(fold.held_out) > 0).all()
            assert not np.isin(whole.groups[fold.held_out], whole.groups[fold.train]).any()
            assert (whole[fold.train].counts() > 0).all()
            assert (whole[fold.held_out].counts() > 0).all()
        if len(folds) > 1:
            held_out = np.concatenate([fold.held_out for fold in folds])
            np.testing.assert_array_equal(np.sort(held_out), np.arange(len(whole)))


@settings(max_examples=30, deadline=None)
@given(sets(), st.integers(0, 1000))
def test_a_class_differs_between_folds_by_its_largest_group_at_the_most(drawn, seed):
    whole, parts = drawn
    spread = np.ptp(counts(whole, k_fold(whole, parts, seed)), axis=0)
    for label in range(3):
        largest = np.bincount(whole.groups[whole.labels == label]).max()
        assert spread[label] <= largest


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=30, max_size=120), st.integers(2, 5))
def test_without_copies_sizes_differ_by_one_image_at_the_most(labels, parts):
    whole = faces([*labels, *np.repeat([0, 1, 2], parts)], classes=("a", "b", "c"))
    found = counts(whole, k_fold(whole, parts))
    assert np.ptp(found, axis=0).max() <= 1
    assert np.ptp(found.sum(1)) <= 1


@pytest.mark.parametrize("folds", [2, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_classes_are_as_even_as_those_of_scikit_learn(folds, seed):
    whole = like_fer2013(seed)
    theirs = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    divided = theirs.split(whole.labels, whole.labels, whole.groups)
    expected = np.stack([whole[held_out].counts() for _, held_out in divided])
    ours = counts(whole, k_fold(whole, folds, seed))
    assert ours.std(0).mean() <= expected.std(0).mean() + 1e-9


def test_a_hold_out_is_a_share_of_every_class():
    [fold] = hold_out(faces(SEVEN))
    assert fold.name == "hold-out"
    np.testing.assert_array_equal(counts(faces(SEVEN), [fold]), [[4] * 7])
    [fold] = hold_out(faces(SEVEN), share=0.5)
    assert len(fold.held_out) == len(fold.train) == 70


def test_folds_have_names_and_the_halves_of_a_repeat_change_places():
    names = [fold.name for fold in k_fold(faces(SEVEN), 3)]
    assert names == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    folds = five_by_two(faces(SEVEN))
    assert [fold.name for fold in folds] == [
        f"repeat {repeat}, half {half}" for repeat in range(1, 6) for half in (1, 2)
    ]
    for one, other in zip(folds[::2], folds[1::2], strict=True):
        np.testing.assert_array_equal(one.train, other.held_out)
        np.testing.assert_array_equal(one.held_out, other.train)
    assert len({fold.train.tobytes() for fold in folds}) == 10


def test_the_largest_group_is_in_either_half_of_a_repeat():
    group = np.repeat(np.arange(10), [11, *[1] * 9])
    whole = faces(np.zeros(len(group)), group, classes=CLASSES[:1])
    sides = [0 in group[fold.held_out] for fold in five_by_two(whole)[::2]]
    assert len(set(sides)) == 2


@pytest.mark.parametrize("divide", [hold_out, k_fold, five_by_two])
def test_the_seed_alone_decides(divide: Callable[..., list[Fold]]) -> None:
    def rows(seed: int) -> list[list[int]]:
        return [fold.held_out.tolist() for fold in divide(faces(SEVEN), seed=seed)]

    assert rows(3) == rows(3) != rows(4)


def test_the_official_splits_are_taken_as_they_are_but_for_copies_across_them():
    split = np.repeat(["Training", "PublicTest"], 140)
    groups = np.r_[np.arange(140), 5, np.arange(500, 639)]  # one validation image is trained on
    [fold] = official(faces(np.tile(SEVEN, 2), groups, split))
    np.testing.assert_array_equal(fold.train, np.arange(140))
    np.testing.assert_array_equal(fold.held_out, np.arange(141, 280))


def test_a_set_without_a_validation_split_has_no_official_splits():
    with pytest.raises(DataError, match=r"no official split 'validation' \(only Training\); use"):
        official(faces(SEVEN))
    with pytest.raises(DataError, match=r"no official split 'train' \(only all\)"):
        official(faces(SEVEN, split="all"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_final_test_split_and_images_without_labels_are_refused(scheme: str) -> None:
    split = np.repeat(["Training", "PublicTest", "PrivateTest"], 140)
    with pytest.raises(DataError, match="'PrivateTest' is a final test split"):
        SCHEMES[scheme](faces(np.tile(SEVEN, 3), split=split))
    with pytest.raises(DataError, match="2 of 142 images have no label"):
        SCHEMES[scheme](faces([*SEVEN, -1, -1]))


def test_a_class_with_too_few_distinct_images_is_named():
    few = [*SEVEN[SEVEN != 1], 1, 1, 1]
    copies = np.r_[np.arange(120), 900, 900, 900]
    with pytest.raises(DataError, match=r"'disgust' has 3 distinct.*too few for 10 folds; add im"):
        k_fold(faces(few))
    assert (counts(faces(few), k_fold(faces(few), 3))[:, 1] == 1).all()
    for divide in (hold_out, five_by_two):
        with pytest.raises(DataError, match="'disgust' has 1 distinct image"):
            divide(faces(few, copies))
    with pytest.raises(DataError, match="'neutral' has 0 distinct"):
        k_fold(faces(SEVEN % 6), 2)


def test_one_fold_and_a_share_of_nothing_are_refused():
    with pytest.raises(DataError, match="1 fold"):
        k_fold(faces(SEVEN), 1)
    with pytest.raises(DataError, match="between 0 and 1"):
        hold_out(faces(SEVEN), share=1.0)


@pytest.mark.real
def test_folds_of_the_real_training_split_are_even_and_share_no_copy(fer2013) -> None:
    whole = mien.read(fer2013)
    whole = whole[whole.split != "PrivateTest"]
    train = whole["Training"]
    folds = k_fold(train)
    assert np.ptp(counts(train, folds), axis=0).max() <= 1
    assert np.ptp([len(fold.held_out) for fold in folds]) <= 3
    for fold in folds:
        assert not train[fold.held_out].stands_in(train[fold.train]).any()
    [fold] = official(whole)
    assert (len(fold.train), len(fold.held_out)) == (28_709, 3_589 - 280)
