"""The tests of significance, against mlxtend, statsmodels, SciPy and the papers' own examples."""

from __future__ import annotations

import json
import warnings
from math import atan, inf, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mlxtend.evaluate import combined_ftest_5x2cv, paired_ttest_5x2cv
from mlxtend.evaluate import mcnemar as mlxtend_mcnemar
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from mien.errors import DataError
from mien.evaluation import ranks, significance

FIVE_BY_TWO = [
    np.random.default_rng(seed).normal(mean, 0.02, (5, 2))
    for seed, mean in enumerate((0.0, 0.01, -0.03))
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def table(both: int, only_first: int, only_second: int, neither: int) -> tuple[list, list]:
    """Images with that many right under both models, one, the other, none."""
    counts = (both, only_first, only_second, neither)
    return tuple(  # type: ignore[return-value]
        np.repeat(right, counts).tolist() for right in ([1, 1, 0, 0], [1, 0, 1, 0])
    )


class Replayed:
    """A classifier whose scores are given: mlxtend asks for them in the order of the halves."""

    _estimator_type = "classifier"

    def __init__(self, scores: list[float]) -> None:
        self.scores = iter(scores)

    def fit(self, x: np.ndarray, y: np.ndarray) -> Replayed:
        return self


def by_mlxtend(test, differences: np.ndarray) -> tuple[float, float]:
    first, second = Replayed(differences.ravel().tolist()), Replayed([0.0] * 10)
    x, y = np.zeros((8, 1)), np.array([0, 1] * 4)
    return test(first, second, x, y, scoring=lambda model, *_: next(model.scores))


@pytest.mark.parametrize("differences", FIVE_BY_TWO)
def test_the_5x2cv_t_test_is_that_of_mlxtend(differences):
    found = significance.paired_t_5x2cv(differences)
    t, p = by_mlxtend(paired_ttest_5x2cv, differences)
    assert (found.statistic, found.p) == pytest.approx((t, p), rel=1e-8)
    assert found.degrees_of_freedom == (5,)
    assert found.effect_size == pytest.approx(differences.mean())


@pytest.mark.parametrize("differences", FIVE_BY_TWO)
def test_the_combined_f_test_is_that_of_mlxtend(differences):
    found = significance.combined_f_5x2cv(differences)
    f, p = by_mlxtend(combined_ftest_5x2cv, differences)
    assert (found.statistic, found.p) == pytest.approx((f, p), rel=1e-8)
    assert found.difference == pytest.approx(differences.mean())


def test_the_published_critical_values_are_where_the_5x2cv_tests_turn():
    # Dietterich rejects above t = 2.571, Alpaydin above F = 4.74.
    halves = np.array([[0.0, 0.02]] * 5)  # each variance 0.0002, the error 0.01414
    for t, rejected in ((2.56, False), (2.58, True)):
        shifted = halves + t * sqrt(0.0002)
        assert (significance.paired_t_5x2cv(shifted).p < 0.05) == rejected
    for f, rejected in ((4.72, False), (4.75, True)):
        # F = sum of squares / (5 * 0.02^2), the halves standing at m +- 0.01
        m = sqrt(f * 0.002 / 10 - 0.0001)
        found = significance.combined_f_5x2cv([[m - 0.01, m + 0.01]] * 5)
        assert found.statistic == pytest.approx(f)
        assert (found.p < 0.05) == rejected


def test_the_corrected_t_test_is_the_one_worked_by_hand():
    # Four differences, mean 0.025 and variance 1/6000; measured on a fifth: 1/4 + 0.2/0.8 = 1/2.
    found = significance.corrected_resampled_t([0.01, 0.02, 0.03, 0.04], test_share=0.2)
    t = 0.025 / sqrt(0.5 / 6000)
    assert found.statistic == pytest.approx(t)
    # Student's distribution with three degrees of freedom in closed form
    u = t / sqrt(3)
    assert found.p == pytest.approx(1 - 2 / pi * (u / (1 + u * u) + atan(u)))
    half = 3.18245 * sqrt(0.5 / 6000)  # the tables' t at 97.5 % for three
    assert found.interval == pytest.approx((0.025 - half, 0.025 + half), abs=1e-7)


def test_without_test_images_the_correction_vanishes():
    d = FIVE_BY_TWO[1].ravel()
    expected = stats.ttest_1samp(d, 0)
    found = significance.corrected_resampled_t(d, test_share=1e-12)
    assert (found.statistic, found.p) == pytest.approx(tuple(expected), rel=1e-6)
    assert significance.corrected_resampled_t(d, test_share=0.1).p > found.p


@pytest.mark.parametrize("cells", [(50, 30, 12, 8), (500, 13, 12, 9), (0, 25, 60, 0)])
def test_mcnemar_with_many_disagreements_is_the_corrected_chi_square(cells):
    found = significance.mcnemar(*table(*cells))
    square = np.reshape(cells, (2, 2))
    by_statsmodels = statsmodels_mcnemar(square, exact=False, correction=True)
    expected = (by_statsmodels.statistic, by_statsmodels.pvalue)
    assert (found.statistic, found.p) == pytest.approx(expected)
    assert mlxtend_mcnemar(square, corrected=True) == pytest.approx(expected)
    assert found.name == "McNemar chi-square"


@pytest.mark.parametrize("cells", [(50, 20, 4, 8), (5, 0, 6, 9), (1, 1, 0, 0), (3, 4, 4, 0)])
def test_mcnemar_with_few_disagreements_is_exact(cells):
    found = significance.mcnemar(*table(*cells))
    by_statsmodels = statsmodels_mcnemar(np.reshape(cells, (2, 2)), exact=True)
    assert found.p == pytest.approx(by_statsmodels.pvalue)
    assert found.statistic == by_statsmodels.statistic
    assert (found.name, found.degrees_of_freedom) == ("exact McNemar", ())


def test_evenly_split_disagreements_give_mcnemar_a_p_of_1():
    assert significance.mcnemar(*table(10, 20, 20, 10)).p == 1


def test_the_interval_of_mcnemar_is_that_of_agrestis_example():
    # Agresti, Categorical Data Analysis, section 10.1: approval of a prime minister in two polls
    found = significance.mcnemar(*table(794, 150, 86, 570))
    assert found.difference == pytest.approx(0.04)
    assert found.interval == pytest.approx((0.02, 0.06), abs=0.0025)


def test_the_interval_of_mcnemar_adds_half_an_image_to_each_cell():
    cells = np.array([30, 6, 1, 3])
    differences = np.array([0, 1, -1, 0])
    mean = np.average(differences, weights=cells + 0.5)
    variance = np.average((differences - mean) ** 2, weights=cells + 0.5)
    half = 1.959964 * sqrt(variance / (cells.sum() + 2))
    found = significance.mcnemar(*table(*cells))
    assert found.interval == pytest.approx((mean - half, mean + half), abs=1e-6)


def test_two_models_that_never_disagree_still_leave_an_interval_with_a_width():
    found = significance.mcnemar(*table(40, 0, 0, 10))
    assert (found.p, found.difference, found.effect_size) == (1, 0, None)
    low, high = found.interval
    assert -0.06 < low < 0 < high < 0.06


def test_the_bootstrap_agrees_with_scipys_and_repeats_itself(rng):
    first, second = rng.random((2, 400))
    second += 0.02
    found = significance.paired_bootstrap(first, second, measure="loss", seed=3)
    expected = stats.bootstrap(
        (first - second,), np.mean, method="percentile", random_state=np.random.default_rng(0)
    )
    interval = (expected.confidence_interval.low, expected.confidence_interval.high)
    assert found.interval == pytest.approx(interval, abs=0.003)
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.03)
    assert significance.paired_bootstrap(first, second, measure="loss", seed=3) == found
    assert significance.paired_bootstrap(first, second, measure="loss", seed=4) != found
    assert "points" not in found.sentence("A", "B")


