"""What all parts of the engine share: the client, the store, the clock, the pods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubeloop.local.client import Client, Manifest
from kubeloop.local.pipelines.engine.object_stores import ObjectStores
from kubeloop.local.pipelines.storage.store import Store


@dataclass(slots=True, kw_only=True)
class PodBook:
    """The latest state of every Pod of one run, as the watch tells it."""

    pods: dict[str, Manifest] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    """Pods seen to go away, as against those that were gone when the engine started."""

    def update(self, pod: Manifest) -> None:
        """Remember a Pod unless a newer state of it is known."""
        name = pod["metadata"]["name"]
        known = self.pods.get(name)
        if known is None or _version(known) <= _version(pod):
            self.pods[name] = pod

    def remove(self, name: str) -> None:
        """Remember that a Pod went away."""
        self.pods.pop(name, None)
        self.deleted.add(name)


def _version(pod: Manifest) -> int:
    version: Any = pod["metadata"].get("resourceVersion", "0")
    return int(version) if str(version).isdigit() else 0


class Slots:
    """Limits how many Pods run at a time, over all runs; first come, first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: set[str] = set()
        self._waiting: dict[str, Callable[[], None]] = {}

    def take(self, holder: str, *, wake: Callable[[], None], force: bool = False) -> bool:
        """Take a slot for `holder`, or be called back when there is one.

        Args:
            holder: A task; one that holds a slot already keeps it.
            wake: Called when the slot has become the holder's.
            force: Take one beyond the limit: what is running is running.
        """
        if holder in self._taken or force or len(self._taken) < self._limit:
            self._taken.add(holder)
            return True
        self._waiting.setdefault(holder, wake)
        return False

    def release(self, holder: str) -> None:
        """Give the slot back, or the place in line; the slot goes to the next in line."""
        self._waiting.pop(holder, None)
        self._taken.discard(holder)
        while self._waiting and len(self._taken) < self._limit:
            following = next(iter(self._waiting))
            wake = self._waiting.pop(following)
            self._taken.add(following)
            wake()


@dataclass(slots=True, kw_only=True)
class EngineContext:
    """Shared by the engine and the executions of all runs."""

    client: Client
    store: Store
    namespace: str
    clock: Callable[[], float]
    slots: Slots
    stores: ObjectStores
    workspaces: Path
    """Where the folders are that the steps of a run share."""
