"""FID, KID, precision to coverage and nearest neighbours, against SciPy, scikit-learn and loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from mien.balance import distances
from mien.balance.distances import fid, kid, nearest, prdc
from mien.errors import DataError

METRICS = (fid, kid, prdc)


def two_sets(seed: int, n: int = 60, m: int = 45, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)), rng.normal(0.4, 1, (m, d)) @ mix


def with_moments(rng: np.random.Generator, n: int, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """A sample whose mean and covariance are not near these values but exactly these."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T * sd + mean


@pytest.mark.parametrize("seed", range(3))
def test_fid_is_the_formula_with_scipys_root_of_a_matrix(seed):
    real, other = two_sets(seed)
    a, b = np.cov(real.T), np.cov(other.T)
    root = sqrtm(a @ b).real
    apart = real.mean(0) - other.mean(0)
    expected = apart @ apart + np.trace(a + b - 2 * root)
    assert fid(real, other) == pytest.approx(expected, rel=1e-9)


def test_fid_of_two_axis_parallel_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    means, sds = rng.normal(size=(2, 5)), rng.uniform(0.2, 3, (2, 5))
    real, other = (with_moments(rng, 40, m, s) for m, s in zip(means, sds, strict=True))
    # Of independent columns the distance is the sum of those of one dimension.
    expected = ((means[0] - means[1]) ** 2).sum() + ((sds[0] - sds[1]) ** 2).sum()
    assert fid(real, other) == pytest.approx(expected, rel=1e-9)


def test_fid_holds_where_there_are_fewer_images_than_dimensions():
    real, other = two_sets(0, n=9, m=7, d=3)
    turn = ortho_group.rvs(40, random_state=1)[:3]
    assert fid(real @ turn, other @ turn) == pytest.approx(fid(real, other), rel=1e-9)


def test_fid_of_a_set_with_itself_is_0():
    real, _ = two_sets(0, n=12, d=30)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)
    assert fid(real, real) >= 0


def test_fid_of_two_samples_of_the_same_falls_with_their_number():
    rng = np.random.default_rng(0)
    few, many = (fid(*rng.normal(size=(2, n, 16))) for n in (40, 4000))
    assert few > 20 * many > 0


@pytest.mark.parametrize("block", [7, 512])
def test_kid_is_the_mean_of_scikit_learns_kernel_over_pairs(block, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", block)
    real, other = two_sets(0)
    n, m = len(real), len(other)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return polynomial_kernel(a, b, degree=3, gamma=1 / real.shape[1], coef0=1)

    def mean_of_pairs(x: np.ndarray) -> float:
        values = kernel(x, x)
        return np.mean([values[i, j] for i in range(len(x)) for j in range(len(x)) if i != j])

    within = mean_of_pairs(real) + mean_of_pairs(other)
    expected = within - 2 * kernel(real, other).sum() / (n * m)
    assert kid(real, other) == pytest.approx(expected, rel=1e-9)


def test_kid_is_unbiased_so_that_all_halvings_of_a_set_give_0_on_average():
    rows = np.random.default_rng(0).normal(size=(8, 3))
    halves = [np.isin(np.arange(8), half) for half in combinations(range(8), 4)]
    found = [kid(rows[half], rows[~half]) for half in halves]
    assert np.mean(found) == pytest.approx(0, abs=1e-12)
    assert min(found) < 0 < max(found)


def test_kid_sees_a_third_moment_that_fid_does_not():
    rng = np.random.default_rng(0)
    skew = rng.exponential(size=(2000, 1)) - 1
    x = np.concatenate([skew, -skew])  # the same mean and variance, mirrored
    real, other = x[:2000], x[2000:]
    assert fid(real, other) < 0.05
    assert kid(real, other) > 1


def by_loops(real: np.ndarray, other: np.ndarray, k: int) -> dict[str, float]:
    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]

    balls = [radius(real, i) for i in range(len(real))]
    other_balls = [radius(other, j) for j in range(len(other))]
    apart = [[np.linalg.norm(x - y) for y in other] for x in real]
    n, m = range(len(real)), range(len(other))
    return {
        "precision": np.mean([any(apart[i][j] <= balls[i] for i in n) for j in m]),
        "recall": np.mean([any(apart[i][j] <= other_balls[j] for j in m) for i in n]),
        "density": np.mean([sum(apart[i][j] <= balls[i] for i in n) / k for j in m]),
        "coverage": np.mean([any(apart[i][j] <= balls[i] for j in m) for i in n]),
    }


