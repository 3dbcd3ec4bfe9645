"""How many images of each class are to be generated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.balance import to_generate
from mien.data import CLASSES
from mien.errors import DataError, RecipeError

TRAINING = (3995, 436, 4097, 7215, 4830, 3171, 4965)
"""Images of each class in the Training split of FER-2013."""


@pytest.mark.parametrize("lift", [5670, "5670", " 5670 ", np.int64(5670)])
def test_the_papers_table_3_is_every_class_below_5670_lifted_to_it(lift: Any) -> None:
    found = to_generate(TRAINING, CLASSES, lift)
    assert found.tolist() == [1675, 5234, 1573, 0, 840, 2499, 705]
    assert found.sum() == 12_526
    assert found.dtype == np.int64


def test_equal_lifts_every_class_to_the_largest() -> None:
    missing = to_generate(np.array(TRAINING), CLASSES, "equal")
    assert (missing + TRAINING).tolist() == [7215] * 7


@pytest.mark.parametrize(
    "lift",
    ["disgust=5670,fear=5000", " fear = 5000 , disgust=5670", {"disgust": 5670, "fear": 5000}],
)
def test_counts_per_class_are_totals_and_leave_the_others_alone(lift: Any) -> None:
    assert to_generate(TRAINING, CLASSES, lift).tolist() == [0, 5234, 903, 0, 0, 0, 0]


def test_a_class_may_be_kept_as_it_is_and_bear_any_name() -> None:
    assert to_generate([5, 9], ["a=b", "c"], "a=b=7,c=9").tolist() == [2, 0]


@given(st.lists(st.integers(2, 9000), min_size=2, max_size=9), st.integers(1, 9000))
def test_no_class_gives_up_images_and_none_is_left_below_the_lift(
    counts: list[int], lift: int
) -> None:
    classes = [str(number) for number in range(len(counts))]
    if lift <= min(counts):
        with pytest.raises(RecipeError, match="lifts no class"):
            to_generate(counts, classes, lift)
        return
    total = np.array(counts) + to_generate(counts, classes, lift)
    assert total.tolist() == [max(count, lift) for count in counts]


@pytest.mark.parametrize(
    ("counts", "lift"), [(TRAINING, 436), (TRAINING, "disgust=436"), ([9] * 7, "equal")]
)
def test_a_lift_that_lifts_no_class_says_what_the_smallest_has(counts: Any, lift: Any) -> None:
    smallest = {436: "'disgust', has 436", 9: "'angry', has 9"}[min(counts)]
    with pytest.raises(RecipeError, match=f"'{lift}' lifts no class: .*{smallest} images; give"):
        to_generate(counts, CLASSES, lift)


def test_a_lift_below_what_a_class_has_names_both_figures() -> None:
    with pytest.raises(RecipeError, match=r"'happy' has 7,215 images, more than the 5,670 it"):
        to_generate(TRAINING, CLASSES, "disgust=5670,happy=5670")


def test_an_unknown_class_gets_the_nearest_known_one() -> None:
    with pytest.raises(RecipeError, match=r"unknown class 'disgusted' .did you mean 'disgust'"):
        to_generate(TRAINING, CLASSES, "disgusted=5670")


@pytest.mark.parametrize("images", [0, 1])
def test_a_class_of_fewer_than_two_images_cannot_be_lifted(images: int) -> None:
    counts = [50, images, 50]
    with pytest.raises(DataError, match=rf"class 'b' has {images} image\(s\).* needs two"):
        to_generate(counts, "abc", 60)
    assert to_generate(counts, "abc", "a=60").tolist() == [10, 0, 0]  # it is not to be lifted


@pytest.mark.parametrize(
    "lift",
    ["", "equals", "5,670", "-5", "56.7", "disgust", "disgust=", "disgust=many", "disgust=5,fear",
     5.5, True, None, {"disgust": "x"}, {"disgust": 5670.0}],
)  # fmt: skip
def test_what_is_no_lift_is_refused_with_what_would_be_one(lift: Any) -> None:
    with pytest.raises(RecipeError, match=r"is no lift: give .*5670.*'equal'.*disgust=5670"):
        to_generate(TRAINING, CLASSES, lift)


@pytest.mark.parametrize("lift", [0, -1, "0", "disgust=0", 10**30, "1" + "0" * 30])
def test_a_count_out_of_range_is_refused(lift: Any) -> None:
    with pytest.raises(RecipeError, match=r"outside 1 to 10000000$"):
        to_generate(TRAINING, CLASSES, lift)


def test_a_class_given_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match="gives class 'disgust' twice"):
        to_generate(TRAINING, CLASSES, "disgust=5670,disgust=6000")
