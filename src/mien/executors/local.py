"""Tasks on this machine: one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from mien.errors import MienError, RunError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

STOPPED = "stopped; what is finished is kept: the same command goes on from there"
START = "forkserver" if sys.platform == "linux" else "spawn"
"""How processes begin: forked from a server that has done the imports, where forking is safe."""

PATIENCE = 10
"""Seconds in which tasks may stop by themselves after Ctrl-C, before their processes are ended."""


@dataclass(frozen=True)
class Local:
    """An `Executor` on this machine.

    A task whose process dies, because it was killed or memory ran out, is begun once more in a
    fresh one, and has failed if that dies too. No process inherits this one's state, so a script
    that asks for several needs the usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    workers : tasks at a time; one is done in this process
    """

    workers: int = 1

    def run(
        self,
        function: Callable[[S, T], R],
        shared: S,
        tasks: Sequence[T],
        done: Callable[[T, R | None, MienError | None], None],
    ) -> None:
        """Do every task (see `Executor`)."""
        if self.workers > 1:
            _in_processes(self.workers, function, shared, tasks, done)
            return
        for task in tasks:
            result = error = None
            try:
                result = function(shared, task)
            except MienError as raised:
                error = raised
            done(task, result, error)


def _in_processes(
    workers: int,
    function: Callable[[S, T], R],
    shared: S,
    tasks: Sequence[T],
    done: Callable[[T, R | None, MienError | None], None],
) -> None:
    waiting = deque((task, 1) for task in tasks)  # each with the number of the attempt
    crew: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, tuple[T, int]] = {}

    def begin() -> None:
        while waiting and len(busy) < workers:
            pipe = next((pipe for pipe in crew if pipe not in busy), None)
            if pipe is None:
                pipe, process = _start(function, shared)
                crew[pipe] = process
            busy[pipe] = waiting.popleft()
            with contextlib.suppress(BrokenPipeError):  # it died idle, and `recv` will say so
                pipe.send(busy[pipe][0])

    try:
        begin()
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                task, attempt = busy.pop(pipe)
                result, error = None, None
                try:
                    result, error = pipe.recv()
                except (EOFError, ConnectionError):
                    process = crew.pop(pipe)
                    process.join()
                    if attempt == 1:
                        waiting.appendleft((task, 2))
                        begin()
                        continue
                    error = _died(process.exitcode)
                if error is not None and not isinstance(error, MienError):
                    raise error
                begin()  # before `done`, which may take its time
                done(task, result, error)
    except KeyboardInterrupt:
        # A terminal's Ctrl-C reaches the processes too, and a training then keeps its epochs.
        until = time.monotonic() + PATIENCE
        for pipe, process in crew.items():
            pipe.close()
            process.join(max(0, until - time.monotonic()))
        raise KeyboardInterrupt(STOPPED) from None
    finally:
        for process in crew.values():
            process.terminate()
            process.join()


def _start(function: Callable[[S, T], R], shared: S) -> tuple[Connection, BaseProcess]:
    """A fresh process that is handed the shared data, and the pipe to it."""
    context = multiprocessing.get_context(START)
    # What the first crew needs, torch among it, takes seconds to import: once for all of them.
    context.set_forkserver_preload([function.__module__])
    if START == "forkserver":
        with _uninterrupted():
            forkserver.ensure_running()
    ours, theirs = context.Pipe()
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=_serve, args=(theirs, function, shared)
    )
    process.start()
    theirs.close()  # so that the death of the process closes the pipe
    return ours, process


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that begin here ignore Ctrl-C: during its imports the server does not by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, function: Callable[[Any, Any], Any], shared: Any) -> None:
    """In the process: do one task after the other until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        while True:
            task = pipe.recv()
            try:
                pipe.send((function(shared, task), None))
            except MienError as error:
                pipe.send((None, error))
            except Exception as error:
                error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
                pipe.send((None, error))


def _end_with_parent() -> None:
    """Wait until the process that began this one is gone, killed perhaps, and end at once.

    Left alone, a task would go on unseen, and hold what the same command wants when given again.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _died(exitcode: int | None) -> RunError:
    how = f"killed by signal {-exitcode}" if exitcode and exitcode < 0 else f"status {exitcode}"
    return RunError(
        f"its process died twice ({how}), as it does when memory runs out; do fewer at a time, or "
        "with smaller batches"
    )
