"""The client over HTTP, against our own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from kubeloop.errors import ApiError, TransientError
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.http_client import HttpClient
from kubeloop.local.api.resources import CONFIG_MAPS
from kubeloop.local.client import Client
from kubeloop.testing.client_contract import ClientContract
from kubeloop.testing.manifests import build_config_map
from kubeloop.testing.servers import running_api


class TestHttpClient(ClientContract):
    def open(
        self, folder: Path, *, log_config: EventLogConfig | None = None
    ) -> AbstractAsyncContextManager[Client]:
        return _open(folder, log_config=log_config)


@asynccontextmanager
async def _open(folder: Path, *, log_config: EventLogConfig | None) -> AsyncIterator[Client]:
    async with running_api(folder, log_config=log_config) as running, running.client() as client:
        yield client


def test_a_wrong_token_is_unauthorized(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_api(tmp_path) as running, running.client(token="wrong") as client:
            with pytest.raises(ApiError) as caught:
                await client.list(CONFIG_MAPS)
            assert (caught.value.status, caught.value.reason) == (401, "Unauthorized")

    asyncio.run(main())


def test_a_server_that_is_gone_is_a_transient_error() -> None:
    async def main() -> None:
        async with HttpClient("http://127.0.0.1:9") as client:
            with pytest.raises(TransientError, match="Failed to reach the Kubernetes API"):
                await client.get(CONFIG_MAPS, "a", namespace="default")

    asyncio.run(main())


def test_watch_goes_on_when_the_server_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch is ended after each event here, as a server's time-out would."""
    from kubeloop.local.api import streaming

    stream = streaming.stream_watch

    async def short_stream(*args: object, **kwargs: object) -> AsyncIterator[bytes]:
        async with aclosing(stream(*args, **kwargs)) as chunks:  # type: ignore[arg-type, type-var]
            async for chunk in chunks:
                yield chunk
                return

    monkeypatch.setattr("kubeloop.local.api.handlers.stream_watch", short_stream)

    async def main() -> None:
        async with running_api(tmp_path) as running, running.client() as client:
            await client.create(build_config_map("a0"))
            names = []
            async with asyncio.timeout(20), aclosing(client.watch(CONFIG_MAPS)) as events:  # type: ignore[type-var]
                async for event in events:
                    names.append(event.object["metadata"]["name"])
                    if len(names) == 5:
                        break
                    await client.create(build_config_map(f"a{len(names)}"))
            assert names == ["a0", "a1", "a2", "a3", "a4"]

    asyncio.run(main())
