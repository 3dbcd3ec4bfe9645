"""The assessment of a generator: what it says of good ones, bad ones and small classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import recall_score

from mien.balance.quality import Quality, Sample, assess
from mien.errors import DataError
from mien.metrics import wilson_interval

CLASSES = ("angry", "disgust", "happy")
CENTRES = np.random.default_rng(7).normal(0, 2, (3, 12))


def sample(counts: tuple[int, ...], seed: int, shift: float = 0.0, right: float = 0.8) -> Sample:
    """Gaussian 'faces' around the centre of their class, and a classifier mostly right of them."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), counts))
    features = CENTRES[labels] + rng.normal(size=(len(labels), 12))
    features[labels == 1] += shift
    guess = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, 3, len(labels)))
    return Sample(features.astype(np.float32), labels, np.eye(3)[guess])


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 6, 6), np.uint8)


TRAIN, HELD_OUT = sample((600, 80, 900), 0), sample((300, 56, 400), 1)


def assessed(generated: Sample, held_out: Sample = HELD_OUT, **settings: int) -> Quality:
    return assess(TRAIN, held_out, generated, pictures(len(generated.labels)), CLASSES, **settings)


@pytest.fixture(scope="module")
def good() -> Quality:
    """Of a perfect generator that makes other numbers of each class than there are."""
    return assessed(sample((200, 700, 300), 2))


def test_a_perfect_generator_comes_out_as_real_faces_do(good):
    assert good.compared == CLASSES
    assert abs(good.fid.generated - good.fid.real) < 2 * good.fid.real_sd
    for found in good.prdc.values():
        assert abs(found.generated - found.real) < 3 * found.real_sd < 0.2
    for one in good.per_class:
        assert abs(one.kid.generated) < 3 * one.kid.real_sd
    # Expected are 0.01 and 0.05, of which a few hundred faces give so much.
    assert good.memorisation["nearer_than_1st_percentile"] < 0.03
    assert good.memorisation["nearer_than_5th_percentile"] < 0.09
    assert good.memorisation["p"] > 0.01
    assert good.near_duplicates["share"] < 0.04
    assert good.duplicates == 0


def test_every_figure_is_at_equal_n_and_a_small_class_says_its_own(good):
    # halves of 300 and 400 held out; 28 of the 56 disgust
    assert [one.kid.n for one in good.per_class] == [150, 28, 200]
    assert good.fid.n == good.prdc["recall"].n == 378
    assert [one.held_out for one in good.per_class] == [300, 56, 400]
    assert [one.generated for one in good.per_class] == [200, 700, 300]
    assert [one.train for one in good.per_class] == [600, 80, 900]
    assert good.memorisation["n_held_out"] == good.memorisation["n_generated"] == 200 + 56 + 300
    assert good.near_duplicates["n"] == 556
    assert good.per_class[1].memorisation["nearer_than_1st_percentile"] is None
    assert good.per_class[1].memorisation["nearer_than_5th_percentile"] is not None


def test_a_class_that_is_drawn_wrong_stands_out_and_the_others_do_not(good):
    bad = assessed(sample((200, 700, 300), 2, shift=0.7))
    first, disgust, last = (one.kid for one in bad.per_class)
    assert disgust.generated > disgust.real + 4 * disgust.real_sd
    assert first.generated < first.real + 3 * first.real_sd
    assert last.generated < last.real + 3 * last.real_sd
    assert bad.fid.generated > good.fid.generated


def test_a_generator_that_repeats_itself_loses_recall_and_coverage(good):
    made = sample((200, 56, 300), 2)
    few = made[np.concatenate([np.flatnonzero(made.labels == c)[:8].repeat(40) for c in range(3)])]
    few.features[:] += np.random.default_rng(0).normal(0, 0.01, few.features.shape)
    found = assessed(few)
    assert found.prdc["recall"].generated < 0.2 < found.prdc["recall"].real
    assert found.prdc["coverage"].generated < found.prdc["coverage"].real - 0.3
    assert found.near_duplicates["share"] > 0.9


