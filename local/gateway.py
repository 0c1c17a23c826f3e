"""The one door to all endpoints: passes predictions on to ready pods.

`/serving/<namespace>/<name>/…` reaches the endpoint's own paths; so does any path with the host
name that KServe gives the endpoint. A Host that is neither loopback nor such a name is refused: a
web page that points its own name at this machine must not reach the models.

Bodies are streamed both ways. A pod that cannot be connected to is skipped; a request that a pod
may have begun to answer is never sent to another one.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import orjson

from kubeloop.local.client import Client
from kubeloop.local.routing import Backend, Route, RoutingTable
from kubeloop.local.upstream import (
    BrokenOffError,
    ConnectFailedError,
    Headers,
    UpstreamConfig,
    UpstreamPool,
    UpstreamRequest,
    UpstreamResponse,
)

logger = logging.getLogger(__name__)

# The shapes of ASGI; starlette.types has the same.
Scope = dict[str, Any]
Receive = Any
Send = Any

_PREFIX = "serving"
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"expect",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Limits of the gateway."""

    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    """Connections to pods."""
    max_replayed_bytes: int = 1 << 20
    """Bodies up to this are kept until a pod took them, so that another pod can be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    route: Route
    path: bytes


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gateway:
    """An ASGI application; `run` keeps its routing table current."""

    def __init__(self, client: Client, *, config: GatewayConfig | None = None) -> None:
        self._client = client
        self._config = config or GatewayConfig()
        self._next = 0
        self.table = RoutingTable()
        self._pool = UpstreamPool(self._config.upstream)

    async def run(self) -> None:
        """Follow the API; returns only by cancellation, and closes the connections then."""
        try:
            await self.table.follow(self._client)
        finally:
            self._pool.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        try:
            target = self._find_target(scope)
            if target is None:
                await _send_json(send, 200, self._describe())
            else:
                await self._forward(target, scope, receive, send)
        except _RefusedError as error:
            retry = [(b"retry-after", b"1")] if error.status == 503 else []
            await _send_json(send, error.status, {"error": str(error)}, headers=retry)

    def _find_target(self, scope: Scope) -> _Target | None:
        host = _read_host(scope)
        _refuse_foreign_origin(scope)
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        raw = raw.partition(b"?")[0]
        if not _is_loopback(host):
            route = self.table.find_by_host(host)
            if route is None:
                raise _RefusedError(403, f"Host {host!r} is neither loopback nor an endpoint's.")
            return _Target(route=route, path=raw)
        pieces = raw.split(b"/", 4)
        parts = [unquote_to_bytes(piece).decode("utf-8", "replace") for piece in pieces]
        if len(parts) > 3 and parts[1] == _PREFIX:
            route = self.table.find(parts[2], parts[3])
            if route is None:
                raise _RefusedError(404, _unknown(f"{parts[2]}/{parts[3]}"))
            return _Target(route=route, path=b"/" + (pieces[4] if len(pieces) > 4 else b""))
        if len(parts) > 3 and parts[1] in ("v1", "v2") and parts[2] == "models":
            name = parts[3].partition(":")[0]
            route = self.table.find_by_model(name)
            if route is None:
                raise _RefusedError(404, _unknown(name))
            return _Target(route=route, path=raw)
        if scope["path"] in ("/", "/healthz", f"/{_PREFIX}", f"/{_PREFIX}/"):
            return None
        raise _RefusedError(
            404, f"There is nothing at {scope['path']!r}; endpoints are at /serving/NAMESPACE/NAME."
        )

    def _describe(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "endpoints": [
                {
                    "namespace": route.namespace,
                    "name": route.name,
                    "ready": bool(route.backends),
                    "path": f"/{_PREFIX}/{route.namespace}/{route.name}",
                }
                for route in self.table
            ],
        }

    async def _forward(self, target: _Target, scope: Scope, receive: Receive, send: Send) -> None:
        route = target.route
        if not route.backends:
            raise _RefusedError(
                503,
                f"Endpoint {route.namespace}/{route.name} is not ready: {route.reason}.",
            )
        headers = _request_headers(scope, route)
        body = await self._take_body(scope, receive)
        request = _build_request(target, scope, headers=headers, body=body)
        for backend in self._order(route):
            response = await self._try(backend, route, request)
            if response is not None:
                await _relay(response, send)
                return
            if not isinstance(body, bytes):
                break
        raise _RefusedError(
            503,
            f"Endpoint {route.namespace}/{route.name} is not ready: none of its"
            f" {len(route.backends)} pods accepts connections.",
        )

    async def _take_body(self, scope: Scope, receive: Receive) -> bytes | AsyncIterator[bytes]:
        stream = _stream_body(receive)
        length = _content_length(scope)
        if length is None or length > self._config.max_replayed_bytes:
            return stream
        return b"".join([piece async for piece in stream])

    def _order(self, route: Route) -> list[Backend]:
        """All backends, another one first each time."""
        self._next += 1
        start = self._next % len(route.backends)
        return [*route.backends[start:], *route.backends[:start]]

    async def _try(
        self, backend: Backend, route: Route, request: UpstreamRequest
    ) -> UpstreamResponse | None:
        """Ask one pod; None when it did not take the request."""
        name = f"{route.namespace}/{route.name}"
        try:
            return await self._pool.send((backend.host, backend.port), request)
        except ConnectFailedError:
            logger.info("pod skipped", extra={"object_name": backend.pod})
            return None
        except TimeoutError as error:
            seconds = self._config.upstream.read_seconds
            raise _RefusedError(
                504, f"Endpoint {name} did not answer within {seconds:g} s."
            ) from error
        except BrokenOffError as error:
            raise _RefusedError(
                502, f"Endpoint {name} broke off before it answered: {error}."
            ) from error


def _unknown(name: str) -> str:
    return f"There is no endpoint {name}; `kubeloop endpoints` lists those that exist."


def _read_host(scope: Scope) -> str:
    hosts = [value for key, value in scope["headers"] if key == b"host"]
    if len(hosts) != 1:
        raise _RefusedError(400, f"A request has one Host header, not {len(hosts)}.")
    host: str = hosts[0].decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _refuse_foreign_origin(scope: Scope) -> None:
    """Refuse what a web page of somebody else makes a browser send."""
    for key, value in scope["headers"]:
        if key == b"origin":
            origin = value.decode("latin-1")
            if not _is_loopback(urlsplit(origin).hostname or ""):
                raise _RefusedError(403, f"Origin {origin!r} is not on this machine.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content_length(scope: Scope) -> int | None:
    """Length of the body, 0 when there is none; None when only its end will tell."""
    for key, value in scope["headers"]:
        if key == b"content-length":
            return int(value)
        if key == b"transfer-encoding":
            return None
    return 0


def _build_request(
    target: _Target, scope: Scope, *, headers: Headers, body: bytes | AsyncIterator[bytes]
) -> UpstreamRequest:
    query = scope.get("query_string") or b""
    return UpstreamRequest(
        method=scope["method"].encode("ascii"),
        target=target.path + (b"?" + query if query else b""),
        headers=headers,
        body=body,
    )


def _request_headers(scope: Scope, route: Route) -> Headers:
    dropped = _HOP_BY_HOP | _named_by_connection(scope["headers"])
    kept = [(key, value) for key, value in scope["headers"] if key not in dropped]
    return [
        *kept,
        (b"kserve-isvc-name", route.name.encode()),
        (b"kserve-isvc-namespace", route.namespace.encode()),
    ]


def _named_by_connection(headers: Headers) -> set[bytes]:
    return {
        name.strip().lower()
        for key, value in headers
        if key == b"connection"
        for name in value.split(b",")
    }


async def _stream_body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _RefusedError(400, "The client closed the connection while it sent.")
        if piece := message.get("body", b""):
            yield piece
        if not message.get("more_body", False):
            return


async def _relay(response: UpstreamResponse, send: Send) -> None:
    dropped = _HOP_BY_HOP | _named_by_connection(response.headers)
    try:
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [item for item in response.headers if item[0] not in dropped],
            }
        )
        whole = response.take_whole()
        if whole is None:
            async for piece in response.stream():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": whole or b""})
    finally:
        response.close()


async def _send_json(
    send: Send, status: int, content: object, *, headers: Headers | None = None
) -> None:
    body = orjson.dumps(content)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
