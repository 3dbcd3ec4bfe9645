"""The simulation of the significance tests: what it simulates is so, and what fails, fails."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import significance

    return significance


def test_the_trainings_are_folds_halves_hold_outs_and_all(bench: ModuleType) -> None:
    seen = bench.trainings(np.random.default_rng(0))
    held_out = np.split(~seen, np.cumsum([bench.FOLDS, 10, bench.HOLD_OUTS]))
    folds, halves, holds, everything = held_out
    assert (folds.sum(axis=0) == 1).all()
    assert (halves.reshape(5, 2, -1).sum(axis=1) == 1).all()
    assert set(holds.sum(axis=1)) == {bench.SHARE * bench.IMAGES}
    assert not everything.any()
    assert {len(np.unique(part, axis=0)) for part in (folds, halves)} == {10}


def test_a_training_picks_the_feature_that_parts_its_images_and_sees_no_others(
    bench: ModuleType,
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(220) % 2
    features = rng.normal(size=(len(labels), 3))
    features[:, 1] -= 8 * labels  # one feature tells the classes apart, the wrong way round
    seen = np.ones((2, 200), bool)
    seen[1, 50:] = False
    features[50:200, 2] += 50 * labels[50:200]  # where only the first looks
    first, second = bench.best_feature(features[:200], labels[:200], seen, features) == labels
    assert second.mean() > 0.99
    assert first[200:].mean() < 0.9


def test_the_nearest_neighbour_is_that_of_scikit_learn(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    known, asked, labels = (
        rng.normal(size=(60, 3)),
        rng.normal(size=(40, 3)),
        rng.integers(2, size=60),
    )
    seen = rng.random((3, 60)) < 0.5
    found = bench.nearest_neighbour(known, labels, seen, asked)
    for part, predicted in zip(seen, found, strict=True):
        model = KNeighborsClassifier(1).fit(known[part], labels[part])
        assert (predicted == model.predict(asked)).all()


def test_the_plain_t_rejects_too_often_and_ours_seldom(bench: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "sheet.md"
    text = bench.main(["--repetitions", "60", "--seed", "1", "--out", str(out)])
    assert out.read_text() == text
    assert "60 data sets of 200 images" in text
    assert "python bench/significance.py --repetitions 60" in text
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line] for line in lines]
    cells = [row for row in cells if row[0] not in ("test", "---")]
    assert len(cells) == 2 * len(bench.TESTS)
    cells = cells[: len(bench.TESTS)]  # with the first learner
    false = {(row[0], row[1]): float(row[2]) for row in cells}
    power = {(row[0], row[1]): float(row[4]) for row in cells}
    holds = f"{bench.HOLD_OUTS} hold-outs of 20%"
    # 60 repetitions: 5 % has a standard error of 2.8 points.
    assert false["plain paired t", holds] > 20
    for ours in (
        ("corrected resampled t", "10 folds"),
        ("corrected resampled t", holds),
        ("5x2cv paired t", "5x2"),
        ("combined 5x2cv F", "5x2"),
    ):
        assert false[ours] < 17
        assert power[ours] > false[ours]


def test_a_test_that_refuses_its_data_finds_nothing(bench: ModuleType) -> None:
    assert not bench.rejects(lambda: bench.corrected_resampled_t([0.1, 0.1], 0.1).p)
    assert bench.rejects(lambda: 0.01)