def test_the_bootstrap_counts_ties_of_fifths_as_those_of_whole_numbers(rng):
    first, second = rng.integers(0, 6, (2, 20))
    whole = significance.paired_bootstrap(first, second)
    assert significance.paired_bootstrap(first / 5, second / 5).p == whole.p


def test_the_bootstrap_of_right_and_wrong_agrees_with_mcnemar():
    first, second = table(700, 90, 60, 150)
    found = significance.paired_bootstrap(first, second)
    # without the correction for continuity, which the bootstrap has not
    uncorrected = statsmodels_mcnemar([[700, 90], [60, 150]], exact=False, correction=False)
    assert found.p == pytest.approx(uncorrected.pvalue, abs=0.006)
    expected = significance.mcnemar(first, second).interval
    assert found.interval == pytest.approx(expected, abs=0.003)


# Demšar (2006), table 6: AUC of C4.5 without and with its parameters tuned, on 14 data sets.
# Two scores printed alike (voting, 0.975) were ranked before rounding.
DEMSAR = """
0.763 0.768 0.771 0.798   0.599 0.591 0.590 0.569   0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657   0.882 0.888 0.886 0.898   0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685   0.583 0.583 0.563 0.625   0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000   0.940 0.962 0.965 0.962   0.619 0.666 0.614 0.669
0.972 0.981 0.9752 0.975  0.957 0.978 0.946 0.970
"""


