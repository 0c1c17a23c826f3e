"""What happened to the objects of one kind, in order, for watchers to read at their own pace.

One bounded log a kind is shared by all its watchers; a watcher is a position in it. So a slow
watcher costs no memory: when the log has dropped what it has not read yet, it is told so with
`ExpiredError` and lists again, as with a kube-apiserver. Nothing is ever skipped silently.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from kubeloop.errors import ExpiredError
from kubeloop.local.api.resources import Resource
from kubeloop.local.client import EventType, Manifest

_BYTES_BESIDE_JSON = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One version of an object: its JSON, and the parts that selectors and indices look at."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    resource_version: int
    raw: bytes
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    owner_uids: tuple[str, ...]

    def load(self) -> Manifest:
        """A copy of the object that is the caller's own."""
        manifest: Manifest = orjson.loads(self.raw)
        return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A change of one object; `previous` is the version before it."""

    type: EventType
    resource_version: int
    object: StoredObject
    previous: StoredObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLogConfig:
    """How much a log keeps; what is older is dropped."""

    max_events: int = 10_000
    """Events a kind."""

    max_bytes: int = 2 << 20
    """Bytes of memory a kind, about; the newest event is kept whatever its size."""


@dataclass(slots=True, kw_only=True)
class EventLog:
    """The newest events of one kind."""

    config: EventLogConfig
    floor: int
    """Events up to this resourceVersion are no longer (or never were) in the log."""

    _events: deque[StoredEvent] = field(default_factory=deque)
    _num_dropped: int = 0
    _num_bytes: int = 0
    _waiters: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def end(self) -> int:
        """The position after the newest event."""
        return self._num_dropped + len(self._events)

    def append(self, event: StoredEvent) -> None:
        """Add the newest event and wake the watchers."""
        self._events.append(event)
        self._num_bytes += _count_bytes(event)
        while len(self._events) > self.config.max_events or (
            self._num_bytes > self.config.max_bytes and len(self._events) > 1
        ):
            dropped = self._events.popleft()
            self._num_dropped += 1
            self._num_bytes -= _count_bytes(dropped)
            self.floor = dropped.resource_version
        self.wake()

    def wake(self) -> None:
        """Let every waiting watcher look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def position_after(self, resource_version: int) -> int:
        """The position of the first event after `resource_version`.

        Raises:
            ExpiredError: Events after it have been dropped.
        """
        if resource_version < self.floor:
            raise build_expired_error(resource_version, self.floor)
        position = self.end
        for event in reversed(self._events):
            if event.resource_version <= resource_version:
                break
            position -= 1
        return position

    def read(self, position: int) -> list[StoredEvent]:
        """All events from `position` on.

        Raises:
            ExpiredError: Some of them have been dropped.
        """
        skip = position - self._num_dropped
        if skip < 0:
            raise build_expired_error(position, self._num_dropped)
        return [self._events[index] for index in range(skip, len(self._events))]

    async def wait(self) -> None:
        """Return after the next `append` or `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


def _count_bytes(event: StoredEvent) -> int:
    return len(event.object.raw) + _BYTES_BESIDE_JSON


def build_expired_error(asked: int, oldest: int) -> ExpiredError:
    """The 410 that makes clients list again."""
    return ExpiredError(f"too old resource version: {asked} ({oldest})")
