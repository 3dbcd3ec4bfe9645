"""Roles of splits, and carving that keeps copies together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.data import CLASSES, FaceSet, Roles, roles
from mien.data.splits import carve, sample
from mien.errors import DataError


def faces(split, labels, groups=None, classes=CLASSES) -> FaceSet:
    """A set whose images are as equal as their groups."""
    n = len(labels)
    groups = np.arange(n) if groups is None else np.asarray(groups)
    images = np.zeros((n, 4, 4), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = groups % 256, groups // 256
    return FaceSet(
        images=images,
        labels=np.asarray(labels, np.int64),
        classes=classes,
        names=np.array([f"{number}.png" for number in range(n)]),
        split=np.full(n, split) if isinstance(split, str) else np.asarray(split),
        name="some faces",
    )


SEVEN = np.tile(np.arange(7), 20)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Training", "PublicTest", "PrivateTest"), ("Training", "PublicTest", "PrivateTest")),
        (("train", "val", "test"), ("train", "val", "test")),
        (("TEST", "Train", "valid"), ("Train", "valid", "TEST")),
        (("train", "validation"), ("train", "validation", None)),
    ],
)
def test_roles_are_told_from_names(names, expected):
    whole = faces(np.repeat(names, 140), np.tile(SEVEN, len(names)))
    same, found = roles(whole)
    assert same is whole
    assert found == Roles(*expected)


def test_a_split_that_has_no_role_is_noted():
    names = ("train", "validation", "test", "extra")
    found, _ = roles(faces(np.repeat(names, 140), np.tile(SEVEN, 4)))
    assert any(note.startswith("not used") and note.endswith(": extra") for note in found.notes)


def test_validation_is_carved_from_train_where_there_is_none():
    whole = faces(np.repeat(["train", "test"], 140), np.tile(SEVEN, 2))
    carved, found = roles(whole, validation_share=0.2)
    assert found == Roles("train", "validation", "test")
    np.testing.assert_array_equal(carved["validation"].counts(), [4] * 7)
    np.testing.assert_array_equal(carved["train"].counts(), [16] * 7)
    assert (carved.split[140:] == "test").all()
    assert any("carved from train" in note for note in carved.notes)
    assert (whole.split[:140] == "train").all()  # the given set is as it was


def test_one_split_is_carved_into_three():
    carved, found = roles(faces("all", np.tile(np.arange(7), 100)))
    assert found == Roles("train", "validation", "test")
    for split, count in (("train", 70), ("validation", 15), ("test", 15)):
        np.testing.assert_array_equal(carved[split].counts(), [count] * 7)


def test_the_seed_decides_which_images_are_carved():
    whole = faces("all", SEVEN)
    one, again, other = (roles(whole, seed=seed)[0].split for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=150),
    st.floats(0.05, 0.6),
    st.integers(0, 1000),
)
def test_copies_never_straddle_a_carved_split(images, share, seed):
    # Every class gets three images of its own, so that carving is possible at all.
    images = images + [(label, 100 + 3 * label + n) for label in range(3) for n in range(3)]
    labels, groups = np.array(images).T
    whole = faces("train", labels, groups, ("a", "b", "c"))
    carved, _ = roles(whole, seed=seed, validation_share=share)
    assert set(carved.splits) == {"train", "validation"}
    for group in np.unique(whole.groups):
        assert len(set(carved.split[whole.groups == group])) == 1
    assert not carved["validation"].stands_in(carved["train"]).any()
    assert set(carved["train"].labels) == {0, 1, 2}
    # The share is met up to half of the largest group of copies of each class.
    sizes = np.bincount(whole.groups)
    allowed = 3 * (sizes.max() + 1)
    assert abs(len(carved["validation"]) - share * len(whole)) <= allowed


def test_a_large_group_of_copies_does_not_swell_a_carved_split():
    # 40 copies of one image and 60 images of their own: a tenth is ten images, whatever the seed.
    labels, groups = np.zeros(100, int), [0] * 40 + list(range(1, 61))
    for seed in range(200):
        carved, _ = roles(faces("train", labels, groups, ("a",)), seed=seed)
        assert len(carved["validation"]) == 10


def test_copies_with_different_labels_stay_together():
    labels = np.r_[SEVEN, 0, 3]
    groups = np.r_[np.arange(140), 500, 500]
    for seed in range(20):
        carved, _ = roles(faces("train", labels, groups), seed=seed)
        assert carved.split[140] == carved.split[141]


def test_a_class_with_too_few_distinct_images_is_named():
    labels, groups = np.r_[SEVEN % 6, 6, 6, 6], np.r_[np.arange(140), 900, 900, 900]
    with pytest.raises(DataError, match="'neutral' has 1 distinct image"):
        roles(faces("train", labels, groups))


def test_a_class_missing_from_train_is_named():
    split = np.repeat(["train", "validation"], 140)
    with pytest.raises(DataError, match=r"split 'train' has no image of class 'neutral'.*20"):
        roles(faces(split, np.r_[SEVEN % 6, SEVEN]))


def test_a_class_missing_from_another_split_is_noted():
    split = np.repeat(["train", "validation", "test"], 140)
    noted, _ = roles(faces(split, np.r_[SEVEN, SEVEN % 6, np.full(140, -1)]))
    assert noted.notes == ("split 'validation' has no image of class 'neutral'",)


def test_an_unlabelled_split_is_no_training_split():
    with pytest.raises(DataError, match="140 images of split 'train' have no label"):
        roles(faces("train", np.full(140, -1)))
    with pytest.raises(DataError, match="3 images of split 'all' have no label"):
        roles(faces("all", np.r_[SEVEN, -1, -1, -1]))


@pytest.mark.parametrize("names", [("PublicTest", "PrivateTest"), ("test",), ("a", "b")])
def test_a_set_without_a_training_split_is_refused(names):
    with pytest.raises(DataError, match="no split to train on"):
        roles(faces(np.repeat(names, 140), np.tile(SEVEN, len(names))))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_outside_zero_and_one_is_refused(share):
    with pytest.raises(DataError, match="between 0 and 1"):
        roles(faces("train", SEVEN), validation_share=share)


def test_a_carved_split_needs_a_name_of_its_own():
    with pytest.raises(DataError, match="has a split 'train' already"):
        carve(faces("train", SEVEN), "train", {"train": 0.1})


def test_a_sample_holds_at_most_so_many_of_each_class_and_is_always_the_same() -> None:
    labels = np.repeat(np.arange(7), [5, 1, 9, 3, 3, 3, 3])
    few = sample(faces("train", labels), 3)
    assert few.counts().tolist() == [3, 1, 3, 3, 3, 3, 3]
    assert few.names.tolist() == sample(faces("train", labels), 3).names.tolist()


def test_a_sample_without_a_limit_is_the_set_itself() -> None:
    whole = faces("train", np.arange(7))
    assert sample(whole, None) is whole
