"""Run stores: what is put in comes out, whole or not at all."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from mien.errors import RunError
from mien.runs.atomic import write_bytes, write_json
from mien.runs.lock import locked
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.runs.store import RunStore

FILES = {"recipe.toml", "run.json", "log.jsonl", "weights.safetensors"}


def make_run(folder: Path, name: str = "plain-1", state: str = "finished") -> Run:
    run = Run.create(folder / name, Recipe(epochs=3), {"state": state})
    run.log = [{"epoch": 1, "loss": 0.5}]
    run.save_log()
    write_bytes(run.weights_path, bytes(range(256)) * 100)
    return run


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that does not exist yet."""
    return str(tmp_path / "a" / "b") if request.param == "folder" else f"memory://{uuid.uuid4()}/b"


def test_a_run_comes_out_of_a_store_as_it_went_in(url: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "there")
    with locked(run.path):  # leaves a file that does not belong to the run
        RunStore(url).put(run.path)
    store = RunStore(url)
    assert store.has("plain-1")
    fetched = Run.open(store.fetch("plain-1", tmp_path / "here"))
    assert fetched.path == tmp_path / "here" / "plain-1"
    assert (fetched.recipe, fetched.info, fetched.log) == (run.recipe, run.info, run.log)
    assert {file.name for file in fetched.path.iterdir()} == FILES | {".lock"}
    assert fetched.weights_path.read_bytes() == run.weights_path.read_bytes()


def test_a_store_that_is_not_there_yet_has_no_runs(url: str) -> None:
    assert not RunStore(url).has("plain-1")


def test_only_finished_runs_are_taken(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finished"):
        RunStore(url).put(make_run(tmp_path, state="training").path)
    assert not RunStore(url).has("plain-1")


def test_the_first_to_put_a_run_wins(url: str, tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    write_bytes(second.weights_path, b"from another machine")
    store = RunStore(url)
    store.put(first.path)
    store.put(second.path)
    fetched = Run.open(store.fetch("plain-1", tmp_path / "here"))
    assert fetched.weights_path.read_bytes() == first.weights_path.read_bytes()


def breaking(method: Callable[..., object], at: str) -> Callable[..., object]:
    """A file system's method that fails for paths that hold `at`."""

    def broken(self: object, *paths: str, **more: object) -> object:
        if any(at in path for path in paths):
            raise OSError(28, "No space left on device")
        return method(self, *paths, **more)

    return broken


@pytest.mark.parametrize("at", ["weights", "run.json"])
@pytest.mark.parametrize("method", ["put_file", "mv"])
def test_a_run_that_could_not_be_put_whole_is_not_there_and_can_be_put_again(
    at: str, method: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "there")
    files, root = fsspec.url_to_fs(url)
    kind = type(files)
    with monkeypatch.context() as patched:
        patched.setattr(kind, method, breaking(getattr(kind, method), at))
        with pytest.raises(RunError, match="No space left"):
            RunStore(url).put(run.path)
    assert not RunStore(url).has("plain-1")
    left = {path.split("/")[-1] for path in files.ls(f"{root}/plain-1", detail=False)}
    assert left < FILES  # nothing half-written under any other name
    RunStore(url).put(run.path)
    assert Run.open(RunStore(url).fetch("plain-1", tmp_path / "here")).finished


def test_a_run_that_could_not_be_fetched_whole_is_unfinished_and_can_be_fetched_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunStore(url).put(make_run(tmp_path / "there").path)
    here = tmp_path / "here"
    kind = type(fsspec.url_to_fs(url)[0])
    with monkeypatch.context() as patched:
        patched.setattr(kind, "cat_file", breaking(kind.cat_file, "weights"))
        with pytest.raises(RunError, match="No space left"):
            RunStore(url).fetch("plain-1", here)
    assert not (here / "plain-1" / "run.json").exists()
    assert Run.open(RunStore(url).fetch("plain-1", here)).finished


def test_what_is_fetched_replaces_an_unfinished_training_but_no_finished_run(
    url: str, tmp_path: Path
) -> None:
    store = RunStore(url)
    store.put(make_run(tmp_path / "there").path)
    begun = make_run(tmp_path / "here", state="training")
    write_bytes(begun.checkpoint_path, b"epoch 1")
    store.fetch("plain-1", tmp_path / "here")
    assert Run.open(begun.path).finished
    assert not begun.checkpoint_path.exists()
    mine = make_run(tmp_path / "mine")
    write_json(mine.path / "run.json", mine.info | {"note": "mine"})
    store.fetch("plain-1", tmp_path / "mine")
    assert json.loads((mine.path / "run.json").read_text())["note"] == "mine"


def test_a_run_that_is_being_trained_here_is_not_replaced(url: str, tmp_path: Path) -> None:
    RunStore(url).put(make_run(tmp_path / "there").path)
    with locked(tmp_path / "here" / "plain-1"), pytest.raises(RunError, match="another process"):
        RunStore(url).fetch("plain-1", tmp_path / "here")


def test_a_run_that_the_store_does_not_have_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no run 'plain-2'"):
        RunStore(url).fetch("plain-2", tmp_path)


def test_a_store_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/runs: the run store cannot be used"):
        RunStore(tmp_path / "file" / "runs").put(make_run(tmp_path / "there").path)
    with pytest.raises(RunError, match=r"tape://runs: the run store cannot be used .*tape"):
        RunStore("tape://runs")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RunError, match=r"s3://bucket/runs: .*s3fs"):
        RunStore("s3://bucket/runs")
