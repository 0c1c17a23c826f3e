"""The operators may be cut off between any two writes, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.api.resources import EXPERIMENTS, PYTORCH_JOBS, SUGGESTIONS, TRIALS, Resource
from kubeloop.local.client import Client, Manifest, ObjectList, WatchEvent
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.testing.api import memory_api
from kubeloop.testing.katib_lab import (
    Kubelet,
    at_work,
    build_experiment,
    print_accuracy,
)
from kubeloop.testing.waiting import wait_until

MAX_TRIALS = 4


class PowerCut(BaseException):
    """Nothing runs after this."""


class Doomed(Client):
    """Passes calls on, until it has passed on so many writes."""

    def __init__(self, client: Client, *, num_writes: int) -> None:
        self._client = client
        self._num_left = num_writes

    @property
    def is_dead(self) -> bool:
        return self._num_left <= 0

    async def _write(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.is_dead:
            raise PowerCut
        self._num_left -= 1
        return await call()

    async def create(self, manifest: Manifest) -> Manifest:
        return dict(await self._write(lambda: self._client.create(manifest)))

    async def replace(self, manifest: Manifest) -> Manifest:
        return dict(await self._write(lambda: self._client.replace(manifest)))

    async def replace_status(self, manifest: Manifest) -> Manifest:
        return dict(await self._write(lambda: self._client.replace_status(manifest)))

    async def patch(self, resource: Resource, name: str, **options: Any) -> Manifest:
        return dict(await self._write(lambda: self._client.patch(resource, name, **options)))

    async def delete(self, resource: Resource, name: str, **options: Any) -> None:
        await self._write(lambda: self._client.delete(resource, name, **options))

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        return await self._client.get(resource, name, namespace=namespace)

    async def list(self, resource: Resource, **options: Any) -> ObjectList:
        return await self._client.list(resource, **options)

    async def watch(self, resource: Resource, **options: Any) -> AsyncIterator[WatchEvent]:
        async for event in self._client.watch(resource, **options):
            yield event

    async def read_log(self, name: str, *, namespace: str, container: str = "") -> str:
        return await self._client.read_log(name, namespace=namespace, container=container)


async def is_over(client: Client) -> bool:
    status = (await client.get(EXPERIMENTS, "digits", namespace="default")).get("status") or {}
    ends = ("Succeeded", "Failed")
    return any(c["type"] in ends and c["status"] == "True" for c in status.get("conditions") or ())


async def work_until_the_power_is_cut(
    client: Client, observations: ObservationStore, *, folder: Path, num_writes: int
) -> None:
    doomed = Doomed(client, num_writes=num_writes)

    async def holds() -> bool:
        return doomed.is_dead or await is_over(client)

    with suppress(BaseExceptionGroup):
        async with at_work(doomed, observations, folder=folder):
            await wait_until(holds)


async def run(folder: Path, *, num_writes: int) -> dict[str, Any]:
    with ObservationStore(folder / "metrics.db") as observations:
        async with memory_api(pods_dir=folder / "pods") as client:
            kubelet = Kubelet(client, print_accuracy, pods_dir=folder / "pods")
            node = asyncio.create_task(kubelet.run())
            try:
                await client.create(build_experiment(maxTrialCount=MAX_TRIALS))
                for _ in range(3):
                    await work_until_the_power_is_cut(
                        client, observations, folder=folder, num_writes=num_writes
                    )
                async with at_work(client, observations, folder=folder):
                    await wait_until(lambda: is_over(client))
                    await wait_until(lambda: _no_jobs(client))
                return await _summarise(client, kubelet, observations)
            finally:
                node.cancel()


async def _no_jobs(client: Client) -> bool:
    return not (await client.list(PYTORCH_JOBS, namespace="default")).items


async def _summarise(
    client: Client, kubelet: Kubelet, observations: ObservationStore
) -> dict[str, Any]:
    status = (await client.get(EXPERIMENTS, "digits", namespace="default"))["status"]
    suggestion = (await client.get(SUGGESTIONS, "digits", namespace="default"))["status"]
    trials = (await client.list(TRIALS, namespace="default")).items
    return {
        "reason": status["conditions"][-1]["reason"],
        "succeeded": status["trialsSucceeded"],
        "trials": len(trials),
        "suggested": len(suggestion["suggestions"]),
        "starts": sorted(kubelet.num_started.values()),
        "reports": [len(observations.read(trial["metadata"]["name"])) for trial in trials],
        "values": [s["parameterAssignments"][0]["value"] for s in suggestion["suggestions"]],
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asyncio.run(run(tmp_path_factory.mktemp("undisturbed"), num_writes=10_000))


def test_an_undisturbed_run_does_everything_once(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["succeeded"] == undisturbed["trials"] == MAX_TRIALS
    assert undisturbed["starts"] == undisturbed["reports"] == [1] * MAX_TRIALS


@pytest.mark.parametrize("num_writes", range(1, 60))
def test_power_cuts_change_nothing(
    num_writes: int, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    assert asyncio.run(run(tmp_path, num_writes=num_writes)) == undisturbed
