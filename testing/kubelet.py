"""A pod runner on a control plane of its own, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeloop.local.api.resources import EVENTS, PODS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.kubelet.kubelet import Kubelet, KubeletConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.api import memory_api
from kubeloop.testing.waiting import wait_until

FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A control plane with one running node."""

    client: Client
    kubelet: Kubelet
    state: Path

    async def create(self, name: str, *command: str, **spec: Any) -> Manifest:  # fields of a spec
        """Create a pod of one container, `main`, unless `spec` names others."""
        return await self.client.create(build_pod(name, *command, **spec))

    async def get(self, name: str) -> Manifest:
        """A pod as it is now."""
        return await self.client.get(PODS, name, namespace="default")

    async def wait(self, name: str, condition: Callable[[Manifest], bool]) -> Manifest:
        """Until a pod is as `condition` says; returns it."""
        async with asyncio.timeout(30):
            watch = self.client.watch(PODS, namespace="default")
            async with aclosing(watch) as events:  # type: ignore[type-var]  # an async generator
                async for event in events:
                    if event.object["metadata"]["name"] == name and condition(event.object):
                        return event.object
        raise AssertionError("a watch ends only when closed")

    async def finish(self, name: str) -> Manifest:
        """Until a pod has succeeded or failed; returns it."""
        return await self.wait(name, lambda pod: phase(pod) in FINISHED)

    async def run(self, name: str, *command: str, **spec: Any) -> Manifest:  # as `create`
        """Create a pod and wait until it has ended."""
        await self.create(name, *command, **spec)
        return await self.finish(name)

    async def log(self, name: str, container: str = "") -> str:
        """What a container has written."""
        return await self.client.read_log(name, namespace="default", container=container)

    async def is_gone(self, name: str) -> bool:
        """Whether there is no pod of that name."""
        listed = await self.client.list(PODS, namespace="default")
        return all(pod["metadata"]["name"] != name for pod in listed.items)

    async def wait_until_gone(self, name: str) -> None:
        """Until there is no pod of that name."""
        await wait_until(lambda: self.is_gone(name))

    async def event_reasons(self, name: str) -> list[str]:
        """Reasons of the events about a pod, sorted."""
        listed = await self.client.list(EVENTS, namespace="default")
        return sorted(
            event["reason"] for event in listed.items if event["involvedObject"]["name"] == name
        )


@asynccontextmanager
async def start_cluster(
    state: Path, *, config: KubeletConfig | None = None
) -> AsyncIterator[Cluster]:
    """A fresh control plane with a kubelet whose warm parent imports nothing."""
    config = config or KubeletConfig(warm=WarmConfig(layers=()), first_backoff_seconds=0.02)
    async with (
        memory_api(pods_dir=state / "pods") as client,
        Kubelet(client, state=state, config=config) as kubelet,
    ):
        yield Cluster(client=client, kubelet=kubelet, state=state)


def play(
    state: Path,
    scenario: Callable[[Cluster], Awaitable[None]],
    *,
    config: KubeletConfig | None = None,
) -> None:
    """Run a scenario on a fresh cluster."""

    async def run() -> None:
        async with start_cluster(state, config=config) as cluster:
            await scenario(cluster)

    asyncio.run(run())


def build_pod(name: str, *command: str, **spec: Any) -> Manifest:  # fields of a spec
    """A pod in the namespace default that is not restarted."""
    container = {"name": "main", "image": "python:3.11", "command": list(command)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            **spec,
        },
    }


def phase(pod: Manifest) -> str:
    """A pod's phase."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def container_status(pod: Manifest, name: str = "main") -> Manifest:
    """The status of a container, init containers included; empty before there is one."""
    status = pod.get("status") or {}
    every = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    return next((entry for entry in every if entry["name"] == name), {})


def is_condition_true(pod: Manifest, kind: str) -> bool:
    """Whether a condition of a pod is True."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)
