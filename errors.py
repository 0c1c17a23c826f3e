"""The one hierarchy of errors.

A subclass stands for a reaction a caller may have, not for a place where something went wrong:
correct the input, wait and try again, give up. Foreign exceptions are translated into one of these
once, at the edge where they enter, with `raise … from`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class KubeloopError(Exception):
    """Root of all errors that kubeloop raises on purpose.

    The first line of a message says it all in a sentence; further lines are details, such as the
    end of a log.
    """


class InputError(KubeloopError, ValueError):
    """The user gave something that cannot be used; the message says what is accepted."""


class MissingDependencyError(KubeloopError, ImportError):
    """A package of an optional extra is not installed; the message names the extra."""


class TransientError(KubeloopError):
    """The same call may succeed later."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class PermanentError(KubeloopError):
    """The same call will fail again; a person or another input is needed."""


class IntegrityError(PermanentError):
    """Stored bytes differ from their recorded digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetails:
    """`details` of a Kubernetes Status: which object, and one cause a field."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[dict[str, str], ...] = field(default=())
    retry_after_seconds: int = 0

    def to_manifest(self) -> dict[str, Any]:
        """Render as JSON, leaving out what is empty."""
        manifest: dict[str, Any] = {
            "name": self.name,
            "group": self.group,
            "kind": self.kind,
            "uid": self.uid,
            "causes": [dict(cause) for cause in self.causes],
            "retryAfterSeconds": self.retry_after_seconds,
        }
        return {key: value for key, value in manifest.items() if value}


class ApiError(KubeloopError):
    """A Kubernetes API call was refused; renders the Status that upstream would answer."""

    def __init__(
        self, message: str, *, status: int, reason: str, details: ErrorDetails | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.details = details or ErrorDetails()

    def to_status(self) -> dict[str, Any]:
        """Render as a `Status` object (kind Status, apiVersion v1)."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details.to_manifest(),
            "code": self.status,
        }


class NotFoundError(ApiError):
    """No such object or resource (404)."""

    def __init__(self, message: str, *, details: ErrorDetails | None = None) -> None:
        super().__init__(message, status=404, reason="NotFound", details=details)


class AlreadyExistsError(ApiError):
    """An object of that name exists (409)."""

    def __init__(self, message: str, *, details: ErrorDetails | None = None) -> None:
        super().__init__(message, status=409, reason="AlreadyExists", details=details)


class ConflictError(ApiError):
    """The object changed since it was read (409): read again, then write."""

    def __init__(self, message: str, *, details: ErrorDetails | None = None) -> None:
        super().__init__(message, status=409, reason="Conflict", details=details)


class ExpiredError(ApiError):
    """The resourceVersion or continue token is too old (410): list again."""

    def __init__(self, message: str, *, details: ErrorDetails | None = None) -> None:
        super().__init__(message, status=410, reason="Expired", details=details)


class InvalidError(ApiError):
    """The object breaks a schema or field rule (422); `details.causes` has one entry a field."""

    def __init__(self, message: str, *, details: ErrorDetails | None = None) -> None:
        super().__init__(message, status=422, reason="Invalid", details=details)
