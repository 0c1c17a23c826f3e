"""What all routes share: bodies, replies, refusals, and the bearer token."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kubeloop.errors import InputError
from kubeloop.local.pipelines.messages import as_message
from kubeloop.local.pipelines.rpc_errors import RpcCode, RpcError, invalid
from kubeloop.local.pipelines.spec.documents import MAX_PACKAGE_BYTES

logger = logging.getLogger(__name__)

PREFIX = "/apis/v2beta1"
HEALTH_PATH = f"{PREFIX}/healthz"

Handler = Callable[[Request], Awaitable[Response]]


def reply(value: Any, *, status: int = 200) -> Response:
    """A JSON reply."""
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def route(path: str, handler: Handler, *, method: str, is_upload: bool = False) -> Route:
    """A route below the API's prefix, whose handler may raise refusals."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except RpcError as error:
            refused = error
        except InputError as error:
            refused = invalid(str(error))
        except Exception as error:  # a broken handler must answer, and not stop the server
            logger.exception("request broke the server", extra={"object_name": request.url.path})
            refused = RpcError(RpcCode.INTERNAL, f"The server failed: {error!r}.")
        content = refused.to_upload_json() if is_upload else refused.to_json()
        return reply(content, status=refused.http_status)

    return Route(f"{PREFIX}{path}", endpoint, methods=[method])


async def read_body(request: Request) -> bytes:
    """The request's body.

    Raises:
        RpcError: It is larger than the API accepts.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_PACKAGE_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_PACKAGE_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> RpcError:
    return invalid(f"The request is larger than {MAX_PACKAGE_BYTES} bytes.")


async def read_json(request: Request) -> Any:
    """The request's body as JSON; an object without fields where it is empty.

    Raises:
        RpcError: The body is no JSON, or too large.
    """
    body = await read_body(request)
    try:
        return orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request's body is not JSON: {error}.") from error


async def read_message(request: Request, *, kind: str, fields: Iterable[str]) -> dict[str, Any]:
    """The request's body as a message of the API.

    Raises:
        RpcError: The body is no JSON object, or has a field that the message does not.
    """
    return as_message(await read_json(request), kind=kind, fields=fields)


class BearerToken:
    """Lets only requests with the token through; health needs none."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "http" and scope["path"] != HEALTH_PATH:
            given = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(given, self._expected):
                refused = RpcError(
                    RpcCode.UNAUTHENTICATED,
                    "The request has no valid bearer token; take it from the kubeconfig.",
                )
                await reply(refused.to_json(), status=refused.http_status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Door:
    """Turns requests away once it is closed: the store behind it is closed too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._is_open = True

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or turn it away."""
        if self._is_open or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = RpcError(
            RpcCode.UNAVAILABLE, "The control plane is stopping; runs go on when it is up again."
        )
        await reply(refused.to_json(), status=refused.http_status)(scope, receive, send)
