"""The edge where errors of the Kubernetes client and of the SDKs on top of it become ours.

KServe's, Katib's and the Training Operator's clients flatten every API error to `RuntimeError`; the
original one, with the status code, is still its context. What a caller can react to has a class
of its own; everything else of the API's refusals is an `ApiFailureError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from kubeloop.errors import InputError, KubeloopError, PermanentError, TransientError

_REFUSED = (400, 422)
_RETRIED = (0, 408, 429, 500, 502, 503, 504)  # 0: the connection broke before there was a status


class ApiFailureError(PermanentError):
    """The Kubernetes API refused; `status` is its HTTP status code."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class MissingObjectError(ApiFailureError):
    """There is no such object, or its kind is not installed (404)."""


class ObjectConflictError(ApiFailureError):
    """An object of that name exists, or changed since it was read (409)."""


class RefusedError(ApiFailureError, InputError):
    """The Kubernetes API, or a webhook behind it, refused what was asked for."""


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate the errors of the Kubernetes client and the SDKs; `what` completes "Failed to …".

    Errors of ours, and those that do not come from the API, pass unchanged.

    Raises:
        RefusedError: The API says that the object is not acceptable (400, 422, or a webhook).
        MissingObjectError: There is no such object.
        ObjectConflictError: The object exists, or changed meanwhile.
        ApiFailureError: The API refuses for another reason.
        TransientError: The API cannot be reached, or is overloaded.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, HTTPError, RuntimeError, TimeoutError) as error:
        origin = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(origin, ApiException):
            raise _translate(origin, what) from error
        if isinstance(origin, HTTPError | TimeoutError):
            raise TransientError(
                f"Failed to {what}: the Kubernetes API does not answer ({origin})."
            ) from error
        raise


def read_message(error: object) -> str:
    """The sentence in the body of an `ApiException`, Kubernetes' or KFP's, or what it has instead.

    An HTML page, as proxies in front of an API answer, gives way to the reason.
    """
    body = str(getattr(error, "body", None) or "")
    reason = str(getattr(error, "reason", None) or "")
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        is_page = body.lstrip().startswith("<")
        return (reason or str(error)) if is_page else (body.strip() or reason or str(error))


def _translate(error: object, what: str) -> KubeloopError:
    status = int(getattr(error, "status", 0) or 0)
    message = f"Failed to {what}: {read_message(error)}"
    if status in _RETRIED:
        return TransientError(message)
    # A webhook that answers no status code of its own denies with 403, as missing rights do.
    if status in _REFUSED or (status == 403 and "denied the request" in message):
        return RefusedError(message, status=status)
    kinds = {404: MissingObjectError, 409: ObjectConflictError}
    return kinds.get(status, ApiFailureError)(message, status=status)
