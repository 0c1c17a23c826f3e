"""A stage for one reconciler: a fresh API, a clock set by hand, and a kubelet that is told what
pods do. Passes are made one by one, so that a test sees what each of them writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from kubeloop.local.api.resources import EVENTS, PODS, Resource
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import Clock
from kubeloop.local.operators.controller import Reconciler, Request, Result
from kubeloop.testing.api import memory_api
from kubeloop.testing.pods import FakeKubelet


@dataclass(slots=True)
class ManualClock:
    """Shows a time until it is moved."""

    now: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class BuildReconciler(Protocol):
    """A reconciler's constructor."""

    def __call__(self, client: Client, *, clock: Clock) -> Reconciler: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One reconciler in the namespace default."""

    client: Client
    clock: ManualClock
    kubelet: FakeKubelet
    reconciler: Reconciler

    async def step(self, name: str) -> Result:
        """Make one pass."""
        return await self.reconciler.reconcile(Request(namespace="default", name=name))

    async def get(self, name: str) -> Manifest:
        """The object that the reconciler drives."""
        return await self.client.get(self.reconciler.resource, name, namespace="default")

    async def status(self, name: str) -> Manifest:
        """Its status."""
        return dict((await self.get(name)).get("status") or {})

    async def condition_types(self, name: str) -> list[tuple[str, str]]:
        """Type and status of its conditions, in order."""
        conditions = (await self.status(name)).get("conditions") or []
        return [(entry["type"], entry["status"]) for entry in conditions]

    async def names(self, resource: Resource = PODS) -> list[str]:
        """Names of the objects of a kind, sorted."""
        found = await self.client.list(resource, namespace="default")
        return sorted(item["metadata"]["name"] for item in found.items)

    async def events(self, reason: str) -> list[Manifest]:
        """Events with a reason, oldest first."""
        found = await self.client.list(EVENTS, namespace="default")
        return [event for event in found.items if event["reason"] == reason]

    async def change_spec(self, name: str, change: Manifest) -> Manifest:
        """Merge a change into the spec, as a user would."""
        return await self.client.patch(
            self.reconciler.resource, name, namespace="default", body={"spec": change}
        )


def play(build: BuildReconciler, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a scenario on a fresh stage."""

    async def run() -> None:
        async with memory_api() as client:
            clock = ManualClock()
            await scenario(
                Stage(
                    client=client,
                    clock=clock,
                    kubelet=FakeKubelet(client, clock=clock),
                    reconciler=build(client, clock=clock),
                )
            )

    asyncio.run(run())
