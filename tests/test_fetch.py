"""Fetching FER-2013: what is done with a download, and what is said without one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mien.data.fetch import DATASET, PAGE, fetch
from mien.errors import DataError


@pytest.fixture
def kaggle(tmp_path, monkeypatch) -> SimpleNamespace:
    """A kagglehub that gives a small release, and counts how often it is asked."""
    release = tmp_path / "hub" / "versions" / "1"
    for folder in ("train/happy", "test/happy"):
        (release / folder).mkdir(parents=True)
        (release / folder / "Training_1.jpg").write_bytes(b"picture")
    module = SimpleNamespace(asked=[], release=release)

    def dataset_download(handle: str) -> str:
        module.asked.append(handle)
        return str(release)

    module.dataset_download = dataset_download
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return module


def test_the_release_comes_to_the_destination(kaggle, tmp_path):
    place = fetch(tmp_path / "data" / "fer2013")
    assert place == tmp_path / "data" / "fer2013"
    assert (place / "train/happy/Training_1.jpg").read_bytes() == b"picture"
    assert kaggle.asked == [DATASET]
    assert [path.name for path in place.parent.iterdir()] == ["fer2013"]  # nothing left over
    assert (kaggle.release / "train/happy/Training_1.jpg").exists()


def test_a_release_that_is_there_is_not_downloaded_again(kaggle, tmp_path):
    fetch(tmp_path / "fer2013")
    fetch(tmp_path / "fer2013")
    assert len(kaggle.asked) == 1


def test_an_empty_destination_is_filled_and_another_one_left_alone(kaggle, tmp_path):
    (tmp_path / "empty").mkdir()
    assert (fetch(tmp_path / "empty") / "train").is_dir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="exists and is not FER-2013"):
        fetch(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"
    assert len(kaggle.asked) == 1


def test_a_copy_that_fails_leaves_no_half_of_a_data_set(kaggle, tmp_path, monkeypatch):
    def full(source: Path, copy: Path) -> None:
        (copy / "train").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mien.data.fetch.shutil.copytree", full)
    with pytest.raises(DataError, match=r"No space left.*versions"):
        fetch(tmp_path / "data" / "fer2013")
    assert list((tmp_path / "data").iterdir()) == []


def test_without_kagglehub_it_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match="not installed") as error:
        fetch(tmp_path / "fer2013")
    assert "uv run --extra fetch mien data fetch" in str(error.value)
    assert PAGE in str(error.value)
    assert f"{tmp_path}/fer2013/train" in str(error.value)
    assert not (tmp_path / "fer2013").exists()


@pytest.mark.parametrize(
    "cause", [ConnectionError("no route to host"), PermissionError("403 Forbidden"), KeyError()]
)
def test_without_network_or_permission_it_says_what_to_do_by_hand(kaggle, tmp_path, cause):
    def refuse(handle: str) -> str:
        raise cause

    kaggle.dataset_download = refuse
    with pytest.raises(DataError, match=r"Kaggle did not give .*by hand|browser") as error:
        fetch(tmp_path / "fer2013")
    assert (str(cause) or "KeyError") in str(error.value)
    assert PAGE in str(error.value)
    assert not (tmp_path / "fer2013").exists()


def test_a_release_of_another_layout_is_refused(kaggle, tmp_path):
    kaggle.dataset_download = lambda handle: str(tmp_path / "hub" / "versions" / "1" / "test")
    with pytest.raises(DataError, match="no folders train and test"):
        fetch(tmp_path / "fer2013")
