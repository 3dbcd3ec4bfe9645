from __future__ import annotations

import errno
import io
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mien.errors import RunError
from mien.runs.atomic import (
    instead_of_earlier,
    remove_leftovers,
    replacing,
    save_with,
    write_bytes,
    write_json,
    write_text,
)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can grow beyond 8 KiB: what the system calls a file too large, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_text_bytes_and_json_are_written_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a.txt", "Gesicht 😀\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == "Gesicht 😀\n".encode()
    write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    write_json(tmp_path / "c.json", {"ä": [1, None]})
    assert (tmp_path / "c.json").read_text("utf-8") == '{\n "ä": [\n  1,\n  null\n ]\n}\n'


def test_a_file_is_readable_for_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "a")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_until_all_is_written_readers_find_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new, ")
        file.flush()
        assert path.read_text() == "old"
        file.write(b"all of it")
    assert path.read_text() == "new, all of it"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(RunError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.usefixtures("small_disk")
def test_a_file_that_grows_over_the_disk_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    write_bytes(path, b"old")
    with pytest.raises(RunError, match=r"weights\.pt: cannot be written"):
        write_bytes(path, bytes(100_000))
    with pytest.raises(RunError, match=r"weights\.pt: cannot be written"):
        save_with(path, lambda file: torch.save(torch.zeros(50_000), file))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights.pt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_while_writing_leaves_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted(file: object) -> None:
        raise error

    with pytest.raises(error):
        save_with(path, interrupted)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/a\.txt: cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "a")


def test_what_torch_saves_is_what_it_loads(tmp_path: Path) -> None:
    save_with(tmp_path / "a.pt", lambda file: torch.save({"a": torch.arange(9)}, file))
    loaded = torch.load(io.BytesIO((tmp_path / "a.pt").read_bytes()), weights_only=True)
    assert loaded["a"].tolist() == list(range(9))


def test_leftovers_of_a_killed_process_go_and_all_else_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_text("whole")
    (tmp_path / ".lock").write_text("")
    (tmp_path / "notes.tmp").write_text("not ours")
    unfinished = replacing(tmp_path / "checkpoint.pt")
    unfinished.__enter__().write(b"half")  # and here the process is killed
    assert len(os.listdir(tmp_path)) == 4
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoint.pt", "notes.tmp"]


def test_files_of_an_earlier_result_go_and_others_stay(tmp_path: Path) -> None:
    def result(*names: str) -> None:
        with instead_of_earlier(tmp_path, names):
            for name in names:
                write_text(tmp_path / name, "new")

    def there() -> set[str]:
        return {file.name for file in tmp_path.glob("[!.]*")}

    write_text(tmp_path / "mine.md", "a note of the user's")
    result("a.csv", "b.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        result("c.csv", "d.csv")
    (tmp_path / "d.csv").rmdir()
    assert there() == {"mine.md", "a.csv", "b.csv", "c.csv"}
    result("b.csv", "e.csv")
    assert there() == {"mine.md", "b.csv", "e.csv"}


def test_no_file_outside_the_folder_is_removed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.csv", tmp_path / "tables"
    write_text(outside, "mine")
    write_text(folder / ".written", "../outside.csv\n")
    with instead_of_earlier(folder, ["a.csv"]):
        write_text(folder / "a.csv", "new")
    assert outside.exists()
