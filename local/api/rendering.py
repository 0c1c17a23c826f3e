"""Stored objects as response bodies: JSON as it is stored, or Tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import orjson

from kubeloop.local.api.events import StoredEvent, StoredObject
from kubeloop.local.api.queries import Page
from kubeloop.local.api.resources import Resource
from kubeloop.local.api.tables import TableOptions, render_table
from kubeloop.local.client import Manifest

Clock = Callable[[], datetime]


class Renderer:
    """Renders one response, or the events of one watch."""

    def __init__(self, resource: Resource, *, table: TableOptions | None, clock: Clock) -> None:
        self._resource = resource
        self._table = table
        self._clock = clock
        self._columns_sent = False

    def render_object(self, stored: StoredObject) -> bytes:
        """The body of an answer with one object."""
        if self._table is None:
            return stored.raw
        return self._render_table([stored], {"resourceVersion": str(stored.resource_version)})

    def render_list(self, page: Page) -> bytes:
        """The body of an answer with a list."""
        metadata: Manifest = {"resourceVersion": str(page.resource_version)}
        if page.continue_token:
            metadata["continue"] = page.continue_token
            metadata["remainingItemCount"] = page.num_remaining
        if self._table is not None:
            return self._render_table(page.items, metadata)
        head = orjson.dumps(
            {
                "kind": f"{self._resource.kind}List",
                "apiVersion": self._resource.api_version,
                "metadata": metadata,
            }
        )
        items = b",".join([stored.raw for stored in page.items])
        return b'%b,"items":[%b]}' % (head[:-1], items)

    def render_event(self, event: StoredEvent) -> bytes:
        """The `object` of a watch event."""
        if self._table is None:
            return event.object.raw
        version = {"resourceVersion": str(event.object.resource_version)}
        raw = self._render_table([event.object], version)
        self._columns_sent = True
        return raw

    def render_bookmark(self, version: str, annotations: Manifest) -> bytes:
        """The `object` of a watch's bookmark."""
        metadata: Manifest = {"resourceVersion": version, "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        bookmark: Manifest = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": metadata,
        }
        if self._table is None:
            return orjson.dumps(bookmark)
        row = {"cells": [], "object": bookmark}
        table = render_table(
            self._resource,
            [],
            options=self._table,
            now=self._clock(),
            metadata={"resourceVersion": version},
            with_columns=not self._columns_sent,
        )
        return orjson.dumps({**table, "rows": [row]})

    def _render_table(self, stored: Sequence[StoredObject], metadata: Manifest) -> bytes:
        assert self._table is not None
        return orjson.dumps(
            render_table(
                self._resource,
                [entry.load() for entry in stored],
                options=self._table,
                now=self._clock(),
                metadata=metadata,
                with_columns=not self._columns_sent,
            )
        )
