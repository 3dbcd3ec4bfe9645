"""The audit against sets whose flaws were put there on purpose, and against the real FER-2013."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mien.data.audit import BLANK_DEVIATION, audit, perceptual_bits
from mien.data.drawn import draw_faces
from mien.data.faceset import CLASSES, FaceSet

FACES = draw_faces(24, seed=3).images


def make(images, labels, split, soft=None) -> FaceSet:
    return FaceSet(
        images=np.stack(images),
        labels=np.array(labels),
        classes=CLASSES,
        names=np.array([f"image_{i}" for i in range(len(images))]),
        split=np.array(split),
        soft=soft,
    )


def number(found, finding: str, split: str) -> int:
    [value] = [n for f, s, n in found.rows() if (f, s) == (finding, split)]
    return value


def test_of_three_equal_images_two_are_superfluous_and_they_are_one_group():
    a, b = FACES[:2]
    found = audit(make([a, b, a, a], [0, 1, 0, 0], ["Training"] * 4))
    [copies] = found.copies
    assert copies.groups == (("image_0", "image_2", "image_3"),)
    assert copies.superfluous == ("image_2", "image_3")
    assert copies.contradictory == ()
    assert number(found, "exact copies beyond the first", "Training") == 2


def test_a_group_with_two_labels_is_contradictory_but_an_unknown_label_contradicts_nothing():
    a, b = FACES[:2]
    [copies] = audit(make([a, a, b, b], [0, 4, 3, -1], ["Training"] * 4)).copies
    assert copies.contradictory == (("image_0", "image_1"),)


def test_a_copy_across_splits_is_counted_once_per_image_of_the_smaller_split():
    a, b, c, d = FACES[:4]
    split = ["Test", "Test", "Training", "Training", "Training"]
    found = audit(make([a, b, a, a, c], [0, 1, 0, 0, 2], split))
    [overlap] = found.overlaps
    assert (overlap.split, overlap.within, overlap.names) == ("Test", "Training", ("image_0",))

    [overlap] = audit(make([a, b, c, a], [0] * 4, ["A", "A", "B", "B"])).overlaps
    assert (overlap.split, overlap.within, overlap.names) == ("B", "A", ("image_3",))

    [overlap] = audit(make([a, b, c, d], [0] * 4, ["A", "A", "B", "B"])).overlaps
    assert overlap.names == ()


def test_every_pair_of_splits_has_its_own_overlap():
    a, b, c, d, f = FACES[:5]
    split = ["Training"] * 3 + ["PublicTest"] * 2 + ["PrivateTest"] * 2
    found = audit(make([a, b, c, a, d, d, f], [0] * 7, split))
    assert number(found, "exact copies across splits", "PublicTest in Training") == 1
    assert number(found, "exact copies across splits", "PrivateTest in Training") == 0
    assert number(found, "exact copies across splits", "PrivateTest in PublicTest") == 1


@pytest.mark.parametrize(
    "alter",
    [
        lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0),
        lambda x: np.clip(x * 0.9 + 12, 0, 255).astype(np.uint8),
        lambda x: cv2.resize(cv2.resize(x, (40, 40), interpolation=cv2.INTER_AREA), x.shape),
    ],
    ids=["compressed", "brighter", "resampled"],
)
def test_an_altered_picture_is_a_near_copy_of_its_original_and_of_no_other(alter):
    clean = [cv2.GaussianBlur(face, (0, 0), 0.8) for face in FACES]
    images = [*clean, alter(clean[5])]
    found = audit(make(images, [0] * 25, ["Training"] * 24 + ["Test"]))
    [pair] = found.near
    assert pair.names == ("image_5", "image_24")
    assert pair.splits == ("Training", "Test")
    oracle = np.corrcoef(images[5].ravel(), images[24].ravel())[0, 1]
    assert pair.correlation == pytest.approx(oracle, abs=1e-4)
    assert number(found, "pairs of near-copies", "Training and Test") == 1
    assert number(found, "pairs of near-copies", "Training") == 0


def test_exact_copies_and_blank_images_are_no_near_copies():
    a = FACES[0]
    black, nearly = np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.uint8)
    nearly[0, :5] = 1
    found = audit(make([a, a, black, nearly], [0] * 4, ["Training"] * 4))
    assert found.near == ()


def test_of_equal_images_only_the_first_takes_part_in_near_copies():
    a = cv2.GaussianBlur(FACES[0], (0, 0), 0.8)
    near = np.minimum(a, 250) + np.uint8(1)
    found = audit(make([a, a, near, near], [0] * 4, ["Training"] * 4))
    assert [pair.names for pair in found.near] == [("image_0", "image_2")]


def test_the_perceptual_hash_agrees_with_opencvs_cosine_transform():
    bits = perceptual_bits(FACES)
    for image, hashed in zip(FACES, bits, strict=True):
        low = cv2.dct(image.astype(np.float64))
        # OpenCV's transform is orthonormal: its first row and column are smaller by sqrt(2).
        low[0] *= np.sqrt(2)
        low[:, 0] *= np.sqrt(2)
        low = low[:8, :8].ravel()[1:]
        assert (np.where(low > np.median(low), 1, -1) == hashed[1:]).mean() > 0.98
    assert set(np.unique(bits)) == {-1.0, 1.0}


def test_blank_images_are_those_with_hardly_any_deviation():
    rng = np.random.default_rng(0)
    quiet = np.clip(rng.normal(100, BLANK_DEVIATION * 0.5, (48, 48)), 0, 255).astype(np.uint8)
    loud = np.clip(rng.normal(100, BLANK_DEVIATION * 2, (48, 48)), 0, 255).astype(np.uint8)
    found = audit(make([FACES[0], quiet, loud], [0] * 3, ["Training", "Training", "Test"]))
    assert found.blank == {"Training": ("image_1",), "Test": ()}


def test_a_colour_image_is_blank_only_if_every_channel_is():
    one_colour = np.zeros((48, 48, 3), np.uint8)
    one_colour[..., 0] = 200
    red_face = np.zeros((48, 48, 3), np.uint8)
    red_face[..., 0] = FACES[0]
    found = audit(make([one_colour, red_face], [0, 0], ["Training"] * 2))
    assert found.blank == {"Training": ("image_0",)}


def test_a_label_is_disputed_when_another_class_has_more_votes_but_not_at_a_tie():
    soft = np.zeros((5, 7), np.float32)
    soft[0, [0, 3]] = 0.3, 0.7  # labelled angry, most see happy
    soft[1, [0, 3]] = 0.5, 0.5  # a tie that the label shares
    soft[2, 0] = 1.0
    soft[3] = np.nan  # no votes
    soft[4, 1] = 1.0  # no label
    found = audit(make(list(FACES[:5]), [0, 0, 0, 0, -1], ["Training"] * 5, soft))
    angry, *others = found.disputes
    assert (angry.label, angry.compared, angry.names) == ("angry", 3, ("image_0",))
    assert angry.share == pytest.approx(1 / 3)
    assert [dispute.compared for dispute in others] == [0] * 6


def test_without_votes_there_are_no_disputes():
    assert audit(make(list(FACES[:3]), [0, 1, 2], ["Training"] * 3)).disputes == ()


@pytest.mark.real
def test_fer2013_repeats_itself_as_often_as_is_known(fer2013):
    from mien.data.read import read

    found = audit(read(fer2013))
    assert number(found, "exact copies beyond the first", "Training") == 1234
    assert number(found, "groups with different labels", "Training") == 40
    assert number(found, "exact copies across splits", "PublicTest in Training") == 280
    assert number(found, "exact copies across splits", "PrivateTest in Training") == 288
    assert number(found, "exact copies across splits", "PrivateTest in PublicTest") == 44
