"""Jobs of many requests, done together by one thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


BATCHES = "mien batches"
"""Name of the thread."""

PATIENCE = 1.0
"""Seconds that a batch at work has when the server ends: nobody waits for its answers any more."""


class Batcher(Generic[Job, Answer]):
    """A queue and the thread that empties it, several jobs at a time.

    The first job of a batch waits at most `wait` seconds for others. Under load it does not wait:
    what has come while the last batch was worked on is the next one.

    Parameters
    ----------
    work : from jobs to their answers, in the same order
    most : jobs in a batch
    wait : seconds
    observe : called with the size of every batch
    """

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Answer]],
        *,
        most: int,
        wait: float,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work, self._most, self._wait, self._observe = work, most, wait, observe
        self._queue: SimpleQueue[Future[Answer] | None] = SimpleQueue()
        self._jobs: dict[Future[Answer], Job] = {}
        self._thread = Thread(target=self._run, name=BATCHES, daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> list[Future[Answer]]:
        """A future of each job's answer. A job whose future is cancelled in time is dropped."""
        futures: list[Future[Answer]] = [Future() for _ in jobs]
        for job, future in zip(jobs, futures, strict=True):
            self._jobs[future] = job
            future.add_done_callback(self._jobs.pop)
            self._queue.put(future)
        return futures

    def close(self) -> None:
        """Cancel what waits, and end the thread; a long batch at work ends with the process."""
        with contextlib.suppress(Empty):
            while True:
                if (future := self._queue.get_nowait()) is not None:
                    future.cancel()
        self._queue.put(None)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, ended = [first], False
            until = monotonic() + self._wait
            while len(batch) < self._most and not ended:
                try:
                    future = self._queue.get(timeout=max(0.0, until - monotonic()))
                except Empty:
                    break
                ended = future is None
                if future is not None:
                    batch.append(future)
            live = [future for future in batch if future.set_running_or_notify_cancel()]
            if live:
                self._observe(len(live))
                self._do(live)
            if ended:
                return

    def _do(self, batch: Sequence[Future[Answer]]) -> None:
        try:
            answers = self._work([self._jobs[future] for future in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].set_exception(error)
            else:  # one bad job does not fail its neighbours
                for future in batch:
                    self._do([future])
            return
        for future, answer in zip(batch, answers, strict=True):
            future.set_result(answer)