def test_friedman_and_nemenyi_are_those_of_demsars_example():
    scores = np.array(DEMSAR.split(), dtype=float).reshape(14, 4)
    found = ranks.friedman(scores)
    assert found.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    # He leaves ties uncorrected: 14 * 4 * 15 = 840, less 3 pairs of 6 and a tie of four of 60.
    assert found.statistic * (1 - 78 / 840) == pytest.approx(9.28, abs=0.01)
    assert found.critical_difference == pytest.approx(2.569 * sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    # no pair lies further apart than 1.25, though 3.143 - 1.964 comes close
    assert "no pair" in found.sentence(["C4.5", "+m", "+cf", "+m+cf"])
    assert min(map(min, found.p_pairs)) > 0.05


@pytest.mark.parametrize("models", [3, 4, 6])
def test_friedman_is_scipys_also_with_ties(models, rng):
    scores = rng.integers(0, 4, (12, models)) / 10
    expected = stats.friedmanchisquare(*scores.T)
    found = ranks.friedman(scores)
    assert (found.statistic, found.p) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(("models", "q"), [(2, 1.960), (3, 2.343), (6, 2.850), (10, 3.164)])
def test_the_critical_difference_has_the_published_factor(models, q, rng):
    # Demšar (2006), table 5a
    found = ranks.friedman(rng.random((5, models)))
    assert found.critical_difference == pytest.approx(
        q * sqrt(models * (models + 1) / 30), abs=1e-3
    )


def test_pairs_further_apart_than_the_critical_difference_have_a_small_p_and_are_named(rng):
    scores = np.arange(4) + rng.normal(0, 0.3, (12, 4))
    found = ranks.friedman(scores)
    distances = np.abs(np.subtract.outer(found.mean_ranks, found.mean_ranks))
    assert ((np.array(found.p_pairs) < 0.05) == (distances > found.critical_difference)).all()
    sentence = found.sentence(["A", "B", "C", "D"])
    assert "A and D" in sentence
    assert "A and B" not in sentence


def test_models_that_always_tie_show_no_difference():
    found = ranks.friedman(np.full((10, 3), 0.7))
    assert (found.statistic, found.p, found.effect_size) == (0, 1, 0)
    assert "No difference in rank was shown" in found.sentence(["A", "B", "C"])


def test_friedman_warns_beside_its_figures_that_folds_are_not_independent(rng):
    assert (
        "folds of one data set are not independent blocks"
        in (ranks.friedman(rng.random((10, 3))).to_dict()["assumptions"])
    )


def test_scores_that_differ_by_rounding_share_a_rank():
    found = ranks.friedman([[0.3, 0.1 + 0.2, 0.5], [0.1 + 0.2, 0.3, 0.5]])
    assert found.mean_ranks == (2.5, 2.5, 1)


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.005], [0.9, 0.5], [0.02], [0.03, 0.03, 0.03]])
def test_holm_is_that_of_statsmodels(p):
    assert ranks.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_of_no_tests_is_empty():
    assert ranks.holm([]).shape == (0,)