@pytest.mark.parametrize("block", [7, 512])
@pytest.mark.parametrize("k", [1, 5])
def test_precision_to_coverage_are_those_of_a_loop(k, block, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", block)
    real, other = two_sets(3, n=50, m=33, d=3)
    expected = by_loops(real, other, k)
    assert prdc(real, other, k) == pytest.approx(expected)
    assert 0 < expected["recall"] != expected["precision"] < 1


def test_precision_to_coverage_by_hand():
    # Balls of the real ones: 0 and 1 reach 1 far, 3 reaches 2, 10 reaches 7: [-1, 1], [0, 2],
    # [1, 5], [3, 17]. Of the others: 1.5 and 4 reach 2.5, 40 reaches 36: [-1, 4], [1.5, 6.5],
    # [4, 76].
    real, other = np.array([[0.0], [1], [3], [10]]), np.array([[1.5], [4], [40]])
    assert prdc(real, other, k=1) == pytest.approx(
        {
            "precision": 2 / 3,  # 40 lies in no ball
            "recall": 1,  # 0, 1 and 3 in the first ball, 10 in the last
            "density": (2 + 2 + 0) / 3,  # 1.5 in those of 1 and 3; 4 in those of 3 and 10
            "coverage": 3 / 4,  # nothing in the ball of 0
        }
    )


def test_copies_of_the_real_faces_have_all_of_precision_and_coverage():
    real, _ = two_sets(0)
    found = prdc(real, real[::-1])
    assert found["precision"] == found["recall"] == found["coverage"] == 1


@given(
    n=st.integers(1, 40),
    m=st.integers(1, 40),
    block=st.sampled_from([1, 16, 512]),
    offset=st.sampled_from([0.0, 1e4]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_nearest_is_that_of_scikit_learn(n, m, block, offset, seed):
    rng = np.random.default_rng(seed)
    features, to = rng.normal(offset, 1, (n, 4)), rng.normal(offset, 1, (m, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", block)
        distance, index = nearest(features, to)
    exact = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(to)
    expected, place = exact.kneighbors(features)
    assert distance == pytest.approx(expected[:, 0], rel=1e-9)
    assert index.tolist() == place[:, 0].tolist()


@pytest.mark.parametrize("block", [3, 512])
def test_the_nearest_within_a_set_is_another_row_and_a_copy_lies_at_0(block, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", block)
    rows = np.array([[0.1], [5.0], [0.3], [5.0], [9.0]])
    distance, index = nearest(rows)
    assert index.tolist()[:4] == [2, 3, 0, 1]
    assert distance == pytest.approx([0.2, 0, 0.2, 0, 4])
    assert distance[1] == 0


@pytest.mark.parametrize("metric", METRICS)
def test_sets_that_cannot_be_compared_are_told(metric):
    real, other = two_sets(0)
    with pytest.raises(DataError, match="same model"):
        metric(real, other[:, :3])
    with pytest.raises(DataError, match=r"other: 1 rows are too few"):
        metric(real, other[:1])
    with pytest.raises(DataError, match=r"real: features must be numbers \[n, d\]"):
        metric(real[:, 0], other)
    other[4, 2] = np.nan
    with pytest.raises(DataError, match="other: row 4"):
        metric(real, other)


def test_settings_out_of_range_are_told():
    real, other = two_sets(0)
    with pytest.raises(DataError, match="k of at least 1"):
        prdc(real, other, k=0)
    with pytest.raises(DataError, match="5 rows are too few, give 6"):
        prdc(real, other[:5])
