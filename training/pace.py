"""How fast a run goes, and when it will end."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Monotonic time in seconds."""


class Pace:
    """Examples a second, over all of a run that this process has seen; scoring counts as well."""

    def __init__(self, num_examples: int, *, clock: Clock = time.monotonic) -> None:
        """Prepare for a run over some examples, each counted once an epoch."""
        self._num_examples = num_examples
        self._clock = clock
        self._started, self._first = clock(), 0

    def start(self, num_done: int) -> None:
        """Begin, with some examples done by an earlier process."""
        self._started, self._first = self._clock(), num_done

    def seconds_left(self, num_done: int) -> float:
        """Estimate the time to the end; 0 where nothing is known yet."""
        elapsed, num_new = self._clock() - self._started, num_done - self._first
        return elapsed * (self._num_examples - num_done) / num_new if num_new > 0 else 0.0


def render_duration(seconds: float) -> str:
    """Write a time for people: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