# --- properties --------------------------------------------------------------------------------

SHARES = st.integers(-300, 300).map(lambda i: i / 1000)
HALVES = arrays(float, (5, 2), elements=SHARES)
FOLDS = arrays(float, st.integers(2, 12), elements=SHARES)
RIGHT = st.integers(2, 80).flatmap(lambda n: arrays(bool, (2, n)))


def outcome(test, *arguments):
    try:
        return test(*arguments)
    except DataError:
        return None


def assert_mirrored(forth, back) -> None:
    assert (forth is None) == (back is None)
    if forth is None:
        return
    assert 0 <= forth.p <= 1
    assert back.p == pytest.approx(forth.p)
    assert back.difference == pytest.approx(-forth.difference)
    assert (forth.interval is None) == (back.interval is None)
    if forth.interval:
        assert back.interval == pytest.approx([-bound for bound in forth.interval[::-1]])
        assert forth.interval[0] <= forth.difference + 1e-12
        assert forth.difference <= forth.interval[1] + 1e-12
    assert json.loads(json.dumps(forth.to_dict(), allow_nan=False))["p"] == forth.p


@settings(max_examples=50, deadline=None)
@given(HALVES)
def test_swapping_the_models_mirrors_the_5x2cv_tests_and_intervals_say_what_p_says(d):
    for test in (significance.paired_t_5x2cv, significance.combined_f_5x2cv):
        found = outcome(test, d)
        assert_mirrored(found, outcome(test, -d))
        if found and found.interval and abs(found.p - 0.05) > 1e-9:
            assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


@settings(max_examples=50, deadline=None)
@given(FOLDS, st.floats(0.05, 0.5))
def test_swapping_the_models_mirrors_the_corrected_t_test(d, share):
    found = outcome(significance.corrected_resampled_t, d, share)
    assert_mirrored(found, outcome(significance.corrected_resampled_t, -d, share))
    if found and found.interval and abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


@given(RIGHT)
@settings(max_examples=50, deadline=None)
def test_swapping_the_models_mirrors_mcnemar_and_the_bootstrap(right):
    first, second = right
    assert_mirrored(significance.mcnemar(first, second), significance.mcnemar(second, first))

    def bootstrap(*pair):
        return significance.paired_bootstrap(*pair, resamples=200)

    forth = outcome(bootstrap, first, second)
    assert_mirrored(forth, outcome(bootstrap, second, first))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p):
    adjusted = ranks.holm(p)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-15).all()


@given(arrays(float, st.tuples(st.integers(2, 8), st.integers(2, 5)), elements=SHARES))
@settings(max_examples=25, deadline=None)
def test_the_order_of_models_and_blocks_changes_nothing_for_friedman(scores):
    found = ranks.friedman(scores)
    turned = ranks.friedman(scores[::-1, ::-1])
    assert 0 <= found.p <= 1
    assert turned.p == pytest.approx(found.p)
    assert turned.mean_ranks == pytest.approx(found.mean_ranks[::-1])


# --- degenerate input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        significance.paired_t_5x2cv(np.zeros((5, 2))),
        significance.combined_f_5x2cv(np.zeros((5, 2))),
        significance.corrected_resampled_t(np.zeros(10), 0.1),
        significance.paired_bootstrap([1, 0, 1], [1, 0, 1]),
    ],
    ids=lambda found: found.name,
)
def test_models_that_never_differ_have_p_1_and_no_interval_of_no_width(found):
    assert (found.p, found.difference, found.interval) == (1, 0, None)
    json.dumps(found.to_dict(), allow_nan=False)


