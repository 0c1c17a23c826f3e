"""The edge where the Kubernetes SDKs' errors become ours.

KServe's client flattens every API error to `RuntimeError`; the original one, with the status code,
is still its context.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from kubeloop.errors import InputError, PermanentError, TransientError


class ApiFailureError(PermanentError):
    """The Kubernetes API refused; `status` is its HTTP status code."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RefusedError(ApiFailureError, InputError):
    """The Kubernetes API, or a webhook behind it, refused what was asked for."""


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate the SDKs' errors; `what` completes "Failed to …".

    Raises:
        RefusedError: The API says that the object is not acceptable (400, 422, or a webhook).
        ApiFailureError: The API refuses for another reason.
        TransientError: The API cannot be reached, or is overloaded.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except HTTPError as error:
        raise TransientError(
            f"Failed to {what}: the Kubernetes API cannot be reached ({error})."
        ) from error
    except (ApiException, RuntimeError) as error:
        origin = error if isinstance(error, ApiException) else error.__context__
        if not isinstance(origin, ApiException):
            raise
        raise _translate(origin, what) from error


def _translate(error: object, what: str) -> Exception:
    status = int(getattr(error, "status", 0) or 0)
    message = f"Failed to {what}: {read_message(error)}"
    if status in (429, 500, 502, 503, 504):
        return TransientError(message)
    # A webhook that answers no status code of its own denies with 403, as missing rights do.
    if status in (400, 422) or (status == 403 and "denied the request" in message):
        return RefusedError(message, status=status)
    return ApiFailureError(message, status=status)


def read_message(error: object) -> str:
    """The message of the Status in an ApiException's body, or what it has instead."""
    body = getattr(error, "body", None)
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(body or getattr(error, "reason", "") or error)
