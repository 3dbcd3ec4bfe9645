"""Votes of FER+ as soft labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.data import CLASSES, read
from mien.data.ferplus import read_votes
from mien.errors import DataError

HEADER = "image,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate(CLASSES):
        path = tmp_path / "fer" / "train" / name / f"Training_{number}.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (48, 48), number).save(path)
    return tmp_path / "fer"


def test_votes_join_by_file_name_and_are_renormalised(folder):
    (folder / "ferplus.csv").write_text(
        HEADER
        + "Training_3.jpg,9,9,9,9,9,9,9,9,9,9\n"  # another file: .jpg
        + "Training_3.png,1,6,1,0,0,0,0,2,0,0\n"
        + "Training_0.png,1,2,3,4,5,6,7,8,9,10\n"
        + "Training_1.png,0,0,0,0,0,0,0,4,4,2\n"  # nothing for the seven classes
    )
    faces = read(folder, votes=True)
    by_name = dict(zip(faces.names, faces.soft, strict=True))
    # angry, disgust, fear, happy, sad, surprise, neutral
    np.testing.assert_allclose(by_name["Training_3.png"], np.array([0, 0, 0, 6, 0, 1, 1]) / 8)
    np.testing.assert_allclose(by_name["Training_0.png"], np.array([5, 6, 7, 2, 4, 3, 1]) / 28)
    assert np.isnan(by_name["Training_1.png"]).all()
    assert np.isnan(by_name["Training_2.png"]).all()
    assert faces.soft.dtype == np.float32
    assert any("extra annotation" in note and "2 of 7" in note for note in faces.notes)


def test_votes_are_joined_only_when_asked_for(folder):
    (folder / "ferplus.csv").write_text(HEADER + "Training_3.png,1,6,1,0,0,0,0,2,0,0\n")
    plain = read(folder)
    assert plain.soft is None
    told = read(folder, votes=True)
    assert told.fingerprint == plain.fingerprint  # the same images
    assert told.fingerprint_with_votes != plain.fingerprint
    assert read(folder).soft is None  # the cache holds no votes


def test_votes_lie_in_the_folder_beside_it_or_where_told(folder, tmp_path):
    with pytest.raises(DataError, match=r"no ferplus\.csv in it or beside it"):
        read(folder, votes=True)
    votes = HEADER + "Training_3.png,0,1,0,0,0,0,0,0,0,0\n"
    (tmp_path / "elsewhere.csv").write_text(votes)
    told = read(folder, votes=tmp_path / "elsewhere.csv")
    (tmp_path / "ferplus.csv").write_text(votes)
    beside = read(folder, votes=True)
    np.testing.assert_array_equal(told.soft, beside.soft)


def test_the_official_table_joins_the_rows_of_fer2013_csv(tmp_path):
    rows = [f"{n},{' '.join([str(n)] * 2304)},Training" for n in range(7)]
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    (tmp_path / "fer2013new.csv").write_text(
        HEADER.replace("image", "Usage,Image name")
        + "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n"
        + "Training,,0,0,0,0,0,0,0,0,0,10\n"
        + "Training,fer0000002.png,0,0,0,0,0,0,10,0,0,0\n"
    )
    faces = read(tmp_path / "fer2013.csv", votes=tmp_path / "fer2013new.csv")
    np.testing.assert_allclose(faces.soft[0], [0.3, 0.2, 0, 0, 0.1, 0, 0.4], atol=1e-6)
    assert np.isnan(faces.soft[1]).all()
    np.testing.assert_allclose(faces.soft[2], [0, 0, 1, 0, 0, 0, 0])


def test_a_name_with_two_rows_or_two_images_gets_no_votes(folder):
    other = folder / "train" / "sad" / "Training_0.png"
    Image.new("L", (48, 48), 99).save(other)
    one = ",0,1,0,0,0,0,0,0,0,0\n"
    (folder / "ferplus.csv").write_text(
        HEADER + "".join(f"Training_{n}.png{one}" for n in (0, 1, 2, 2, 2))
    )
    faces = read(folder, votes=True)
    known = {str(name) for name in faces.names[np.isfinite(faces.soft[:, 0])]}
    assert known == {"Training_1.png"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,neutral\na,1\n", "has no column anger"),
        (HEADER + "a.jpg,1,x,0,0,0,0,0,0,0,0\n", "line 2: votes must be numbers"),
        (HEADER + "a.jpg,1\n", "line 2: votes must be numbers"),
        (HEADER + "a.jpg,1,-2,0,0,0,0,0,0,0,0\n", "line 2: votes must be 0 or more"),
        (HEADER + "a.jpg,1,nan,0,0,0,0,0,0,0,0\n", "line 2: votes must be 0 or more"),
    ],
)
def test_bad_votes_are_named(tmp_path, text, message):
    path = tmp_path / "ferplus.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_votes(path)


def test_votes_for_other_images_or_classes_are_refused(folder, tmp_path):
    (folder / "ferplus.csv").write_text(HEADER + "other.jpg,0,1,0,0,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match=r"no vote belongs.*other\.jpg"):
        read(folder, votes=True)
    (tmp_path / "cats" / "tabby").mkdir(parents=True)
    Image.new("L", (48, 48)).save(tmp_path / "cats" / "tabby" / "a.png")
    with pytest.raises(DataError, match="belong to the classes"):
        read(tmp_path / "cats", votes=folder / "ferplus.csv")


@pytest.mark.real
def test_the_real_votes_cover_the_two_public_splits(fer2013):
    if not (fer2013 / "ferplus.csv").exists():
        pytest.skip("needs the votes of FER+ as ferplus.csv in the folder of FER-2013")
    faces = read(fer2013, votes=True)
    known = np.isfinite(faces.soft[:, 0])
    # 32,137 rows; 3 are of the two file names that occur twice, 4 have no vote for the seven.
    assert known.sum() == 32_130
    np.testing.assert_allclose(faces.soft[known].sum(1), 1, atol=1e-5)
    assert not known[faces.split == "PrivateTest"].any()
    agree = faces.soft[known].argmax(1) == faces.labels[known]
    assert 0.6 < agree.mean() < 0.9  # FER+ is known to disagree with a good fifth of the labels
