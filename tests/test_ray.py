"""A Ray cluster of two nodes on this machine, one of which dies."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien
from mien.errors import DataError, MienError
from mien.executors import RayCluster, ray_cluster
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.runs.store import RunStore
from mien.study.scales import Planned, Scale
from mien.study.study import run_study

pytest.importorskip("ray", reason="needs Ray: install mien[cluster]")

TINY = Recipe(model="plain", width=0.1, image_size=16, stride=8, epochs=2, batch_size=16)
PLAN = tuple(
    Planned("plain", attention, f"seed {seed}", TINY.but(attention=attention, seed=seed))
    for seed in range(2)
    for attention in ("none", "cbam")
)
FOUR = Scale("tiny", "tiny scale", True, None, PLAN)


def processes_under(folder: Path) -> list[int]:
    """Processes whose temporary files go to `folder`, or to one in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"\0TMPDIR={folder}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def kill(processes: list[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder with a short name, as Ray's sockets need it."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def cluster(scratch: Path) -> Iterator[Any]:
    """Two nodes of one CPU each; node N puts its temporary files into a folder N of its own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(shutdown_at_exit=True)
    head = {"temp_dir": str(scratch), "_system_config": {"health_check_period_ms": 500}}
    try:
        for number in range(2):
            (scratch / str(number)).mkdir()
            try:
                cluster.add_node(
                    num_cpus=1,
                    object_store_memory=80 * 2**20,
                    include_dashboard=False,
                    include_log_monitor=False,
                    no_monitor=True,
                    env_vars={"TMPDIR": str(scratch / str(number))},
                    **({} if number else head),
                )
            except Exception as error:  # Ray gives a node half a minute, and raises just that
                kill(processes_under(scratch))
                pytest.skip(f"Ray's nodes do not start on this machine, as busy as it is: {error}")
        yield cluster
    finally:
        cluster.shutdown()
        until = time.monotonic() + 20
        while processes_under(scratch) and time.monotonic() < until:
            time.sleep(0.1)
        kill(left := processes_under(scratch))
        assert not left


def outcomes(
    cluster: RayCluster, function: Any, shared: Any, tasks: list[Any]
) -> dict[Any, tuple[Any, MienError | None]]:
    found: dict[Any, tuple[Any, MienError | None]] = {}
    cluster.run(function, shared, tasks, lambda task, *end: found.update({task: end}))  # type: ignore[arg-type]
    return found


def test_a_task_that_fails_on_a_cluster_does_not_keep_the_others_from_being_done(
    cluster: Any,
) -> None:
    faces = mien.read("drawn:140")
    found = outcomes(RayCluster(cluster.address), operator.getitem, faces, ["train", "none such"])
    part, error = found["train"]
    assert part.fingerprint == faces["train"].fingerprint
    assert error is None
    nothing, error = found["none such"]
    assert nothing is None
    assert isinstance(error, DataError)
    assert "has no split 'none such'" in str(error)


def test_a_bug_on_a_cluster_is_raised(cluster: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        outcomes(RayCluster(cluster.address), operator.floordiv, 10, [0])


def test_a_share_that_no_node_has_is_refused_at_once(cluster: Any) -> None:
    with pytest.raises(MienError, match=r"no node has 2 CPUs and 1 GPUs .*have 1 and 0, 1 and 0\)"):
        outcomes(RayCluster(cluster.address, cpus=2, gpus=1), operator.add, 1, [1])


def kill_in_the_middle(cluster: Any, node: Any, folder: Path) -> None:
    """Kill a node with all its processes as soon as a training has begun on it."""
    until = time.monotonic() + 200
    while not any(folder.glob("mien-*/*/run.json")) and time.monotonic() < until:
        time.sleep(0.005)
    kill(processes_under(folder))
    cluster.remove_node(node, allow_graceful=False)


def test_a_study_whose_node_is_killed_ends_with_the_results_of_one_machine(
    cluster: Any, scratch: Path, tmp_path: Path, one_thread: None
) -> None:
    faces = mien.read("drawn:140")
    [node] = (n for n in cluster.worker_nodes if n._ray_params.env_vars["TMPDIR"][-1] == "1")
    killer = threading.Thread(target=kill_in_the_middle, args=(cluster, node, scratch / "1"))
    killer.start()
    path = run_study(
        faces,
        FOUR,
        tmp_path / "out",
        runs=tmp_path / "runs",
        executor=RayCluster(cluster.address),
        store=str(tmp_path / "store"),
    )
    killer.join()
    together = json.loads(path.read_text())
    assert together["state"] == "complete"
    [cut] = (scratch / "1").glob("mien-*/*")
    assert Run.open(cut).info["state"] == "training"
    store = RunStore(tmp_path / "store")
    assert all(store.has(model["run"]) for model in together["models"])

    path = run_study(faces, FOUR, tmp_path / "alone", runs=tmp_path / "here", jobs=1)
    for one, other in zip(json.loads(path.read_text())["models"], together["models"], strict=True):
        assert one["run"] == other["run"]
        assert one["metrics"] == other["metrics"]
        mine, theirs = (
            Run.open(tmp_path / folder / one["run"]).predictions("validation").probabilities
            for folder in ("here", "runs")
        )
        np.testing.assert_array_equal(mine, theirs)


def test_a_cluster_that_does_not_answer_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECTING", 3)
    with pytest.raises(MienError, match=r"'127.0.0.1:1' cannot be reached .*ray start --head"):
        outcomes(RayCluster("127.0.0.1:1"), operator.add, 1, [1])
    monkeypatch.setattr(ray_cluster, "CONNECTING", 200)
    with pytest.raises(MienError, match=r"'nonsense' cannot be reached \(.*nonsense"):
        outcomes(RayCluster("nonsense"), operator.add, 1, [1])


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MienError, match=r"install mien\[cluster\]"):
        outcomes(RayCluster(), operator.add, 1, [1])
