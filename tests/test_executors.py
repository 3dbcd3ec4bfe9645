"""Tasks done here and in processes: what comes back, what goes wrong, who dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mien.errors import DataError, MienError, RunError
from mien.executors import Local

# Tasks are told apart by identity, as those that hold arrays must be.


@dataclass(frozen=True, eq=False)
class Task:
    do: str
    folder: Path = Path()
    number: int = 0


def carry_out(shared: np.ndarray, task: Task) -> tuple[int, int]:
    """The sum of the shared data, and the process it was found in."""
    if task.do == "fail":
        raise DataError(f"row {task.number}: is no face")
    if task.do == "bug":
        raise ZeroDivisionError("a slip")
    if task.do == "die once" and not (task.folder / "died").exists():
        (task.folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task.do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(shared.sum()) + task.number, os.getpid()


def outcomes(executor: Local, tasks: list[Task]) -> dict[Task, tuple[object, MienError | None]]:
    found: dict[Task, tuple[object, MienError | None]] = {}

    def done(task: Task, result: object, error: MienError | None) -> None:
        assert task not in found
        found[task] = (result, error)

    executor.run(carry_out, np.arange(10), tasks, done)
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_does_not_keep_the_others_from_being_done(workers: int) -> None:
    tasks = [Task("sum"), Task("fail", number=7), Task("sum", number=1), Task("sum", number=2)]
    found = outcomes(Local(workers), tasks)
    assert set(found) == set(tasks)
    results = [found[task][0] for task in tasks]
    assert [result and result[0] for result in results] == [45, None, 46, 47]  # type: ignore[index]
    error = found[tasks[1]][1]
    assert isinstance(error, DataError)
    assert str(error) == "row 7: is no face"


def test_one_worker_is_this_process_and_several_are_others() -> None:
    tasks = [Task("sum", number=number) for number in range(6)]
    assert {pid for (_, pid), _ in outcomes(Local(1), tasks).values()} == {os.getpid()}  # type: ignore[misc]
    pids = {pid for (_, pid), _ in outcomes(Local(2), tasks).values()}  # type: ignore[misc]
    assert os.getpid() not in pids
    assert len(pids) <= 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_in_a_task_is_raised_and_not_taken_for_a_failed_task(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a slip"):
        outcomes(Local(workers), [Task("bug"), Task("sum")])


def test_a_task_whose_process_was_killed_is_done_by_another(tmp_path: Path) -> None:
    tasks = [Task("die once", tmp_path), *(Task("sum", number=number) for number in range(3))]
    found = outcomes(Local(2), tasks)
    assert [found[task][0][0] for task in tasks] == [45, 45, 46, 47]  # type: ignore[index]


def test_a_task_that_kills_every_process_fails_alone() -> None:
    tasks = [Task("die"), *(Task("sum", number=number) for number in range(5))]
    found = outcomes(Local(2), tasks)
    error = found[tasks[0]][1]
    assert isinstance(error, RunError)
    assert "died twice (killed by signal 9)" in str(error)
    assert [found[task][0][0] for task in tasks[1:]] == [45, 46, 47, 48, 49]  # type: ignore[index]


def test_no_tasks_are_no_work() -> None:
    assert outcomes(Local(2), []) == {}


SLOW = """
import os, sys, time
from pathlib import Path
from mien.executors import Local

def wait(folder, number):
    (folder / f"begun {number}").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"tidied {number}").touch()
        raise

if __name__ == "__main__":
    try:
        Local(2).run(wait, Path(sys.argv[1]), range(4), print)
    except KeyboardInterrupt as stopped:
        print(stopped)
"""


def test_ctrl_c_lets_the_running_tasks_tidy_up_and_begins_no_other(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True, process_group=0
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("begun *"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert "the same command goes on from there" in said
    assert {path.name for path in tmp_path.glob("* ?")} == {
        "begun 0", "begun 1", "tidied 0", "tidied 1",
    }  # fmt: skip


SLOWLY = """
import os, time
from pathlib import Path

if "IMPORTING" in os.environ:  # as the server of processes does, before there are any
    Path(os.environ["IMPORTING"]).touch()
    time.sleep(3)

def work(shared, task):
    pass
"""

ASKED = """
import os, sys
import slowly
from mien.executors import Local

if __name__ == "__main__":
    os.environ["IMPORTING"] = sys.argv[1]
    try:
        Local(2).run(slowly.work, None, range(4), print)
    except KeyboardInterrupt as stopped:
        print(stopped)
"""


def test_ctrl_c_before_the_processes_have_begun_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "slowly.py").write_text(SLOWLY)
    (tmp_path / "asked.py").write_text(ASKED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "asked.py", tmp_path / "importing"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    until = time.monotonic() + 60
    while not (tmp_path / "importing").exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=30)
    assert "the same command goes on from there" in said
    assert errors == ""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_first_process_is_killed_no_task_goes_on_unseen(
    tmp_path: Path, how: signal.Signals
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen([sys.executable, script, tmp_path])
    until = time.monotonic() + 60
    while len(begun := [p for p in tmp_path.glob("begun *") if p.read_text()]) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(how)
    process.wait(30)
    left = {int(path.read_text()) for path in begun}
    until = time.monotonic() + 20
    while left := {pid for pid in left if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert not list(tmp_path.glob("tidied *"))
