"""The `Client` of the process that serves the API: the server's own verbs without HTTP.

Every call gives other tasks a turn first, as a call over the network would, so that code which is
only right when nobody writes in between fails here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from kubeloop.errors import NotFoundError
from kubeloop.local.api.deletion import DeleteOptions
from kubeloop.local.api.logs import LogOptions, PodLogs
from kubeloop.local.api.objects import STATUS
from kubeloop.local.api.resources import PODS, Resource, find_by_kind
from kubeloop.local.api.selectors import parse_selection
from kubeloop.local.api.verbs import ApiServer
from kubeloop.local.client import (
    Client,
    Manifest,
    ObjectChanges,
    ObjectList,
    PatchType,
    Propagation,
    WatchEvent,
)


class MemoryClient(Client):
    """Calls an `ApiServer` in the same event loop."""

    def __init__(self, api: ApiServer, *, logs: PodLogs | None = None) -> None:
        self._api = api
        self._logs = logs

    async def create(self, manifest: Manifest) -> Manifest:
        await asyncio.sleep(0)
        return self._api.create(resource_of(manifest), _copy(manifest)).load()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        await asyncio.sleep(0)
        return self._api.get(resource, name, namespace=namespace or "").load()

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> ObjectList:
        await asyncio.sleep(0)
        selection = parse_selection(
            resource,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        return ObjectList(
            items=[stored.load() for stored in self._api.list(resource, selection)],
            resource_version=str(self._api.storage.resource_version),
        )

    async def list_changes(
        self,
        resource: Resource,
        *,
        known: Mapping[str, str],
        namespace: str | None = None,
        label_selector: str = "",
    ) -> ObjectChanges:
        """As in `Client`; what is known is not even parsed."""
        await asyncio.sleep(0)
        selection = parse_selection(resource, namespace=namespace, label_selector=label_selector)
        versions, changed = {}, []
        for stored in self._api.list(resource, selection):
            version = versions[stored.uid] = str(stored.resource_version)
            if known.get(stored.uid) != version:
                changed.append(stored.load())
        return ObjectChanges(versions=versions, changed=changed)

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncIterator[WatchEvent]:
        selection = parse_selection(
            resource,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        watch = self._api.watch(resource, selection, resource_version=resource_version)
        while True:
            for event in watch.read():
                yield WatchEvent(type=event.type, object=event.object.load())
            await watch.wait()

    async def replace(self, manifest: Manifest) -> Manifest:
        return await self._replace(manifest, subresource="")

    async def replace_status(self, manifest: Manifest) -> Manifest:
        return await self._replace(manifest, subresource=STATUS)

    async def patch(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        body: Any,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
    ) -> Manifest:
        await asyncio.sleep(0)
        return self._api.patch(
            resource,
            _copy(body),
            name=name,
            namespace=namespace or "",
            patch_type=patch_type,
            subresource=subresource,
        ).load()

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
        await asyncio.sleep(0)
        options = DeleteOptions(
            propagation=propagation, grace_period_seconds=grace_period_seconds, uid=uid
        )
        self._api.delete(resource, name=name, namespace=namespace or "", options=options)

    async def read_log(self, name: str, *, namespace: str, container: str = "") -> str:
        await asyncio.sleep(0)
        pod = self._api.get(PODS, name, namespace=namespace).load()
        logs = self._logs or PodLogs(None)
        return logs.read(pod, LogOptions(container=container)).decode(errors="replace")

    async def _replace(self, manifest: Manifest, *, subresource: str) -> Manifest:
        await asyncio.sleep(0)
        metadata = manifest["metadata"]
        resource = resource_of(manifest)
        return self._api.replace(
            resource,
            _copy(manifest),
            name=metadata["name"],
            namespace=metadata.get("namespace", "default") if resource.namespaced else "",
            subresource=subresource,
        ).load()


def resource_of(manifest: Manifest) -> Resource:
    """The resource of a manifest.

    Raises:
        NotFoundError: Its apiVersion and kind are not served.
    """
    api_version, kind = manifest.get("apiVersion", ""), manifest.get("kind", "")
    resource = find_by_kind(api_version, kind)
    if resource is None:
        raise NotFoundError(f'no matches for kind "{kind}" in version "{api_version}"')
    return resource


def _copy(value: Any) -> Any:  # any JSON
    return orjson.loads(orjson.dumps(value))
