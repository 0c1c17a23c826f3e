"""Being asked to end: SIGTERM, with which Kubernetes and torchrun take a process down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kubeloop.errors import KubeloopError


class StoppedError(KubeloopError):
    """The process was asked to end; a checkpoint was written."""


class StopSignal:
    """Turns SIGTERM into a question that the loop asks between two steps."""

    def __init__(self) -> None:
        self.is_set = False

    def _set(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Handle SIGTERM for the time of the context."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = signal.signal(signal.SIGTERM, self._set)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, previous)
