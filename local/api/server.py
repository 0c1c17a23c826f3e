"""The Kubernetes API over HTTP: routes, identity and errors around the verbs.

Bound to loopback by whoever serves it; every path but health and version needs the bearer token.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kubeloop.errors import ApiError, InputError
from kubeloop.local.api import discovery
from kubeloop.local.api.handlers import Handlers, json_response, read_body
from kubeloop.local.api.logs import PodLogs
from kubeloop.local.api.paths import build_path_error, parse_target
from kubeloop.local.api.proxy import ServiceProxies
from kubeloop.local.api.verbs import ApiServer
from kubeloop.local.client import Manifest

logger = logging.getLogger(__name__)

_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_METHODS = ["DELETE", "GET", "PATCH", "POST", "PUT"]


def build_app(
    api: ApiServer,
    *,
    token: str,
    logs: PodLogs | None = None,
    proxies: ServiceProxies | None = None,
) -> Starlette:
    """The HTTP application of an API server.

    Args:
        api: The verbs.
        token: The bearer token that clients must send.
        logs: Where pods' logs are; None: nowhere.
        proxies: Services that can be reached through the API server; None: none.

    Raises:
        InputError: The token is empty.
    """
    if not token:
        raise InputError("The API server needs a bearer token that is not empty.")
    proxies = proxies or ServiceProxies()
    handlers = Handlers(api, logs=logs or PodLogs(None), proxies=proxies)
    return Starlette(
        routes=_build_routes(handlers, proxies),
        middleware=[Middleware(_Identity, token=token)],
        exception_handlers={
            ApiError: _answer_error,
            HTTPException: _answer_http_error,
            Exception: _answer_failure,
        },
    )


def _build_routes(handlers: Handlers, proxies: ServiceProxies) -> list[Route]:
    return [
        *(Route(path, _answer_health) for path in ("/healthz", "/livez", "/readyz")),
        Route("/version", _document(lambda _: discovery.render_version())),
        Route("/api", _document(lambda r: discovery.render_core_versions(r.url.netloc))),
        Route("/apis", _document(lambda _: discovery.render_group_list())),
        Route("/openapi/v2", _answer_openapi_v2),
        Route("/openapi/v3", _document(lambda _: discovery.render_openapi_index())),
        Route("/openapi/v3/api/{version}", _document(_render_openapi)),
        Route("/openapi/v3/apis/{group}/{version}", _document(_render_openapi)),
        Route("/apis/v2beta1/{path:path}", _Pipelines(proxies), methods=_METHODS),
        Route("/api/{version}", _document(_render_resources)),
        Route("/apis/{group}", _document(lambda r: discovery.render_group(r.path_params["group"]))),
        Route("/apis/{group}/{version}", _document(_render_resources)),
        Route(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            _review_access,
            methods=["POST"],
        ),
        Route("/{path:path}", _Resources(handlers), methods=_METHODS),
    ]


class _Resources:
    """All resources; one endpoint, so that their paths are read in one place."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        target = parse_target(scope["path"])
        response = await self._handlers.handle(request, target)
        await response(scope, receive, send)


class _Pipelines:
    """KFP's API under its own paths, beside its place behind the service proxy.

    NB: `kfp.Client()` without a host asks for the proxy's path, but the Kubernetes client's hook
    that refreshes a kubeconfig's token resets the host and with it drops that path.
    """

    def __init__(self, proxies: ServiceProxies) -> None:
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._proxies.forward(
            Request(scope, receive, send),
            namespace="kubeflow",
            service="ml-pipeline",
            path=scope["path"].lstrip("/"),
        )
        await response(scope, receive, send)


class _Identity:
    """Lets in who has the token."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_allowed(scope):
            error = ApiError("Unauthorized", status=401, reason="Unauthorized")
            await _render_error(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        if scope["path"] in _OPEN_PATHS:
            return True
        given = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)


async def _answer_health(_: Request) -> Response:
    return Response(b"ok", media_type="text/plain")


async def _answer_openapi_v2(request: Request) -> Response:
    """An empty document: kubectl only needs one to exist, before it accepts files of Lists."""
    info = {"title": "Kubernetes", "version": discovery.KUBERNETES_VERSION}
    if "protobuf" not in request.headers.get("accept", ""):
        document = {"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}
        return json_response(orjson.dumps(document))
    texts = [(number, text.encode()) for number, text in enumerate(info.values(), start=1)]
    inner = b"".join(bytes((number << 3 | 2, len(text))) + text for number, text in texts)
    raw = b"\x0a\x032.0" + bytes((0x12, len(inner))) + inner
    return Response(raw, media_type=_OPENAPI_V2)


async def _review_access(request: Request) -> Response:
    review = await read_body(request)
    if not isinstance(review, dict):
        review = {}
    review["status"] = {"allowed": True, "reason": "the bearer token may do everything"}
    return json_response(orjson.dumps(review), status_code=201)


def _document(render: Callable[[Request], Manifest | None]) -> Callable[[Request], object]:
    async def answer(request: Request) -> Response:
        document = render(request)
        if document is None:
            raise build_path_error()
        return json_response(orjson.dumps(document))

    return answer


def _render_resources(request: Request) -> Manifest | None:
    parameters = request.path_params
    return discovery.render_resource_list(parameters.get("group", ""), parameters["version"])


def _render_openapi(request: Request) -> Manifest | None:
    parameters = request.path_params
    return discovery.render_openapi(parameters.get("group", ""), parameters["version"])


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _render_error(error)


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        message = "the server does not allow this method on the requested resource"
        return _render_error(ApiError(message, status=405, reason="MethodNotAllowed"))
    return _render_error(build_path_error())


async def _answer_failure(request: Request, error: Exception) -> Response:
    logger.error("request failed", extra={"path": request.url.path, "cause": error})
    message = f"Internal error occurred: {type(error).__name__}: {error}"
    return _render_error(ApiError(message, status=500, reason="InternalError"))


def _render_error(error: ApiError) -> Response:
    return json_response(orjson.dumps(error.to_status()), status_code=error.status)
