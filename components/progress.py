"""What a step prints while it works: a line a stage, and at most one a second in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kubeloop.datasets import Progress

if TYPE_CHECKING:
    from kubeloop.katib.runs import ExperimentProgress


def print_line(line: str) -> None:
    """Print a line at once: Python keeps what it writes to a pipe, as in a pod, for later."""
    print(line, flush=True)


class ProgressPrinter:
    """Prints progress to the step's log."""

    def __init__(
        self, *, interval_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._stage = ""
        self._last = 0.0
        self._message = ""

    def ingest(self, progress: Progress) -> None:
        """Print how far an ingestion is."""
        now = self._clock()
        is_due = now - self._last >= self._interval_seconds
        is_last = progress.total and progress.done >= progress.total
        if progress.stage == self._stage and not is_due and not is_last:
            return
        self._stage, self._last = progress.stage, now
        of = f" of {progress.total}" if progress.total else ""
        print_line(f"{progress.stage}: {progress.done}{of} examples")

    def tune(self, progress: ExperimentProgress) -> None:
        """Print how far a search is, where that reads differently from the last time."""
        if progress.message != self._message:
            self._message = progress.message
            print_line(progress.message)
