"""The Kubernetes API as the parts of the control plane see it.

Operators, the pod runner, the gateway and the pipelines engine are written against `Client` alone.
In one process it is served from memory (`local.api.memory`); over HTTP (`local.api.http_client`)
the same code works against a real kube-apiserver. The verbs, the objects and the errors are the
API's, whichever the transport.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kubeloop.local.api.resources import Resource

Manifest = dict[str, Any]  # raw JSON of one object; its shape is the kind's


class EventType(StrEnum):
    """`type` of a watch event."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


class PatchType(StrEnum):
    """Content type of a PATCH."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Propagation(StrEnum):
    """What becomes of the dependents of a deleted object."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One line of a watch."""

    type: EventType
    object: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """A list and the resourceVersion to start a watch from."""

    items: list[Manifest]
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectChanges:
    """A collection, for somebody who knows a part of it already."""

    versions: dict[str, str]
    """The resourceVersion of every object by its uid, in the order of a list."""
    changed: list[Manifest]
    """The objects that are not in the version known."""


class Client(ABC):
    """The verbs of the Kubernetes API. Every manifest passed in or out is the caller's own copy.

    Raises (all verbs): `NotFoundError`, `AlreadyExistsError`, `ConflictError`, `InvalidError`, or
    another `ApiError` with the Status that the server answered; `TransientError` when the server
    cannot be reached.
    """

    @abstractmethod
    async def create(self, manifest: Manifest) -> Manifest:
        """POST; `metadata.namespace` says where. Returns the stored object."""

    @abstractmethod
    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        """GET one object; `namespace` is None for cluster-scoped kinds only."""

    @abstractmethod
    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> ObjectList:
        """GET the collection; of all namespaces when `namespace` is None."""

    async def list_changes(
        self,
        resource: Resource,
        *,
        known: Mapping[str, str],
        namespace: str | None = None,
        label_selector: str = "",
    ) -> ObjectChanges:
        """GET the collection, but leave out objects whose version, by uid, is `known`.

        A transport that can spare itself the objects left out overrides this.
        """
        found = await self.list(resource, namespace=namespace, label_selector=label_selector)
        versions = {
            item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in found.items
        }
        changed = [
            item
            for item, (uid, version) in zip(found.items, versions.items(), strict=True)
            if known.get(uid) != version
        ]
        return ObjectChanges(versions=versions, changed=changed)

    @abstractmethod
    def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`; empty starts with ADDED for every existing object.

        The iterator ends only when closed (`aclose`) or cancelled. It raises `ExpiredError` when
        `resource_version` is too old.
        """

    @abstractmethod
    async def replace(self, manifest: Manifest) -> Manifest:
        """PUT; a stale `metadata.resourceVersion` raises `ConflictError`."""

    @abstractmethod
    async def replace_status(self, manifest: Manifest) -> Manifest:
        """PUT on the status subresource: only `.status` is taken; conflicts as in `replace`."""

    @abstractmethod
    async def patch(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        body: Any,  # a mapping for merge patches, a list of operations for JSON patches
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
    ) -> Manifest:
        """PATCH an object or its `status` subresource."""

    @abstractmethod
    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
        grace_period_seconds: int | None = None,
        uid: str = "",
    ) -> None:
        """DELETE; with `uid`, only if the object still has it (else `ConflictError`)."""

    @abstractmethod
    async def read_log(self, name: str, *, namespace: str, container: str = "") -> str:
        """The whole log of a pod's container (its only one when `container` is empty)."""
