from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.data import FaceSet, draw_faces
from mien.errors import DataError
from mien.images import normalisation
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.training import fit, generated
from mien.training.conflicts import agreement, settled
from mien.training.loop import Training

TINY = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=16)


def faces_of(groups: list[int], labels: list[int]) -> FaceSet:
    images = np.stack([np.full((4, 4), g, np.uint8) for g in groups])
    n = len(groups)
    names, split = np.arange(n).astype(str), np.full(n, "Training")
    return FaceSet(images, np.array(labels), tuple("abcd"), names, split)


COPIED = faces_of([5, 5, 5, 8, 9, 9, 7, 7, 1, 2], [0, 0, 1, 1, 2, 2, 3, 1, 0, 3])


def test_an_image_counts_by_the_share_of_its_copies_that_have_its_label() -> None:
    expected = [2 / 3, 2 / 3, 1 / 3, 1, 1, 1, 1 / 2, 1 / 2, 1, 1]
    np.testing.assert_allclose(agreement(COPIED), expected)
    np.testing.assert_allclose(settled(COPIED, "weight").weights, expected)
    weighed = replace(COPIED, weights=np.arange(10, dtype=np.float32))
    np.testing.assert_allclose(settled(weighed, "weight").weights, np.arange(10) * expected)


def test_all_copies_of_an_image_with_two_labels_are_dropped_and_none_else() -> None:
    assert settled(COPIED, "drop").names.tolist() == ["3", "4", "5", "8", "9"]
    assert settled(COPIED, "keep") is COPIED


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30))
def test_agreement_is_what_counting_gives(pairs: list[tuple[int, int]]) -> None:
    groups, labels = (list(column) for column in zip(*pairs, strict=True))
    sizes, alike = Counter(groups), Counter(pairs)
    expected = [alike[pair] / sizes[pair[0]] for pair in pairs]
    np.testing.assert_allclose(agreement(faces_of(groups, labels)), expected)


def test_dropping_all_of_a_class_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    left = COPIED[np.flatnonzero(COPIED.names != "9")]
    with pytest.raises(DataError, match="'drop' leaves no image of d, since all have copies"):
        fit(TINY.but(conflicts="drop"), left, runs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copied() -> FaceSet:
    """Drawn faces, two of whose training images are copies of two others, one of another class."""
    faces = draw_faces(140, size=24)
    images, labels = faces.images.copy(), faces.labels.copy()
    first, second, third, fourth = np.flatnonzero(faces.split == "train")[:4]
    images[second], images[fourth] = images[first], images[third]
    labels[second] = (labels[first] + 1) % 7
    labels[fourth] = labels[third]
    return replace(faces, images=images, labels=labels, groups=None)


@pytest.mark.usefixtures("one_thread")
def test_a_training_settles_its_own_part_and_notes_the_part_it_was_given(
    copied: FaceSet, tmp_path: Path
) -> None:
    train, validation = copied["train"], copied["validation"]
    runs = {
        kind: fit(
            TINY.but(conflicts=kind), train, validation, runs=tmp_path, device="cpu",
            progress="none",
        )
        for kind in ("keep", "drop", "weight")
    }  # fmt: skip
    assert len({run.name for run in runs.values()}) == 3
    assert len({run.weights_path.read_bytes() for run in runs.values()}) == 3
    for run in runs.values():
        noted = Run.open(run.path).training_part(copied)
        assert noted is not None
        assert len(noted) == len(train)
        assert len(run.predictions("validation").labels) == len(validation)


def test_what_is_learned_from_the_images_is_learned_from_those_left(copied: FaceSet) -> None:
    recipe = TINY.but(conflicts="drop", normalise="dataset")
    training = Training(recipe, copied["train"], None, "cpu")  # type: ignore[arg-type]
    left = copied["train"][2:]
    assert len(training.batches.images) == len(left)
    assert training.normalisation == normalisation("dataset", left.images)
    weighed = Training(recipe.but(conflicts="weight"), copied["train"], None, "cpu")  # type: ignore[arg-type]
    weights = weighed.batches.weights
    assert weights is not None
    assert float(weights.mean()) == pytest.approx(1)
    assert weights[:2].tolist() == pytest.approx([float(weights[2]) / 2] * 2)


def test_a_generator_learns_from_the_images_left(
    copied: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(generated, "fit_generator", lambda _, train, **__: asked.append(train))
    monkeypatch.setattr(generated, "generate", lambda run, counts, **_: counts)
    train = copied["train"]
    counts = generated.generated_faces(
        TINY.but(conflicts="drop", generate="20"), train, runs=tmp_path, device=None,
        progress="none",
    )  # fmt: skip
    assert asked[0].names.tolist() == train.names[2:].tolist()
    assert (counts == 20 - train[2:].counts()).all()
