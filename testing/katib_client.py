"""Tests that block in Katib's official client, beside an API with everything at work on it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kubeflow.katib import KatibClient

from kubeloop.katib.clients import connect
from kubeloop.local.api.logs import PodLogs
from kubeloop.local.api.memory import MemoryClient
from kubeloop.testing.katib_lab import Program, lab_on
from kubeloop.testing.official_clients import close_connections
from kubeloop.testing.servers import RunningApi, running_api

Test = Callable[[KatibClient], None]


def play(program: Program, test: Test, folder: Path) -> None:
    """Run the blocking client of `test` in a thread beside the plane."""

    async def main() -> None:
        async with asyncio.timeout(60), running_api(folder) as running:
            client = MemoryClient(running.api, logs=PodLogs(running.pods_dir))
            async with lab_on(client, program, folder=folder):
                await asyncio.to_thread(run_connected, test, running)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDKs' own
        asyncio.run(main())


def run_connected(test: Test, running: RunningApi) -> None:
    """Run `test` with a client."""
    # NB: closing waits for requests under way, which the event loop has to answer meanwhile.
    with connected(running) as katib:
        test(katib)


@contextmanager
def connected(running: RunningApi) -> Iterator[KatibClient]:
    """A client of the running API, whose connections are closed at the end."""
    client = connect(config_file=str(running.kubeconfig))
    try:
        yield client
    finally:
        close_connections(client.custom_api)
