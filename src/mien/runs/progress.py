"""One progress display for a training: a live line on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Shows rate, loss, validation accuracy and time left of one training.

    Parameters
    ----------
    title : what is being trained
    epochs, steps : length of the training in epochs, and of an epoch in steps
    done : epochs that an earlier process has finished
    show : ``"live"``, ``"lines"`` or ``"none"``
    """

    def __init__(self, title: str, epochs: int, steps: int, done: int = 0, show: str = "live"):
        self.title, self.epochs, self.steps, self.quiet = title, epochs, steps, show == "none"
        self._last = 0.0
        self._accuracy = ""
        self._bar: Progress | None = None
        if show == "live" and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                title, total=epochs * steps, completed=done * steps, text=""
            )

    def __enter__(self) -> TrainingProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def due(self) -> bool:
        """Whether a second has passed since the display was last brought up to date."""
        return time.perf_counter() - self._last > 1

    def step(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Bring the live line up to date within an epoch (counted from 1)."""
        self._last = time.perf_counter()
        if self._bar:
            text = (
                f"epoch {epoch}/{self.epochs}  {rate:,.0f} img/s  loss {loss:.3f}{self._accuracy}"
            )
            self._bar.update(self._task, completed=(epoch - 1) * self.steps + step, text=text)

    def epoch(self, row: dict[str, Any]) -> None:
        """Show the log row of a finished epoch."""
        if "validation_accuracy" in row:
            self._accuracy = f"  valid {row['validation_accuracy']:.3f}"
        if self._bar:
            self._bar.update(self._task, completed=row["epoch"] * self.steps)
        elif not self.quiet:
            left = (self.epochs - row["epoch"]) * row["seconds"]
            accuracy = f"  train {row['accuracy']:.3f}" if "accuracy" in row else ""
            print(
                f"{self.title}  epoch {row['epoch']}/{self.epochs}  loss {row['loss']:.3f}"
                f"{accuracy}{self._accuracy}"
                f"  {row['images_per_second']:,.0f} img/s  {left / 60:.1f} min left",
                file=sys.stderr,
                flush=True,
            )

    def say(self, message: str) -> None:
        """Print a remark beside the display."""
        if self._bar:
            self._bar.console.print(message, highlight=False)
        elif not self.quiet:
            print(message, file=sys.stderr, flush=True)
