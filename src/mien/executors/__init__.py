"""Run a function on many tasks: here, in processes, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from mien.errors import MienError
from mien.executors.local import Local
from mien.executors.ray_cluster import RayCluster

__all__ = ["Executor", "Local", "RayCluster"]

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Where tasks are done. One that fails does not keep the others from being done."""

    def run(
        self,
        function: Callable[[S, T], R],
        shared: S,
        tasks: Sequence[T],
        done: Callable[[T, R | None, MienError | None], None],
    ) -> None:
        """Call ``function(shared, task)`` for every task, and `done` as each one ends.

        Parameters
        ----------
        function : importable from its module, as are its results from theirs
        shared : what every task needs, delivered once to a process or machine; not to be changed
        tasks : in the order in which they are begun
        done : called in this process with the task, its result, and None; or, if it failed, with
            the task, None, and the error. An exception that is no `MienError` is a bug: it ends
            everything and is raised here.
        """
        ...
