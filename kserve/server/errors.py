"""What a request can end in; each carries the status code of KServe's model servers.

Source: kserve python/kserve/kserve/errors.py.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar

from kubeloop.errors import InputError, KubeloopError


class RequestError(KubeloopError):
    """A request that is answered with an error."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR


class InvalidRequestError(RequestError, InputError):
    """The body cannot be read, or does not fit the model."""

    status = HTTPStatus.BAD_REQUEST


class PayloadTooLargeError(RequestError, InputError):
    """The body is longer than the server reads."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class SchemaError(RequestError, InputError):
    """A V2 body is not of the protocol's schema; `details` has one entry a fault."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, details: list[dict[str, Any]]) -> None:  # Any: the faulty JSON
        super().__init__("; ".join(str(detail["msg"]) for detail in details))
        self.details = details


class ModelNotFoundError(RequestError):
    """No model of that name."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, name: str) -> None:
        super().__init__(f"Model with name {name} does not exist.")


class NotReadyError(RequestError):
    """The model, or the server, does not take requests now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class ModelNotReadyError(NotReadyError):
    """The model is known and not loaded."""

    def __init__(self, name: str, *, detail: str = "") -> None:
        super().__init__(f"Model with name {name} is not ready." + (f" {detail}" if detail else ""))


class InferenceError(RequestError):
    """The model failed on an input that it should have taken."""


class UnsupportedError(RequestError):
    """Part of the protocol that this server does not have."""

    status = HTTPStatus.NOT_IMPLEMENTED
