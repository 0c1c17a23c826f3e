"""Keeps small matrices on one thread: handing them out costs more than they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def single_thread() -> Iterator[None]:
    """Let linear algebra within this context use the calling thread only."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
