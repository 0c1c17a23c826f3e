"""Refusals of the KFP API, in the form that grpc-gateway gives them and KFP's client parses."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from kubeloop.errors import KubeloopError


class RpcCode(IntEnum):
    """gRPC status codes that the API answers."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_HTTP_STATUS = {
    RpcCode.INVALID_ARGUMENT: 400,
    RpcCode.NOT_FOUND: 404,
    RpcCode.ALREADY_EXISTS: 409,
    RpcCode.FAILED_PRECONDITION: 400,
    RpcCode.UNIMPLEMENTED: 501,
    RpcCode.INTERNAL: 500,
    RpcCode.UNAVAILABLE: 503,
    RpcCode.UNAUTHENTICATED: 401,
}


class RpcError(KubeloopError):
    """A call was refused."""

    def __init__(self, code: RpcCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        return _HTTP_STATUS.get(self.code, 500)

    def to_json(self) -> dict[str, Any]:
        """As the gateway answers it."""
        return {
            "error": self.message,
            "code": int(self.code),
            "message": self.message,
            "details": [],
        }

    def to_upload_json(self) -> dict[str, Any]:
        """As the upload endpoints, which are not behind the gateway, answer it."""
        return {"error_message": self.message, "error_details": self.message}


def invalid(message: str) -> RpcError:
    """The request itself is wrong."""
    return RpcError(RpcCode.INVALID_ARGUMENT, message)


def not_found(kind: str, identifier: str) -> RpcError:
    """There is no such thing."""
    return RpcError(RpcCode.NOT_FOUND, f"{kind} {identifier!r} not found.")


def precondition(message: str) -> RpcError:
    """What is asked for cannot be done in the present state."""
    return RpcError(RpcCode.FAILED_PRECONDITION, message)
