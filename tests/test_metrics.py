"""Figures of merit, against scikit-learn and examples worked by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from mien.errors import DataError
from mien.metrics import (
    Metrics,
    calibration_error,
    collapsed,
    epochs_to,
    evaluate,
    last_epochs_spread,
    wilson_interval,
)

CLASSES = ("angry", "disgust", "fear", "happy")


def predictions(n: int, c: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, c, n)
    labels[:c] = np.arange(c)  # every class has an image
    logits = rng.normal(size=(n, c)) + 1.2 * np.eye(c)[labels]
    odds = np.exp(logits)
    return odds / odds.sum(1, keepdims=True), labels


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 200), seed=st.integers(0, 2**32 - 1))
def test_every_figure_agrees_with_scikit_learn(n: int, seed: int) -> None:
    probabilities, labels = predictions(n, 4, seed)
    ours = evaluate(probabilities, labels, CLASSES)
    guess = probabilities.argmax(1)
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        labels, guess, labels=range(4), zero_division=np.nan
    )
    assert ours.n == n
    assert ours.accuracy == pytest.approx(oracle.accuracy_score(labels, guess))
    assert ours.balanced_accuracy == pytest.approx(oracle.balanced_accuracy_score(labels, guess))
    assert ours.macro_f1 == pytest.approx(
        oracle.f1_score(labels, guess, average="macro", zero_division=0)
    )
    assert ours.log_loss == pytest.approx(oracle.log_loss(labels, probabilities, labels=range(4)))
    np.testing.assert_array_equal(
        ours.confusion, oracle.confusion_matrix(labels, guess, labels=range(4))
    )
    np.testing.assert_array_equal(ours.support, support)
    np.testing.assert_allclose(ours.precision, precision)
    np.testing.assert_allclose(ours.recall, recall)
    np.testing.assert_allclose(ours.f1, np.nan_to_num(f1))


def test_rows_of_the_confusion_are_the_true_classes() -> None:
    metrics = evaluate(np.eye(4)[[3, 3, 1]], np.array([0, 0, 1]), CLASSES)
    assert metrics.confusion[0, 3] == 2
    assert metrics.confusion[3, 0] == 0


def test_a_class_without_images_is_nan_and_left_out_of_the_means() -> None:
    # angry: 1 of 2 right; disgust: 2 of 2; fear and happy have no images, fear is guessed once.
    metrics = evaluate(np.eye(4)[[0, 2, 1, 1]], np.array([0, 0, 1, 1]), CLASSES)
    np.testing.assert_array_equal(metrics.recall, [0.5, 1, np.nan, np.nan])
    np.testing.assert_array_equal(metrics.precision, [1, 1, 0, np.nan])
    np.testing.assert_allclose(metrics.f1, [2 / 3, 1, np.nan, np.nan])
    assert metrics.balanced_accuracy == pytest.approx(0.75)
    assert metrics.macro_f1 == pytest.approx(5 / 6)


def test_a_class_that_is_never_predicted_has_no_precision_but_counts_as_zero_f1() -> None:
    metrics = evaluate(np.eye(4)[[0, 0]], np.array([0, 1]), CLASSES)
    assert math.isnan(metrics.precision[1])
    assert metrics.recall[1] == 0
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_a_true_class_of_probability_zero_leaves_the_log_loss_finite() -> None:
    probabilities = np.eye(4, dtype=np.float32)[[0, 1]]
    metrics = evaluate(probabilities, np.array([0, 0]), CLASSES)
    assert metrics.log_loss == pytest.approx(-math.log(2.0**-23) / 2)


def test_the_wilson_interval_is_that_of_the_worked_example() -> None:
    # 7 of 10 at z = 1.95996: centre (0.7 + 3.84146/20) / (1 + 0.384146) = 0.644494,
    # half-width 1.95996 * sqrt(0.7*0.3/10 + 3.84146/400) / 1.384146 = 0.247715.
    low, high = wilson_interval(7, 10)
    assert low == pytest.approx(0.396778, abs=2e-6)
    assert high == pytest.approx(0.892208, abs=2e-6)


def test_the_interval_at_74_percent_of_the_private_test_is_1_4_points_either_way() -> None:
    low, high = wilson_interval(round(0.74 * 3589), 3589)
    assert (high - low) / 2 == pytest.approx(0.0143, abs=5e-5)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 5000), data=st.data())
def test_an_interval_holds_its_share_and_agrees_with_scipy(n: int, data) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = wilson_interval(correct, n)
    theirs = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert 0 <= low <= correct / n <= high <= 1
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_wider_level_gives_a_wider_interval() -> None:
    low, high = wilson_interval(70, 100, level=0.99)
    assert low < wilson_interval(70, 100)[0]
    assert high > wilson_interval(70, 100)[1]


@pytest.mark.parametrize(("correct", "n", "level"), [(0, 0, 0.95), (3, 2, 0.95), (1, 2, 1.0)])
def test_an_impossible_interval_is_refused(correct: int, n: int, level: float) -> None:
    with pytest.raises(DataError):
        wilson_interval(correct, n, level)


def test_the_calibration_error_is_that_of_the_worked_example() -> None:
    # Bins of width 1/15. (0.533, 0.6]: 0.55 right, 0.58 wrong: |1 - 1.13| = 0.13.
    # (0.867, 0.933]: 0.9 right, 0.92 right: |2 - 1.82| = 0.18. (0.933, 1]: 1.0 wrong: 1.
    confidence = np.array([0.55, 0.58, 0.9, 0.92, 1.0])
    labels = np.array([0, 1, 0, 0, 1])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    assert calibration_error(probabilities, labels) == pytest.approx((0.13 + 0.18 + 1) / 5)


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(probabilities, np.array([1, 1, 1, 1])) == pytest.approx(0.75)


def test_metrics_survive_json_with_their_gaps() -> None:
    probabilities, labels = predictions(40, 4, 0)
    metrics = evaluate(probabilities, np.where(labels == 2, 1, labels), CLASSES)
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    again = Metrics.from_dict(json.loads(text))
    assert json.loads(text)["recall"][2] is None
    assert again.classes == CLASSES
    assert again.accuracy_interval == metrics.accuracy_interval
    assert again.confusion.dtype == np.int64
    assert again.n == 40
    for key in ("support", "precision", "recall", "f1", "confusion"):
        np.testing.assert_array_equal(getattr(again, key), getattr(metrics, key))
    assert again.to_dict() == metrics.to_dict()


def test_stored_metrics_with_a_gap_name_what_is_missing() -> None:
    values = evaluate(*predictions(8, 4, 0), CLASSES).to_dict()
    del values["macro_f1"]
    with pytest.raises(DataError, match="macro_f1"):
        Metrics.from_dict(values)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.full((3, 4), 0.25), np.zeros(2, int), "do not match"),
        (np.full((2, 3), 1 / 3), np.zeros(2, int), "do not match"),
        (np.empty((0, 4)), np.zeros(0, int), "no images"),
        (np.full((2, 4), 0.25), np.array([0, -1]), "1 of 2 images have no label"),
        (np.full((2, 4), 0.25), np.array([0, 4]), "label 4 has no name"),
        (np.full((2, 4), 0.25), np.zeros(2), "integers"),
        (np.array([[0.25] * 4, [0.3] * 4]), np.zeros(2, int), r"row 1 .*sum 1\.2"),
        (np.array([[1.5, -0.5, 0, 0]]), np.zeros(1, int), "row 0 .*smallest -0.5"),
        (np.array([[np.nan, 0, 0, 1]]), np.zeros(1, int), "row 0 .*nan"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_its_reason(
    probabilities: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(probabilities, labels, CLASSES)


def test_a_collapse_names_the_class() -> None:
    assert collapsed(np.full(500, 3), CLASSES) == "happy"
    assert collapsed(np.r_[np.full(499, 3), 0], CLASSES) == "happy"
    assert collapsed(np.r_[np.full(400, 3), np.zeros(100, int)], CLASSES) is None
    assert collapsed(np.array([3]), CLASSES) is None


def log(*validation: float | None, accuracy: float = 0.9) -> list[dict]:
    return [
        {"epoch": i, "accuracy": accuracy, "validation_accuracy": value}
        for i, value in enumerate(validation, start=1)
    ]


def test_epochs_are_counted_to_the_first_that_reached_the_accuracy() -> None:
    assert epochs_to(log(0.3, 0.5, 0.6, 0.55), 0.5) == 2
    assert epochs_to(log(0.3, 0.5), 0.51) is None
    assert epochs_to(log(None, 0.7), 0.6) == 2
    assert epochs_to([], 0.1) is None


def test_the_spread_is_that_of_the_last_epochs_alone() -> None:
    # 0.60, 0.64, 0.62: mean 0.62, squares 0.0004 + 0.0004 + 0, over n - 1 = 2: 0.02.
    assert last_epochs_spread(log(0.1, 0.2, 0.60, 0.64, 0.62), last=3) == pytest.approx(0.02)
    assert math.isnan(last_epochs_spread(log(0.5)))


def test_the_room_needs_numpy_alone() -> None:
    code = (
        "import sys, mien.metrics; "
        "assert not {'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
