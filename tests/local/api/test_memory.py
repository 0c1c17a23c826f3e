"""The client of the process that serves the API."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.client import Client
from kubeloop.testing.api import memory_api
from kubeloop.testing.client_contract import ClientContract


class TestMemoryClient(ClientContract):
    def open(
        self, folder: Path, *, log_config: EventLogConfig | None = None
    ) -> AbstractAsyncContextManager[Client]:
        return memory_api(pods_dir=folder / "pods", log_config=log_config)
