"""Who answers for an endpoint right now: a table kept current by watching the API.

The table holds what a request needs and nothing else, so that routing one never asks the API. A
pod is out of it the moment its deletion is asked for, before it is told to stop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from kubeloop.errors import ExpiredError, TransientError
from kubeloop.local.api.resources import INFERENCE_SERVICES, PODS, SERVICES, Resource
from kubeloop.local.client import Client, EventType, Manifest
from kubeloop.local.operators.conditions import conditions_of, find_condition
from kubeloop.local.operators.pod_states import is_being_deleted, is_ready

logger = logging.getLogger(__name__)

HOST_PORTS_ANNOTATION = "kubeloop.dev/host-ports"
_LABEL = "serving.kserve.io/inferenceservice"
_INGRESS_DOMAIN = "example.com"
_SERVICE_PORT = 80
_RETRY_SECONDS = 0.2

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A ready pod's port on this host."""

    pod: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An endpoint and who answers for it."""

    namespace: str
    name: str
    backends: tuple[Backend, ...]
    reason: str
    """Why nobody answers, when nobody does."""


class RoutingTable:
    """InferenceServices, their Services and their pods."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Key, Manifest]] = {
            INFERENCE_SERVICES: {},
            SERVICES: {},
            PODS: {},
        }
        self._routes: dict[Key, Route] = {}
        self._hosts: dict[str, Key] | None = None

    async def follow(self, client: Client) -> None:
        """Keep the table current; returns only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for resource in self._objects:
                group.create_task(self._follow(client, resource))

    def find(self, namespace: str, name: str) -> Route | None:
        """The route to an endpoint; None when there is no such InferenceService."""
        key = (namespace, name)
        route = self._routes.get(key)
        if route is None and key in self._objects[INFERENCE_SERVICES]:
            route = self._routes[key] = self._build_route(key)
        return route

    def find_by_host(self, host: str) -> Route | None:
        """The route to the endpoint that has a host name, without a port."""
        if self._hosts is None:
            keys = self._objects[INFERENCE_SERVICES]
            self._hosts = {name: key for key in keys for name in _host_names(*key)}
        key = self._hosts.get(host)
        return self.find(*key) if key else None

    def find_by_model(self, name: str) -> Route | None:
        """The route to the only endpoint of a name in any namespace."""
        keys = [key for key in self._objects[INFERENCE_SERVICES] if key[1] == name]
        return self.find(*keys[0]) if len(keys) == 1 else None

    def __iter__(self) -> Iterator[Route]:
        """All endpoints, by namespace and name."""
        for key in sorted(self._objects[INFERENCE_SERVICES]):
            route = self.find(*key)
            if route is not None:
                yield route

    def put(self, resource: Resource, manifest: Manifest) -> None:
        """Note an object that exists."""
        self._objects[resource][_key(manifest)] = manifest
        self._forget_routes()

    def remove(self, resource: Resource, manifest: Manifest) -> None:
        """Note an object that is gone."""
        self._objects[resource].pop(_key(manifest), None)
        self._forget_routes()

    def clear(self, resource: Resource) -> None:
        """Forget a kind, before it is listed anew."""
        self._objects[resource].clear()
        self._forget_routes()

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._hosts = None

    async def _follow(self, client: Client, resource: Resource) -> None:
        selector = "" if resource is INFERENCE_SERVICES else _LABEL
        while True:
            self.clear(resource)
            try:
                watch = client.watch(resource, label_selector=selector)
                async with aclosing(watch) as events:  # type: ignore[type-var]  # a generator
                    async for event in events:
                        if event.type is EventType.DELETED:
                            self.remove(resource, event.object)
                        elif event.type in (EventType.ADDED, EventType.MODIFIED):
                            self.put(resource, event.object)
            except (ExpiredError, TransientError) as error:
                logger.warning("watch interrupted", extra={"kind": resource.kind, "cause": error})
                await asyncio.sleep(_RETRY_SECONDS)

    def _build_route(self, key: Key) -> Route:
        namespace, name = key
        endpoint = self._objects[INFERENCE_SERVICES][key]
        component = "transformer" if endpoint["spec"].get("transformer") else "predictor"
        service = self._objects[SERVICES].get((namespace, f"{name}-{component}"))
        backends = tuple(self._find_backends(namespace, service)) if service else ()
        return Route(
            namespace=namespace,
            name=name,
            backends=backends,
            reason="" if backends else _explain(endpoint),
        )

    def _find_backends(self, namespace: str, service: Manifest) -> Iterator[Backend]:
        selector, port = service["spec"].get("selector") or {}, _find_target_port(service)
        for pod in self._objects[PODS].values():
            metadata = pod["metadata"]
            if metadata["namespace"] != namespace or not _matches(metadata, selector):
                continue
            if is_being_deleted(pod) or not is_ready(pod):
                continue
            host = (pod.get("status") or {}).get("podIP") or "127.0.0.1"
            host_port = read_host_ports(pod).get(port, port)
            yield Backend(pod=metadata["name"], host=host, port=host_port)


def read_host_ports(pod: Manifest) -> dict[int, int]:
    """Where a pod's ports are on this host."""
    text = (pod["metadata"].get("annotations") or {}).get(HOST_PORTS_ANNOTATION)
    return {int(port): int(host_port) for port, host_port in json.loads(text or "{}").items()}


def _key(manifest: Manifest) -> Key:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _host_names(namespace: str, name: str) -> Iterator[str]:
    yield f"{name}-{namespace}.{_INGRESS_DOMAIN}"
    for service in (name, f"{name}-predictor"):
        for suffix in (namespace, f"{namespace}.svc", f"{namespace}.svc.cluster.local"):
            yield f"{service}.{suffix}"


def _find_target_port(service: Manifest) -> int:
    ports = service["spec"].get("ports") or []
    front = next((port for port in ports if port.get("port") == _SERVICE_PORT), None)
    front = front or (ports[0] if ports else {"port": _SERVICE_PORT})
    target = front.get("targetPort", front["port"])
    return int(target)


def _matches(metadata: Mapping[str, Mapping[str, str]], selector: Mapping[str, str]) -> bool:
    labels = metadata.get("labels") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def _explain(endpoint: Manifest) -> str:
    ready = find_condition(conditions_of(endpoint), "Ready") or {}
    said = [ready.get("reason", ""), ready.get("message", "")]
    return ": ".join(part for part in said if part) or "no pod of it is ready yet"
