"""The event loop of our servers: uvloop where it is installed, else asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


def run(main: Coroutine[None, None, None]) -> None:
    """Run `main` to its end in a new event loop."""
    try:
        import uvloop
    except ImportError:  # it has no wheels for every platform
        asyncio.run(main)
    else:
        uvloop.run(main)