def test_a_generator_that_hands_out_training_faces_is_found_in_every_class():
    found = assessed(TRAIN)
    assert found.memorisation["nearer_than_1st_percentile"] == 1
    for one in found.per_class:
        assert one.memorisation["generated_copies"] == one.generated
        assert one.memorisation["p"] < 1e-20


def test_agreement_is_recall_with_wilsons_interval():
    made = sample((200, 40, 300), 2, right=0.6)
    found = assessed(made)
    for seen, key in ((made, "agreement"), (HELD_OUT, "real_agreement")):
        recall = recall_score(seen.labels, seen.probabilities.argmax(1), average=None)
        of_classes = [getattr(one, key) for one in found.per_class]
        assert [one.share for one in of_classes] == pytest.approx(recall)
        assert getattr(found, key) == pytest.approx(recall.mean())
        for one in of_classes:
            assert one.interval == wilson_interval(one.agreed, one.n)
            assert one.agreed == pytest.approx(one.share * one.n)
    assert [one.agreement.n for one in found.per_class] == [200, 40, 300]


def test_a_class_that_is_not_generated_has_no_figures_and_disturbs_no_others():
    found = assessed(sample((200, 700, 0), 2))
    happy = found.per_class[2]
    assert happy.kid is happy.agreement is happy.memorisation is None
    assert happy.real_agreement.n == 400
    assert found.compared == ("angry", "disgust")
    assert found.fid.n == 178
    assert abs(found.fid.generated - found.fid.real) < 2 * found.fid.real_sd


def test_with_a_handful_of_faces_there_are_no_distances_but_there_is_the_rest():
    found = assessed(sample((3, 2, 2), 2), sample((4, 3, 2), 1))
    assert found.fid is found.prdc is None
    assert [one.kid for one in found.per_class] == [None] * 3
    assert found.near_duplicates["share"] is None
    assert found.per_class[0].agreement.n == 3
    json.dumps(found.to_dict(), allow_nan=False)


def test_held_out_faces_that_stand_in_the_training_part_are_left_out(good):
    copies = TRAIN[np.flatnonzero(TRAIN.labels == 0)[:30]]
    both = Sample(
        *(
            np.concatenate([getattr(HELD_OUT, key), getattr(copies, key)])
            for key in ("features", "labels", "probabilities")
        )
    )
    found = assessed(sample((200, 700, 300), 2), both).to_dict()
    assert found.pop("held_out_copies") == 30
    assert found == {key: v for key, v in good.to_dict().items() if key != "held_out_copies"}


def test_the_same_seed_gives_the_same_figures_and_json_carries_them(good):
    again, other = (assessed(sample((200, 700, 300), 2), seed=seed) for seed in (0, 1))
    assert again == good
    assert other.fid.generated != good.fid.generated
    assert json.loads(json.dumps(good.to_dict(), allow_nan=False)) == good.to_dict()


def test_images_that_repeat_are_counted():
    made, images = sample((30, 30, 30), 2), pictures(90)
    images[40:45] = images[3]
    assert assess(TRAIN, HELD_OUT, made, images, CLASSES).duplicates == 5


def test_what_cannot_be_assessed_is_told():
    made = sample((30, 30, 30), 2)
    with pytest.raises(DataError, match="89 images for 90 generated faces"):
        assess(TRAIN, HELD_OUT, made, pictures(89), CLASSES)
    with pytest.raises(DataError, match=r"generated: probabilities must be \[90, 3\], not none"):
        assessed(Sample(made.features, made.labels))
    with pytest.raises(DataError, match="generated: labels go from 1 to 3, of 3 classes 0 to 2"):
        assessed(Sample(made.features, made.labels + 1, made.probabilities))
    with pytest.raises(DataError, match="generated: labels must be 90 integers"):
        assessed(Sample(made.features, made.labels[1:], made.probabilities))
    with pytest.raises(DataError, match="width 11 in a space of features of width 12"):
        assessed(Sample(made.features[:, 1:], made.labels, made.probabilities))
    with pytest.raises(DataError, match="at least 2 splits"):
        assessed(made, splits=1)
    with pytest.raises(DataError, match="stand in the training part"):
        assessed(made, TRAIN)
