"""How the parts of the clients' contract open a client and run a test on it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.client import (
    Client,
)

_DEADLINE_SECONDS = 20.0


class ClientHarness(ABC):
    """Opens a client for each test."""

    @abstractmethod
    def open(
        self, folder: Path, *, log_config: EventLogConfig | None = None
    ) -> AbstractAsyncContextManager[Client]:
        """A client of a fresh server; logs of pods are in `folder/pods`."""

    def run(
        self,
        folder: Path,
        test: Callable[[Client], Awaitable[None]],
        *,
        log_config: EventLogConfig | None = None,
    ) -> None:
        """Run a test to its end or its deadline."""

        async def limited() -> None:
            async with (
                asyncio.timeout(_DEADLINE_SECONDS),
                self.open(folder, log_config=log_config) as client,
            ):
                await test(client)

        asyncio.run(limited())
