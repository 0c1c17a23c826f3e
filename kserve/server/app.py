"""The HTTP application: both protocols, health and metrics over one data plane."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.errors import InputError
from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.kserve.server.errors import RequestError
from kubeloop.kserve.server.http import BodyReader, ErrorHandlers, json_response
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.v1 import V1Routes
from kubeloop.kserve.server.v2 import V2Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """Limits of the HTTP application."""

    max_body_bytes: int = 64 << 20
    """Longest request body; a longer one is answered 413."""

    def __post_init__(self) -> None:
        """Refuse a limit that would refuse every request."""
        if self.max_body_bytes < 1:
            raise InputError(f"max_body_bytes must be 1 or more, not {self.max_body_bytes!r}.")


def build_app(
    plane: DataPlane, *, metrics: ServerMetrics, config: AppConfig | None = None
) -> Starlette:
    """Build the application."""
    reader = BodyReader(max_bytes=(config or AppConfig()).max_body_bytes)
    handlers = ErrorHandlers(metrics)

    async def check_alive(_: Request) -> Response:
        return json_response({"status": "alive"})

    async def show_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    return Starlette(
        routes=[
            *V2Routes(plane, metrics=metrics, reader=reader).routes,
            *V1Routes(plane, metrics=metrics, reader=reader).routes,
            Route("/", check_alive),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={
            RequestError: handlers.handle_request_error,
            HTTPException: handlers.handle_http_error,
            Exception: handlers.handle_bug,
        },
    )
