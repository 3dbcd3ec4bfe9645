"""Jobs of many requests, done together by one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


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
        self._queue: SimpleQueue[tuple[Job, Future[Answer]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="mien batches", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> list[Future[Answer]]:
        """A future of each job's answer. A job whose future is cancelled in time is left out."""
        futures: list[Future[Answer]] = [Future() for _ in jobs]
        for job, future in zip(jobs, futures, strict=True):
            self._queue.put((job, future))
        return futures

    def close(self) -> None:
        """Finish the batch at work, cancel what waits, and end the thread."""
        waiting = []
        while not self._queue.empty():
            waiting.append(self._queue.get())
        for entry in waiting:
            if entry is not None:
                entry[1].cancel()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, ended = [first], False
            until = monotonic() + self._wait
            while len(batch) < self._most and not ended:
                try:
                    entry = self._queue.get(timeout=max(0.0, until - monotonic()))
                except Empty:
                    break
                ended = entry is None
                if entry is not None:
                    batch.append(entry)
            live = [entry for entry in batch if entry[1].set_running_or_notify_cancel()]
            if live:
                self._observe(len(live))
                self._do(live)
            if ended:
                return

    def _do(self, batch: Sequence[tuple[Job, Future[Answer]]]) -> None:
        try:
            answers = self._work([job for job, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:  # one bad job does not fail its neighbours
                for entry in batch:
                    self._do([entry])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
