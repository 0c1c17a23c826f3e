"""What the routes of both protocols share: reading bodies, rendering JSON and errors."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kubeloop.kserve.server.errors import (
    InvalidRequestError,
    PayloadTooLargeError,
    RequestError,
    SchemaError,
)
from kubeloop.kserve.server.metrics import ServerMetrics

logger = logging.getLogger(__name__)


class BodyReader:
    """Reads request bodies up to a limit."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def __call__(self, request: Request) -> bytes:
        """The whole body.

        Raises:
            PayloadTooLargeError: It is longer than the limit; no more of it is kept than that.
            InvalidRequestError: The client went away while it sent.
        """
        self._check(int(request.headers.get("content-length") or 0))
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in request.stream():
                size += len(piece)
                self._check(size)
                pieces.append(piece)
        except ClientDisconnect as error:
            raise InvalidRequestError("The client closed the connection.") from error
        return b"".join(pieces)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise PayloadTooLargeError(
                f"The body is longer than {self._max_bytes} bytes; send fewer instances at once."
            )


def json_response(content: Any, *, status: int = 200) -> Response:  # content: any JSON value
    """Render JSON; numpy numbers are taken as they are."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status_code=status, media_type="application/json")


class ErrorHandlers:
    """Renders whatever a handler raised; these are the only places that choose a status code."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._failed = metrics.of_path("failed")

    async def handle_request_error(self, request: Request, error: Exception) -> Response:
        """Errors that requests are expected to end in."""
        if not isinstance(error, RequestError):
            raise error
        self._failed.count(error.status)
        if error.status >= 500:
            self._log(request, error, status=error.status)
        if isinstance(error, SchemaError):
            return json_response({"detail": error.details}, status=error.status)
        return json_response({"error": str(error)}, status=error.status)

    async def handle_http_error(self, _: Request, error: Exception) -> Response:
        """No such route, or not with this method; worded as KServe's server (FastAPI) does."""
        if not isinstance(error, HTTPException):
            raise error
        return json_response({"detail": error.detail}, status=error.status_code)

    async def handle_bug(self, request: Request, error: Exception) -> Response:
        """Everything else is our own bug."""
        self._failed.count(500)
        self._log(request, error, status=500)
        return json_response({"error": f"{type(error).__name__} : {error}"}, status=500)

    @staticmethod
    def _log(request: Request, error: Exception, *, status: int) -> None:
        logger.error(
            "request failed", extra={"path": request.url.path, "status": status}, exc_info=error
        )
