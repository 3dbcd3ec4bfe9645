"""Corruptions of images, and what a model's accuracy under them is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import rotate
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from mien.data import draw_faces
from mien.data.faceset import FaceSet
from mien.errors import DataError
from mien.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from mien.evaluation.intervals import macro_f1_interval, newcombe_interval, ratio_interval
from mien.evaluation.robustness import (
    Measured,
    Robustness,
    claim_sentence,
    claims_of,
    under_corruptions,
)
from mien.evaluation.trained import Trained
from mien.metrics import evaluate

FACES = draw_faces(12, size=48).images
SMOOTH = np.rint(ndimage.gaussian_filter(FACES.astype(float), (0, 2, 2))).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_alone_in_any_batch_and_in_any_order(name: str) -> None:
    for strength in STRENGTHS:
        together = corrupt(FACES, name, strength, seed=3)
        order = np.random.default_rng(0).permutation(len(FACES))
        np.testing.assert_array_equal(corrupt(FACES[order], name, strength, 3), together[order])
        np.testing.assert_array_equal(corrupt(FACES[4:5], name, strength, 3)[0], together[4])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_strength_takes_an_image_further_from_what_it_was(name: str) -> None:
    apart = [
        np.abs(corrupt(FACES, name, strength).astype(float) - FACES).mean()
        for strength in STRENGTHS
    ]
    assert apart[0] > 0
    assert (np.diff(apart) > 0).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_colour_and_grey_are_corrupted_and_the_originals_left_as_they_are(name: str) -> None:
    colour = np.stack([FACES, FACES[:, ::-1], 255 - FACES], axis=-1)
    before = colour.copy()
    worse = corrupt(colour, name, 5)
    np.testing.assert_array_equal(colour, before)
    assert worse.shape == colour.shape
    assert worse.dtype == np.uint8
    assert (worse != colour).any()


@pytest.mark.parametrize("name", ["noise", "rotation"])
def test_another_seed_is_another_draw(name: str) -> None:
    assert (corrupt(FACES, name, 3, seed=0) != corrupt(FACES, name, 3, seed=1)).any()


def test_the_eyes_are_hidden_by_a_band_of_the_images_own_mean() -> None:
    image = np.arange(100 * 100, dtype=np.uint32).reshape(1, 100, 100).astype(np.uint8)
    hidden = corrupt(image, "eyes", 1)[0]  # 0.37 +- 0.05 of 100 rows
    assert (hidden[32:42] == np.rint(image.mean())).all()
    np.testing.assert_array_equal(
        np.delete(hidden, range(32, 42), 0), np.delete(image[0], range(32, 42), 0)
    )
    mouth = corrupt(image, "mouth", 5)[0]  # 0.79 +- 0.17
    changed = np.flatnonzero((mouth != image[0]).any(1))
    assert (changed.min(), changed.max()) == (62, 95)


def test_blur_is_scipys_gaussian_with_sigma_as_a_share_of_the_side() -> None:
    for strength in STRENGTHS:
        sigma = CORRUPTIONS["blur"].values[strength - 1] * 48
        expected = ndimage.gaussian_filter(FACES.astype(float), (0, sigma, sigma), truncate=3)
        apart = np.abs(corrupt(FACES, "blur", strength) - expected)
        assert apart.mean() < 0.6  # rounding, and a kernel cut elsewhere
        assert apart.max() < 5


def test_noise_has_the_deviation_it_says_and_no_two_images_the_same() -> None:
    grey = np.full((20, 48, 48), 128, np.uint8)
    grey[:, 0, 0] = np.arange(20)
    added = corrupt(grey, "noise", 2)[:, 1:].astype(float) - 128
    assert added.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.5)
    assert abs(np.corrcoef(added.reshape(20, -1))[np.triu_indices(20, 1)]).max() < 0.1


def test_a_stop_less_light_halves_the_linear_intensity() -> None:
    # By hand: code 188 is 0.5029 of the light, half is 0.2514, whose code is 137.1; white's half
    # is code 187.5. Five stops leave 1/32 of white, code 49.4.
    image = np.zeros((1, 48, 48), np.uint8)
    image[0, 0, :2] = 188, 255
    assert corrupt(image, "dark", 1)[0, 0, :3].tolist() == [137, 188, 0]
    assert corrupt(image, "dark", 5)[0, 0, 1] == 49


def test_rotation_turns_about_the_middle_by_the_degrees_to_either_side() -> None:
    turned = corrupt(SMOOTH, "rotation", 3)
    inner = (slice(14, 34), slice(14, 34))
    senses = set()
    for image, found in zip(SMOOTH, turned, strict=True):
        errors = {
            sign: np.abs(
                rotate(image, sign * 20, preserve_range=True, mode="reflect")[inner] - found[inner]
            ).mean()
            for sign in (-1, 1)
        }
        senses.add(min(errors, key=errors.__getitem__))
        assert min(errors.values()) < 0.6
    assert senses == {-1, 1}


def test_low_resolution_leaves_the_means_of_squares() -> None:
    board = np.indices((48, 48)).sum(0) % 2 * 255
    few = corrupt(board[None].astype(np.uint8), "resolution", 2)[0]  # 24 pixels: 2x2 means
    assert np.abs(few.astype(float) - 127.5).max() <= 1


@pytest.mark.parametrize(
    ("images", "name", "strength", "said"),
    [
        (FACES, "fog", 1, "unknown corruption 'fog'"),
        (FACES, "blur", 6, "strength 6"),
        (FACES.astype(float), "blur", 1, "float64"),
        (FACES[:, :40], "blur", 1, r"\[12, 40, 48\]"),
    ],
)
def test_what_cannot_be_corrupted_is_refused_by_name(
    images: np.ndarray, name: str, strength: int, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        corrupt(images, name, strength)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_newcombes_interval_is_that_of_statsmodels(n: int, m: int, a: float, b: float) -> None:
    first, second = (round(a * n), n), (round(b * m), m)
    expected = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    np.testing.assert_allclose(newcombe_interval(first, second), expected, atol=1e-9)


def test_the_interval_of_macro_f1_is_that_of_drawing_images_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 150, p=(0.6, 0.3, 0.1))
    guess = np.where(rng.random(150) < 0.7, truth, rng.choice(3, 150))
    found = macro_f1_interval(evaluate(np.eye(3)[guess], truth, ("a", "b", "c")).confusion)
    drawn = [
        f1_score(truth[rows], guess[rows], average="macro", labels=np.unique(truth[rows]))
        for rows in (rng.integers(150, size=150) for _ in range(600))
    ]
    np.testing.assert_allclose(found, np.quantile(drawn, (0.025, 0.975)), atol=0.02)


def test_the_interval_of_a_ratio_follows_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    below = rng.random(2_000) < 0.8
    above = below * rng.random(2_000)
    ratio = above.mean() / below.mean()
    error = np.std(above - ratio * below) / below.mean() / np.sqrt(2_000)  # the delta method
    expected = ratio - 1.96 * error, ratio + 1.96 * error
    np.testing.assert_allclose(ratio_interval(above, below), expected, atol=0.15 * error)


def test_a_model_that_looks_at_the_brightness_alone_is_lost_in_the_dark_only() -> None:
    images = np.repeat(np.array([60, 200], np.uint8), 20)[:, None, None] * np.ones(
        (1, 24, 24), "u1"
    )
    labels = np.repeat([0, 1], 20)
    faces = FaceSet(images, labels, ("dim", "bright"), np.arange(40).astype(str), np.full(40, "v"))

    def predict_proba(pictures: np.ndarray) -> np.ndarray:
        return np.eye(2)[(pictures.mean((1, 2)) > 128).astype(int)]

    model = Trained("m", "m", faces.classes, 24, 1, predict_proba, {}, None, "")
    found = under_corruptions(model, faces)
    assert found.clean.accuracy == 1
    assert found.corrupted["dark"][4].accuracy == 0.5
    assert [one.accuracy for one in found.corrupted["blur"]] == [1] * 5
    said = found.to_dict()
    # 200 is 0.58 of the light: half of it is code 146, a quarter 106
    lost = [m.accuracy for m in found.corrupted["dark"]]
    assert lost == [1, 0.5, 0.5, 0.5, 0.5]
    assert said["mean_corruption_accuracy"] == pytest.approx((6 + 3 / 5) / 7)
    assert said["relative"] == pytest.approx((6 + 3 / 5) / 7)


def robustness(clean: float, under: dict[str, float], n: int = 400, seed: int = 0) -> Robustness:
    rng = np.random.default_rng(seed)
    right_clean = rng.random(n) < clean
    right = {k: (rng.random((5, n)) < under.get(k, 1)) & right_clean for k in CORRUPTIONS}
    one = Measured(n, clean, (0, 1), clean, (0, 1))
    return Robustness(one, {k: (one,) * 5 for k in CORRUPTIONS}, right_clean, right)


def test_a_model_that_loses_less_under_one_corruption_is_found_to_do_so_there_alone() -> None:
    without, with_cbam = (
        robustness(0.8, {"eyes": 0.5, "noise": 0.6}),
        robustness(0.8, {"eyes": 0.9, "noise": 0.6}),
    )
    claims = claims_of(without, with_cbam)
    by_name = {claim.corruption: claim for claim in claims}
    eyes = by_name["eyes"].loss
    assert eyes is not None
    lost = [one.right_clean.mean() - one.right["eyes"].mean() for one in (without, with_cbam)]
    assert eyes.difference == pytest.approx(lost[1] - lost[0])
    assert by_name["eyes"].loss_holm < 0.01  # type: ignore[operator]
    assert by_name["noise"].loss_holm > 0.05  # type: ignore[operator]
    said = claim_sentence(claims)
    assert "less accuracy under: eyes hidden; more under: none" in said
    p = [claim.loss.p for claim in claims if claim.loss]
    np.testing.assert_allclose(
        [claim.loss_holm for claim in claims if claim.loss], multipletests(p, method="holm")[1]
    )


def test_where_two_models_always_differ_alike_nothing_is_tested() -> None:
    right, wrong = robustness(1, {}), robustness(1, {"eyes": 0})
    claims = {claim.corruption: claim for claim in claims_of(right, wrong)}
    assert claims["eyes"].accuracy is None
    assert claims["eyes"].accuracy_holm is None
    assert claims["blur"].accuracy is not None
    assert claims["blur"].accuracy.p == 1


def test_fifths_that_differ_alike_up_to_rounding_are_not_tested() -> None:
    def under(*right_of_five: int) -> Robustness:
        rows = np.arange(5)[:, None] < np.array(right_of_five)
        return replace(robustness(1, {}, n=2), right=dict.fromkeys(CORRUPTIONS, rows))

    for claim in claims_of(under(4, 3), under(5, 4)):
        assert (claim.accuracy, claim.loss) == (None, None)


def test_models_measured_on_other_images_are_not_compared() -> None:
    with pytest.raises(DataError, match="measure them together"):
        claims_of(robustness(0.5, {}), robustness(0.5, {}, n=300))
