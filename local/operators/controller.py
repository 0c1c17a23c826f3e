"""Runs reconcilers: watches feed a queue of keys, workers reconcile them one key at a time.

Reconcilers are level-based: they are told that an object may have changed, never what changed, and
they read the state themselves. A key is reconciled by one worker at a time; a key that changes
while it is being reconciled is looked at once more afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar

from kubeloop.errors import ApiError, ConflictError, ExpiredError, TransientError
from kubeloop.local.api.resources import Resource
from kubeloop.local.client import Client, EventType, Manifest

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Request:
    """The object to look at."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """When to look again even if nothing changes; None: only when something changes."""

    requeue_after_seconds: float | None = None


class Reconciler(ABC):
    """Drives objects of one kind towards their spec."""

    resource: ClassVar[Resource]
    owns: ClassVar[tuple[Resource, ...]] = ()
    """Kinds whose events wake the object that is their controller owner."""

    @abstractmethod
    async def reconcile(self, request: Request) -> Result:
        """Read the state, compute, write, and say when to look again.

        Called again with a growing delay after any error. `ConflictError` means that somebody else
        wrote first and is retried at once, without a log line.
        """

    def map_event(self, resource: Resource, manifest: Manifest) -> list[Request]:
        """Which objects to look at when `manifest`, of one of `owns`, changed."""
        del resource
        owner = controller_owner(manifest)
        if owner is None or owner["kind"] != self.resource.kind:
            return []
        return [Request(namespace=manifest["metadata"]["namespace"], name=owner["name"])]


def controller_owner(manifest: Manifest) -> Manifest | None:
    """The owner reference with `controller: true`, if any."""
    owners: list[Manifest] = manifest["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def build_owner_reference(owner: Manifest) -> Manifest:
    """A controlling, blocking owner reference to `owner`."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Controller:
    """Runs one reconciler until cancelled."""

    def __init__(self, client: Client, reconciler: Reconciler, *, num_workers: int = 4) -> None:
        self._client = client
        self._reconciler = reconciler
        self._num_workers = num_workers
        self._queue: asyncio.Queue[Request] = asyncio.Queue()
        self._queued: set[Request] = set()
        self._active: set[Request] = set()
        self._dirty: set[Request] = set()
        self._failures: dict[Request, int] = {}
        self._timers: dict[Request, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Watch and reconcile; returns only by cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                for resource in (self._reconciler.resource, *self._reconciler.owns):
                    group.create_task(self._watch(resource))
                for _ in range(self._num_workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def enqueue(self, request: Request) -> None:
        """Ask for a look at `request`; several asks before the look are one."""
        if request in self._active:
            self._dirty.add(request)
        elif request not in self._queued:
            self._queued.add(request)
            self._queue.put_nowait(request)

    def _enqueue_after(self, request: Request, delay_seconds: float) -> None:
        def fire() -> None:
            self._timers.pop(request, None)
            self.enqueue(request)

        if timer := self._timers.pop(request, None):
            timer.cancel()
        self._timers[request] = asyncio.get_running_loop().call_later(delay_seconds, fire)

    async def _watch(self, resource: Resource) -> None:
        own = resource is self._reconciler.resource
        while True:
            try:
                async with aclosing(self._client.watch(resource)) as events:  # type: ignore[type-var]  # an async generator
                    async for event in events:
                        if event.type in (EventType.BOOKMARK, EventType.ERROR):
                            continue
                        metadata = event.object["metadata"]
                        if own:
                            self.enqueue(
                                Request(
                                    namespace=metadata.get("namespace", ""), name=metadata["name"]
                                )
                            )
                        else:
                            for request in self._reconciler.map_event(resource, event.object):
                                self.enqueue(request)
            except (ExpiredError, TransientError) as error:
                logger.warning("watch interrupted", extra={"kind": resource.kind, "cause": error})
                await asyncio.sleep(_FIRST_RETRY_SECONDS)

    async def _work(self) -> None:
        while True:
            request = await self._queue.get()
            self._queued.discard(request)
            self._active.add(request)
            try:
                await self._reconcile(request)
            finally:
                self._active.discard(request)
                if request in self._dirty:
                    self._dirty.discard(request)
                    self.enqueue(request)

    async def _reconcile(self, request: Request) -> None:
        try:
            result = await self._reconciler.reconcile(request)
        except ConflictError:
            self._enqueue_after(request, _FIRST_RETRY_SECONDS)
        except Exception as error:  # one bad object must not stop the rest
            failures = self._failures[request] = self._failures.get(request, 0) + 1
            delay = min(_FIRST_RETRY_SECONDS * 2**failures, _LAST_RETRY_SECONDS)
            logger.log(
                logging.WARNING if isinstance(error, ApiError | TransientError) else logging.ERROR,
                "reconcile failed",
                extra={
                    "kind": self._reconciler.resource.kind,
                    "namespace": request.namespace,
                    "object_name": request.name,
                    "attempt": failures,
                },
                exc_info=error,
            )
            self._enqueue_after(request, delay)
        else:
            self._failures.pop(request, None)
            if result.requeue_after_seconds is not None:
                self._enqueue_after(request, result.requeue_after_seconds)
