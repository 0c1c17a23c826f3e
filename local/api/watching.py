"""Watches: the events of one kind, narrowed to a selection."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kubeloop.local.api.events import StoredEvent, StoredObject
from kubeloop.local.api.resources import Resource
from kubeloop.local.api.selectors import Selection
from kubeloop.local.api.storage import ObjectStorage, index_object
from kubeloop.local.client import EventType


class Watch:
    """One watcher's view. `read` gives what has happened since the last call, without waiting."""

    def __init__(
        self,
        storage: ObjectStorage,
        resource: Resource,
        *,
        selection: Selection,
        resource_version: int | None = None,
    ) -> None:
        """Start to watch.

        Args:
            storage: Where the objects are.
            resource: The kind to watch.
            selection: Which of its objects.
            resource_version: Events after it; None starts with ADDED for what exists.

        Raises:
            ExpiredError: Events after `resource_version` are no longer known.
        """
        self._log = storage.logs[resource]
        self._selection = selection
        self._initial: list[StoredEvent] = []
        if resource_version is None:
            self._position = self._log.end
            self._initial = [
                StoredEvent(
                    type=EventType.ADDED, resource_version=stored.resource_version, object=stored
                )
                for stored in storage.iterate(resource, selection.namespace)
                if selection.matches(stored)
            ]
        else:
            if resource_version > storage.resource_version:  # from another state folder's past
                resource_version = -1
            self._position = self._log.position_after(resource_version)

    def read(self) -> list[StoredEvent]:
        """New events of the selection, maybe none.

        Raises:
            ExpiredError: The watcher was too slow; some events are gone.
        """
        events, self._initial = self._initial, []
        new = self._log.read(self._position)
        self._position += len(new)
        for event in new:
            selected = select_event(event, self._selection)
            if selected is not None:
                events.append(selected)
        return events

    async def wait(self) -> None:
        """Return when `read` may have something new."""
        if not self._initial and self._position == self._log.end:
            await self._log.wait()

    async def events(self) -> AsyncIterator[StoredEvent]:
        """All events, for ever."""
        while True:
            for event in self.read():
                yield event
            await self.wait()


def select_event(event: StoredEvent, selection: Selection) -> StoredEvent | None:
    """The event as a watcher of `selection` sees it: entering is ADDED, leaving is DELETED."""
    matches = selection.matches(event.object)
    previous = event.previous
    matched = previous is not None and selection.matches(previous)
    if event.type is EventType.DELETED:
        return event if matched or matches else None
    if matches and matched:
        return event
    if matches:
        return _retyped(event, EventType.ADDED, event.object)
    if matched and previous is not None:
        return _retyped(event, EventType.DELETED, _at_version(previous, event.resource_version))
    return None


def _retyped(event: StoredEvent, type_: EventType, stored: StoredObject) -> StoredEvent:
    if event.type is type_ and event.object is stored:
        return event
    return StoredEvent(type=type_, resource_version=event.resource_version, object=stored)


def _at_version(stored: StoredObject, resource_version: int) -> StoredObject:
    manifest = stored.load()
    manifest["metadata"]["resourceVersion"] = str(resource_version)
    return index_object(stored.resource, manifest)
