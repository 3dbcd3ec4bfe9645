"""Tasks on the machines of a Ray cluster."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mien.errors import MienError, RunError
from mien.executors.local import STOPPED

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Ray is not to report on its use, nor to send the project's folder, data and all, to the nodes."""

CONNECTING = 30
"""Seconds that a cluster has to answer."""


@dataclass(frozen=True)
class RayCluster:
    """An `Executor` on a Ray cluster, whose nodes need the same Mien.

    Ray gives each task its share of a node, waits where there is none free, and begins anew,
    elsewhere, a task whose node or process died. An error of the task itself is never retried.
    The shared data is put into Ray's object store once. Where Ray is connected already, that
    cluster is used, and stays connected.

    Parameters
    ----------
    address : ``"auto"`` (the cluster this machine belongs to), ``"host:port"``,
        ``"ray://host:port"``, or ``"local"`` to start one on this machine for the time of the tasks
    cpus, gpus : the share of a node that each task needs; torch uses as many threads as `cpus`
    retries : how often a task is begun anew
    """

    address: str = "auto"
    cpus: float = 1
    gpus: float = 0
    retries: int = 3

    def run(
        self,
        function: Callable[[S, T], R],
        shared: S,
        tasks: Sequence[T],
        done: Callable[[T, R | None, MienError | None], None],
    ) -> None:
        """Do every task (see `Executor`).

        Raises
        ------
        MienError
            if Ray is not installed, the cluster does not answer within half a minute, or none of
            its nodes has what a task needs.
        """
        ray = import_ray()
        mine = not ray.is_initialized()
        if mine:
            self._connect(ray)
        pending: list[Any] = []
        try:
            self._check_nodes(ray.nodes())
            attempt = ray.remote(_attempt).options(
                num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries
            )
            data, threads = ray.put(shared), max(1, int(self.cpus))
            task_of = {attempt.remote(function, data, task, threads): task for task in tasks}
            pending = list(task_of)
            while pending:
                (ended,), pending = ray.wait(pending)
                try:
                    result, error = ray.get(ended)
                except ray.exceptions.RayTaskError:
                    raise  # a bug
                except ray.exceptions.RayError as death:
                    result, error = None, self._died(death)
                done(task_of[ended], result, error)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(STOPPED) from None
        finally:
            for left in pending:
                ray.cancel(left, force=True)
            if mine:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        start: dict[str, Any] = {}
        if self.address == "local":
            start["include_dashboard"] = False
        else:
            self._check_address()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(self.address, logging_level=logging.ERROR, log_to_driver=False, **start)

    def _check_address(self) -> None:
        """Knock in a process of its own: Ray waits for minutes, and may end the one it is in."""
        knock = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
        try:
            subprocess.run(
                [sys.executable, "-c", knock, self.address],
                capture_output=True,
                check=True,
                text=True,
                timeout=CONNECTING,
            )
            return
        except subprocess.TimeoutExpired:
            why = f"no answer within {CONNECTING} s"
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip().rsplit("\n", 1)[-1]
        raise MienError(
            f"Ray cluster '{self.address}' cannot be reached ({why}). Start one with "
            "`ray start --head`, give its host:port, or 'local' for this machine alone"
        )

    def _check_nodes(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Ray would wait for ever for a node that is large enough."""
        found = [node["Resources"] for node in nodes if node["Alive"]]
        have = [(node.get("CPU", 0), node.get("GPU", 0)) for node in found]
        if not any(cpus >= self.cpus and gpus >= self.gpus for cpus, gpus in have):
            listed = ", ".join(f"{cpus:g} and {gpus:g}" for cpus, gpus in have)
            raise MienError(
                f"Ray cluster '{self.address}': no node has {self.cpus:g} CPUs and {self.gpus:g} "
                f"GPUs for a task (the nodes have {listed}); ask for less, or add a node"
            )

    def _died(self, death: Exception) -> RunError:
        first_line = str(death).partition("\n")[0]
        return RunError(
            f"its node or process died {self.retries + 1} times ({first_line}); "
            "if memory ran out, give each task more CPUs, so that fewer share a node"
        )


def import_ray() -> Any:
    """Ray, set to be `QUIET`.

    Raises
    ------
    MienError
        if it is not installed.
    """
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        import ray
    except ImportError as error:
        raise MienError(f"a cluster needs Ray ({error}); install mien[cluster]") from error
    return ray


def _attempt(
    function: Callable[[S, T], R], shared: S, task: T, threads: int
) -> tuple[R | None, MienError | None]:
    """On a node: do one task."""
    import torch

    torch.set_num_threads(threads)
    try:
        return function(shared, task), None
    except MienError as error:
        return None, error
