"""`services/{name}:{port}/proxy/…`: requests through the API server to a service behind it.

`kfp.Client()` without a host goes to the KFP API this way. A service is an ASGI application of
this process, or a base URL on loopback.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import TracebackType
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kubeloop.errors import ApiError
from kubeloop.local.api.streaming import StreamResponse

logger = logging.getLogger(__name__)

_HOP_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class ServiceProxies:
    """The services that can be reached through the API server. Use as a context manager."""

    def __init__(self) -> None:
        self._targets: dict[tuple[str, str], ASGIApp | str] = {}
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113  # as long as the service takes

    async def __aenter__(self) -> ServiceProxies:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    def register(self, namespace: str, name: str, *, target: ASGIApp | str) -> None:
        """Forward to an ASGI application or a base URL such as `http://127.0.0.1:8888`."""
        self._targets[namespace, name] = target

    async def forward(
        self, request: Request, *, namespace: str, service: str, path: str
    ) -> ASGIApp:
        """The application that answers the request with the service's answer.

        Args:
            request: What came in.
            namespace: The service's.
            service: `name`, `name:port` or `scheme:name:port`.
            path: What follows `/proxy/`.

        Raises:
            ApiError: 503, no such service, or it does not answer.
        """
        parts = service.split(":")
        name = parts[1] if len(parts) == 3 else parts[0]
        target = self._targets.get((namespace, name))
        if target is None:
            raise _unavailable(f'no endpoints available for service "{service}"')
        if not isinstance(target, str):
            return _relocated(target, f"/{path}")
        query = f"?{request.url.query}" if request.url.query else ""
        return await self._send(request, url=f"{target}/{quote(path, safe=_SAFE)}{query}")

    async def _send(self, request: Request, *, url: str) -> Response:
        headers = [
            (key, value) for key, value in request.headers.items() if key not in _HOP_HEADERS
        ]
        outgoing = self._client.build_request(
            request.method,
            url,
            headers=headers,
            content=await request.body(),
        )
        try:
            answer = await self._client.send(outgoing, stream=True)
        except httpx.TransportError as error:
            raise _unavailable(f"Failed to reach the service at {url}: {error}") from error
        response = StreamResponse(_body_of(answer), media_type="")
        response.status_code = answer.status_code
        response.raw_headers = [
            (key.lower(), value)
            for key, value in answer.headers.raw
            if key.decode("latin-1").lower() not in _HOP_HEADERS
        ]
        return response


_SAFE = "/:@!$&'()*+,;=~"


async def _body_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _relocated(app: ASGIApp, path: str) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        moved = {**scope, "path": path, "raw_path": quote(path, safe=_SAFE).encode()}
        moved.pop("path_params", None)
        moved["root_path"] = ""
        moved["app_root_path"] = ""
        await app(moved, receive, send)

    return call


def _unavailable(message: str) -> ApiError:
    return ApiError(message, status=503, reason="ServiceUnavailable")