# 0.7 - 0.6 and 0.3 - 0.2 are the same difference, but not the same float.
@pytest.mark.parametrize("one", [[0.05] * 2, [0.7 - 0.6, 0.3 - 0.2]])
def test_a_difference_without_variance_is_refused_rather_than_infinitely_significant(one):
    for test in (significance.paired_t_5x2cv, significance.combined_f_5x2cv):
        with pytest.raises(DataError, match=r"do not vary.*hold out more"):
            test([one] * 5)
    with pytest.raises(DataError, match="do not vary"):
        significance.corrected_resampled_t(one * 5, 0.1)
    with pytest.raises(DataError, match="nothing to vary"):
        significance.paired_bootstrap([1, 1, 1], [0, 0, 0])


def test_repeats_further_apart_than_their_halves_explain_have_no_interval_and_no_direction():
    d = np.array([[0.2, 0.201], [-0.2, -0.201], [0.1, 0.101], [-0.1, -0.101], [0.05, -0.051]])
    found = significance.combined_f_5x2cv(d)
    assert found.p < 0.05
    assert found.interval is None
    assert "by no one amount" in found.sentence("A", "B")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: significance.paired_t_5x2cv(np.zeros((2, 5))), "five repeats.*'5x2'"),
        (lambda: significance.combined_f_5x2cv(np.zeros(10)), "five repeats"),
        (lambda: significance.paired_t_5x2cv(np.full((5, 2), 2.1)), "2.1.*divide"),
        (lambda: significance.combined_f_5x2cv([[0, 0], [np.nan, 0]] * 2), r"first at 1, 0"),
        (lambda: significance.corrected_resampled_t([0.1], 0.1), "two or more"),
        (lambda: significance.corrected_resampled_t([0.1, inf], 0.1), "infinity, first at 1"),
        (lambda: significance.corrected_resampled_t([0.1, 0.2], 0), "1/k"),
        (lambda: significance.mcnemar([1, 0], [1]), "same images"),
        (lambda: significance.mcnemar([], []), "same images"),
        (lambda: significance.mcnemar([1, 2], [1, 0]), "1 .right. or 0"),
        (lambda: significance.paired_bootstrap([1, np.nan], [1, 0]), "image 1"),
        (lambda: significance.paired_bootstrap([1], [0]), "more images"),
        (lambda: ranks.friedman(np.zeros((5, 1))), "two or more blocks of two or more models"),
        (lambda: ranks.friedman([[0.1, 0.2]]), "two or more blocks"),
        (lambda: ranks.friedman([[0.1, 0.2], [0.1, np.nan]]), "model 1 in block 1"),
        (lambda: ranks.holm([0.1, 1.2]), "from 0 to 1"),
        (lambda: ranks.holm([0.1, np.nan]), "from 0 to 1"),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(call, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=said):
            call()


# --- sentences ---------------------------------------------------------------------------------


def test_a_significant_difference_is_told_with_direction_figures_and_test():
    found = significance.mcnemar(*table(50, 10, 40, 0))
    # chi-square (30 - 1)^2 / 50; centre -30/102, error sqrt(51/102 - centre^2) / sqrt(102)
    assert found.sentence("VGG19", "ResNet50") == (
        "The accuracy of VGG19 was lower than that of ResNet50 (VGG19 minus ResNet50: -30.00 "
        "points, 95 % interval -41.89 to -16.93; McNemar chi-square(1) = 16.82, p < 0.0001; "
        "Cohen's g -0.3; n = 100)."
    )
    assert " was higher than " in significance.mcnemar(*table(50, 40, 10, 0)).sentence("A", "B")


def test_what_is_not_significant_is_never_called_equal():
    sentence = significance.mcnemar(*table(50, 5, 4, 41)).sentence("A", "B")
    assert sentence.startswith("No difference in accuracy was shown between A and B")
    assert sentence.endswith("which does not show that they are equal.")


def test_in_a_family_the_corrected_p_decides():
    found = significance.paired_t_5x2cv(np.array([[0.05, 0.03]] * 5))
    assert found.p < 0.05
    sentence = found.sentence("A", "B", p_holm=0.2)
    assert sentence.startswith("No difference")
    assert "after Holm p = 0.2000" in sentence
