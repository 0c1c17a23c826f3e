"""The `Client` over HTTP, against any kube-apiserver.

Only this module knows URLs and status codes; those who use it see the verbs and errors of
`local.client`, as in the same process.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar

import httpx
import orjson

from kubeloop.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ErrorDetails,
    ExpiredError,
    InvalidError,
    NotFoundError,
    TransientError,
)
from kubeloop.local.api.memory import resource_of
from kubeloop.local.api.objects import STATUS
from kubeloop.local.api.resources import PODS, Resource
from kubeloop.local.client import (
    Client,
    EventType,
    Manifest,
    ObjectList,
    PatchType,
    Propagation,
    WatchEvent,
)

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_WATCH_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=None)
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
_FIELD_MANAGER = "kubeloop"


class HttpClient(Client):
    """Calls a Kubernetes API server. Use as an async context manager."""

    _ERRORS: ClassVar[Mapping[str, type[ApiError]]] = {
        "NotFound": NotFoundError,
        "AlreadyExists": AlreadyExistsError,
        "Conflict": ConflictError,
        "Expired": ExpiredError,
        "Gone": ExpiredError,
        "Invalid": InvalidError,
    }

    def __init__(
        self, server: str, *, token: str = "", verify: ssl.SSLContext | bool = True
    ) -> None:
        """Talk to `server`.

        Args:
            server: Base URL.
            token: Bearer token, empty for none.
            verify: How to check the server's certificate.
        """
        self._http = httpx.AsyncClient(
            base_url=server,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=verify,
            timeout=_TIMEOUT,
            limits=_LIMITS,
            trust_env=False,
        )

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def create(self, manifest: Manifest) -> Manifest:
        resource = resource_of(manifest)
        namespace = manifest["metadata"].get("namespace") or "default"
        url = _url(resource, namespace=namespace if resource.namespaced else None)
        return await self._call("POST", url, body=manifest)

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        return await self._call("GET", _url(resource, name, namespace=namespace))

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> ObjectList:
        parameters = _selectors(label_selector, field_selector)
        url = _url(resource, namespace=namespace)
        answer = await self._call("GET", url, parameters=parameters)
        identity = {"apiVersion": resource.api_version, "kind": resource.kind}
        return ObjectList(
            items=[{**identity, **item} for item in answer["items"]],
            resource_version=answer["metadata"]["resourceVersion"],
        )

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncIterator[WatchEvent]:
        parameters = _selectors(label_selector, field_selector)
        if resource_version in ("", "0"):
            present = await self.list(
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
            )
            for item in present.items:
                yield WatchEvent(type=EventType.ADDED, object=item)
            resource_version = present.resource_version
        parameters |= {"watch": "true", "allowWatchBookmarks": "true"}
        while True:  # a server ends every watch after a while
            parameters["resourceVersion"] = resource_version
            lines = self._stream(_url(resource, namespace=namespace), parameters=parameters)
            async with aclosing(lines):
                async for line in lines:
                    event = orjson.loads(line)
                    type_, content = EventType(event["type"]), event["object"]
                    if type_ is EventType.ERROR:
                        raise self._build_error(content.get("code", 500), content)
                    resource_version = content["metadata"]["resourceVersion"]
                    if type_ is not EventType.BOOKMARK:
                        yield WatchEvent(type=type_, object=content)

    async def replace(self, manifest: Manifest) -> Manifest:
        return await self._call("PUT", _url_of(manifest), body=manifest)

    async def replace_status(self, manifest: Manifest) -> Manifest:
        return await self._call("PUT", f"{_url_of(manifest)}/{STATUS}", body=manifest)

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
        url = _url(resource, name, namespace=namespace)
        is_apply = patch_type is PatchType.APPLY
        return await self._call(
            "PATCH",
            f"{url}/{subresource}" if subresource else url,
            body=body,
            content_type=patch_type.value,
            parameters={"fieldManager": _FIELD_MANAGER, "force": "true"} if is_apply else None,
        )

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
        options: Manifest = {"propagationPolicy": propagation.value}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._call("DELETE", _url(resource, name, namespace=namespace), body=options)

    async def read_log(self, name: str, *, namespace: str, container: str = "") -> str:
        url = f"{_url(PODS, name, namespace=namespace)}/log"
        parameters = {"container": container} if container else {}
        response = await self._send(self._http.build_request("GET", url, params=parameters))
        return response.content.decode(errors="replace")

    async def _call(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        parameters: dict[str, str] | None = None,
    ) -> Manifest:
        request = self._http.build_request(
            method,
            url,
            params=parameters,
            content=None if body is None else orjson.dumps(body),
            headers={"Accept": "application/json", "Content-Type": content_type},
        )
        response = await self._send(request)
        answer: Manifest = orjson.loads(response.content)
        return answer

    async def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            response = await self._http.send(request, stream=stream)
            if response.is_error and stream:
                await response.aread()
                await response.aclose()
        except httpx.TransportError as error:
            raise _unreachable(request, error) from error
        if response.is_error:
            raise self._build_error(response.status_code, _status_of(response))
        return response

    async def _stream(self, url: str, *, parameters: dict[str, str]) -> AsyncGenerator[str, None]:
        request = self._http.build_request("GET", url, params=parameters)
        request.extensions["timeout"] = _WATCH_TIMEOUT.as_dict()
        response = await self._send(request, stream=True)
        try:
            async for line in response.aiter_lines():
                if line:
                    yield line
        except httpx.TransportError as error:
            raise _unreachable(request, error) from error
        finally:
            await response.aclose()

    def _build_error(self, code: int, status: Manifest) -> ApiError:
        message = status.get("message") or f"the server answered {code}"
        given = status.get("details") or {}
        details = ErrorDetails(
            name=given.get("name", ""),
            group=given.get("group", ""),
            kind=given.get("kind", ""),
            uid=given.get("uid", ""),
            causes=tuple(given.get("causes") or ()),
            retry_after_seconds=given.get("retryAfterSeconds", 0),
        )
        reason = status.get("reason", "")
        known = self._ERRORS.get(reason)
        if known is not None:
            return known(message, details=details)  # type: ignore[call-arg]  # they know theirs
        return ApiError(message, status=code, reason=reason, details=details)


def _url(resource: Resource, name: str = "", *, namespace: str | None = None) -> str:
    root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{resource.plural}" + (f"/{name}" if name else "")


def _url_of(manifest: Manifest) -> str:
    resource, metadata = resource_of(manifest), manifest["metadata"]
    namespace = metadata.get("namespace", "default") if resource.namespaced else None
    return _url(resource, metadata["name"], namespace=namespace)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in selectors.items() if value}


def _status_of(response: httpx.Response) -> Manifest:
    try:
        status = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        status = None
    return status if isinstance(status, dict) else {"message": response.text}


def _unreachable(request: httpx.Request, error: httpx.TransportError) -> TransientError:
    cause = str(error) or type(error).__name__
    return TransientError(f"Failed to reach the Kubernetes API at {request.url}: {cause}")
