"""Forgets old Events, which nobody else deletes.

A cluster keeps them for an hour; a laptop keeps them for a day, so that what went wrong over night
can still be read in the morning. But every trial of a search has nine, and all are in memory: of
many thousands the newest stay.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kubeloop.local.api.events import StoredObject
from kubeloop.local.api.resources import EVENTS
from kubeloop.local.api.storage import ObjectStorage

KEPT_FOR = timedelta(days=1)
MAX_KEPT = 5_000
_LOOK_EVERY = timedelta(minutes=1)


class EventExpiry:
    """Removes Events that were last written too long ago; looks when told, but not too often."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._looked_at: datetime | None = None

    def remove_old(self, now: datetime) -> None:
        """Remove what is too old at `now`."""
        if self._looked_at is not None and now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        oldest = (now - KEPT_FOR).strftime("%Y-%m-%dT%H:%M:%SZ")
        events = sorted(self._storage.iterate(EVENTS), key=_written_at, reverse=True)
        for number, stored in enumerate(events):
            if number >= MAX_KEPT or _written_at(stored)[0] < oldest:
                self._storage.remove(stored)


def _written_at(stored: StoredObject) -> tuple[str, int]:
    event = stored.load()  # times are UTC in one format
    written = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    return written, stored.resource_version
