"""Waits for a condition, never for time to pass."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.01


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], *, timeout_seconds: float = 10.0
) -> None:
    """Return as soon as `condition` holds; it may be a plain or an async function.

    Raises:
        TimeoutError: It did not hold in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        held = condition()
        if await held if inspect.isawaitable(held) else held:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition!r} did not hold within {timeout_seconds} s")
        await asyncio.sleep(_POLL_SECONDS)
