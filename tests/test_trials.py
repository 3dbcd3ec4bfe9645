from __future__ import annotations

import contextlib
import multiprocessing
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mien.errors import RunError
from mien.executors.local import START
from mien.search import trials as module
from mien.search.trials import Trial, TrialTable

PROCESSES = multiprocessing.get_context(START)


def entries(n: int, rung: int = 0) -> list[dict[str, Any]]:
    return [
        {"number": i, "setting": f"s{i}", "rung": rung, "work": f"w{i}/{rung}"} for i in range(n)
    ]


def table(storage: Any, lease: float = 60, **description: Any) -> TrialTable:
    return TrialTable(str(storage), "search", description, lease)


def states(found: list[Trial]) -> list[str]:
    return [trial.state for trial in found]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL made for these tests, without a database's name."""
    places = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    programs = [Path(place).parent for place in places if place]
    if not programs:
        pytest.skip("needs PostgreSQL's initdb and pg_ctl (apt install postgresql)")
    pytest.importorskip("psycopg", reason="needs psycopg (pip install 'mien[cluster]')")
    user: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mien-pg-") as name:
        folder = Path(name)
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            try:
                other = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("needs a user 'postgres', since PostgreSQL does not run as root")
            os.chown(folder, other.pw_uid, other.pw_gid)
            user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}

        def call(program: str, *arguments: str) -> None:
            command = [str(programs[0] / program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, capture_output=True, cwd=folder, **user)

        call("initdb", "-U", "mien", "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        call("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql://mien@/{{}}?host={folder}"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/trials.db"
    server = request.getfixturevalue("server")
    url = server.format("postgres").replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    name = f"test{time.monotonic_ns()}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.format(name)


# What a claim is


def test_a_trial_goes_from_waiting_to_done_with_what_it_came_to(storage: str) -> None:
    made = table(storage)
    made.add(entries(2))
    first = made.claim("me")
    assert first is not None
    assert (first.number, first.state, first.worker, first.claims) == (0, "running", "me", 1)
    assert made.complete(first, 0.5, {"epochs": 3})
    second = made.claim("me")
    assert second is not None
    assert made.fail(second, "it diverged")
    assert made.claim("me") is None
    done, failed = made.trials()
    assert (done.state, done.value, done.measured) == ("done", 0.5, {"epochs": 3})
    assert (failed.state, failed.value, failed.reason) == ("failed", None, "it diverged")


def test_no_setting_stands_twice_on_a_rung_whoever_adds_it(storage: str) -> None:
    made, other = table(storage), table(storage)
    made.add(entries(3))
    other.add(entries(4))
    other.add([{"number": 9, "setting": "s1", "rung": 0, "work": ""}])
    other.add([{"number": 2, "setting": "another", "rung": 0, "work": ""}])
    other.add(entries(1, rung=1))
    assert [(t.number, t.setting, t.rung) for t in made.trials()] == [
        (0, "s0", 0), (0, "s0", 1), (1, "s1", 0), (2, "s2", 0), (3, "s3", 0),
    ]  # fmt: skip


def test_higher_rungs_come_first_and_equal_trainings_one_after_the_other(storage: str) -> None:
    made = table(storage)
    made.add([{"number": i, "setting": f"s{i}", "rung": 0, "work": "same"} for i in range(2)])
    made.add(entries(1, rung=1))
    promoted, first = made.claim("a"), made.claim("b")
    assert promoted is not None
    assert first is not None
    assert (promoted.rung, first.rung) == (1, 0)
    assert made.claim("c") is None, "its training is being done"
    made.complete(first, 0.5, {})
    second = made.claim("c")
    assert second is not None
    assert second.number == 1


@pytest.mark.parametrize("workers", [8])
def test_many_that_claim_at_once_never_get_the_same_trial(storage: str, workers: int) -> None:
    table(storage).add(entries(40))

    def claim_all(number: int) -> list[int]:
        mine, made = [], table(storage)
        while (trial := made.claim(str(number))) is not None:
            mine.append(trial.number)
        return mine

    with ThreadPoolExecutor(workers) as pool:
        claimed = [number for mine in pool.map(claim_all, range(workers)) for number in mine]
    assert sorted(claimed) == list(range(40))


# Leases


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The one entry is what the databases' clocks show."""
    now = [1e9]
    monkeypatch.setattr(TrialTable, "_now", lambda self, connection: now[0])
    return now


def test_a_lease_that_ran_out_goes_to_another_and_the_late_result_is_dropped(
    storage: str, clock: list[float]
) -> None:
    made = table(storage, lease=20)
    made.add(entries(1))
    late = made.claim("slow")
    assert late is not None
    clock[0] += 19
    assert made.claim("quick") is None
    clock[0] += 2
    taken = made.claim("quick")
    assert taken is not None
    assert (taken.number, taken.claims, taken.lost) == (0, 2, 1)
    assert not made.renew(late)
    assert not made.complete(late, 0.9, {})
    assert not made.fail(late, "no")
    assert not made.release(late)
    assert made.complete(taken, 0.4, {})
    assert not made.complete(late, 0.9, {})
    (trial,) = made.trials()
    assert (trial.value, trial.worker) == (0.4, "quick")


def test_a_late_result_counts_where_nobody_has_taken_over(storage: str, clock: list[float]) -> None:
    made = table(storage, lease=20)
    made.add(entries(1))
    late = made.claim("slow")
    assert late is not None
    clock[0] += 21
    assert made.complete(late, 0.9, {})
    assert made.claim("quick") is None


def test_a_worker_that_trains_longer_than_its_lease_keeps_its_trial(storage: str) -> None:
    made = table(storage, lease=1.0)
    made.add(entries(1))
    trial = made.claim("slow")
    assert trial is not None
    with made.holding(trial):
        time.sleep(2.0)
        assert made.claim("quick") is None
    assert made.complete(trial, 0.9, {})


def test_a_released_trial_waits_for_whoever_comes_next(storage: str) -> None:
    made = table(storage)
    made.add(entries(2))
    trial = made.claim("me")
    assert trial is not None
    assert made.release(trial)
    assert states(made.trials()) == ["waiting", "waiting"]
    following = [made.claim("you"), made.claim("you")]
    assert [t.number for t in following if t] == [1, 0], "one that gave trouble comes last"


def test_a_trial_that_kills_every_worker_fails_in_the_end(storage: str) -> None:
    made = table(storage, lease=0)
    made.add(entries(1))
    claims = 0
    while made.claim("doomed") is not None:
        claims += 1
        time.sleep(0.01)
    assert claims == module.MOST_LOST
    (trial,) = made.trials()
    assert trial.state == "failed"
    assert f"died {claims} times" in (trial.reason or "")


# Workers that are killed


def labour(storage: str, lease: float, seconds: float, log: Path, together: Barrier) -> None:
    """A worker whose trainings take so many seconds, and that notes whom it did."""
    together.wait(200)
    made = table(storage, lease)
    while any(state in ("waiting", "running") for state in states(made.trials())):
        trial = made.claim(str(os.getpid()))
        if trial is None:
            time.sleep(0.05)
            continue
        with made.holding(trial):
            time.sleep(seconds)
        if made.complete(trial, trial.number / 100, {"epochs": 1}):
            with log.open("a") as file:
                file.write(f"{trial.number} {os.getpid()}\n")


def until(true: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_killed_worker_loses_its_own_trial_alone_and_another_does_it(
    storage: str, tmp_path: Path
) -> None:
    made, log = table(storage, lease=2.0), tmp_path / "log"
    made.add(entries(12))
    given = storage, 2.0, 0.15, log, PROCESSES.Barrier(3)
    workers = [PROCESSES.Process(target=labour, args=given) for _ in range(3)]
    for worker in workers:
        worker.start()

    def of_first() -> list[Trial]:
        return [t for t in made.trials() if t.worker == str(workers[0].pid)]

    until(lambda: {"done", "running"} <= {t.state for t in of_first()})
    os.kill(workers[0].pid or 0, signal.SIGKILL)
    workers[0].join()
    before = {t.number: t for t in of_first()}
    for worker in workers[1:]:
        worker.join(60)
        assert worker.exitcode == 0
    found = made.trials()
    assert states(found) == ["done"] * 12
    assert [t.value for t in found] == [i / 100 for i in range(12)]
    lost = [t for t in found if t.lost]
    assert [t.number for t in lost] == [t.number for t in before.values() if t.state == "running"]
    assert len(lost) <= 1
    assert all(t.worker != str(workers[0].pid) for t in lost)
    for number, trial in before.items():
        if trial.state == "done":
            assert found[number] == trial, "what it had finished stays as it was"
    counted = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert all(n == 1 for n in counted.values()), "no trial is counted twice"
    by_others = {t.number for t in found if t.worker != str(workers[0].pid)}
    assert by_others <= set(counted)


# What is refused


def test_a_search_begun_with_something_else_is_refused_and_left_alone(storage: str) -> None:
    made = table(storage, space={"lr": (1, 2)}, data="a")
    made.add(entries(2))
    assert states(table(storage, space={"lr": [1, 2]}, data="a").trials()) == ["waiting"] * 2
    with pytest.raises(RunError, match=r"'search' was begun with another space; give this one"):
        table(storage, space={"lr": [1, 3]}, data="a")
    with pytest.raises(RunError, match="another space and another data"):
        table(storage, space={}, data="b")
    assert TrialTable(storage, "another", {"space": {}}).trials() == []
    assert len(made.trials()) == 2


def test_a_database_of_another_version_is_refused(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(storage).add(entries(1))
    monkeypatch.setattr(module, "SCHEMA", module.SCHEMA + 1)
    with pytest.raises(RunError, match=r"tables of version 1, this Mien reads 2; use the version"):
        table(storage)
    monkeypatch.undo()
    assert len(table(storage).trials()) == 1


def test_a_locked_database_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.db"
    table(path).add(entries(1))
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError, match=r"trials\.db.*locked.*stop it.*same command again"):
            table(path)
        other.execute("ROLLBACK")
    assert len(table(path).trials()) == 1


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("shopping list " * 100)
    with pytest.raises(RunError, match=r"notes\.db.*not a database"):
        table(path)
    assert path.read_text().startswith("shopping")
    with pytest.raises(RunError, match=r"storage 'mysql://\.\.\.': give sqlite:///FILE"):
        table("mysql://root:secret@host/db")
    with pytest.raises(RunError, match="unable to open"):
        table(f"sqlite:///{path}/below.db")


def test_a_server_that_cannot_be_reached_is_named_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg (pip install 'mien[cluster]')")
    with pytest.raises(RunError, match=r"cannot be used.*same command again") as error:
        table("postgresql://someone:secret@127.0.0.1:1/mien")
    assert "127.0.0.1" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_heartbeat_outlives_a_database_that_is_away_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    path = tmp_path / "trials.db"
    made = table(path, lease=2.0)
    made.add(entries(1))
    trial = made.claim("me")
    assert trial is not None
    with made.holding(trial):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(1.0)  # one beat is missed
            other.execute("ROLLBACK")
        time.sleep(1.6)
        assert made.claim("you") is None
    assert made.complete(trial, 0.5, {})


def test_the_path_of_a_file_is_not_read_as_a_url(tmp_path: Path) -> None:
    for name in ("a b", "a%20b", "what?", "what?2"):
        table(str(tmp_path / name / "t.db"))
    assert sorted(p.parent.name for p in tmp_path.glob("*/t.db")) == [
        "a b", "a%20b", "what?", "what?2",
    ]  # fmt: skip
