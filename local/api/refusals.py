"""The errors the API server answers with, worded as clients know them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kubeloop.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ErrorDetails,
    InvalidError,
    NotFoundError,
)
from kubeloop.local.api.resources import NAMESPACES, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One fault of one field; `reason` is a cause type of the API such as FieldValueInvalid."""

    field: str
    reason: str
    message: str


def value_required(field: str, detail: str = "") -> FieldError:
    """A field that must be there is missing or empty."""
    message = f"Required value: {detail}" if detail else "Required value"
    return FieldError(field=field, reason="FieldValueRequired", message=message)


def value_invalid(field: str, value: Any, detail: str) -> FieldError:  # value: any JSON
    """A field's value cannot be used."""
    shown = f'"{value}"' if isinstance(value, str) else value
    return FieldError(
        field=field, reason="FieldValueInvalid", message=f"Invalid value: {shown}: {detail}"
    )


def value_forbidden(field: str, detail: str) -> FieldError:
    """A field may not be set or changed here."""
    return FieldError(field=field, reason="FieldValueForbidden", message=f"Forbidden: {detail}")


def value_unsupported(field: str, value: str, accepted: Iterable[str]) -> FieldError:
    """A field's value is none of the closed set."""
    listed = ", ".join(f'"{choice}"' for choice in accepted)
    message = f'Unsupported value: "{value}": supported values: {listed}'
    return FieldError(field=field, reason="FieldValueNotSupported", message=message)


def invalid(resource: Resource, name: str, faults: Iterable[FieldError]) -> InvalidError:
    """The 422 that lists every fault of an object."""
    faults = tuple(faults)
    texts = [f"{fault.field}: {fault.message}" for fault in faults]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return InvalidError(
        f'{resource.qualified_kind} "{name}" is invalid: {text}',
        details=ErrorDetails(
            name=name,
            group=resource.group,
            kind=resource.kind,
            causes=tuple(
                {"reason": fault.reason, "message": fault.message, "field": fault.field}
                for fault in faults
            ),
        ),
    )


def not_found(resource: Resource, name: str) -> NotFoundError:
    """No object of that name."""
    return NotFoundError(
        f'{resource.qualified_name} "{name}" not found', details=_details(resource, name)
    )


def namespace_not_found(namespace: str) -> NotFoundError:
    """The namespace of a new object is missing."""
    return not_found(NAMESPACES, namespace)


def already_exists(resource: Resource, name: str) -> AlreadyExistsError:
    """An object of that name is there."""
    return AlreadyExistsError(
        f'{resource.qualified_name} "{name}" already exists', details=_details(resource, name)
    )


def conflict(resource: Resource, name: str, cause: str = "") -> ConflictError:
    """The object is not in the version the caller means."""
    cause = cause or (
        "the object has been modified; please apply your changes to the latest version and try "
        "again"
    )
    return ConflictError(
        f'Operation cannot be fulfilled on {resource.qualified_name} "{name}": {cause}',
        details=_details(resource, name),
    )


def forbidden(resource: Resource, name: str, cause: str) -> ApiError:
    """The object may not be written (403)."""
    return ApiError(
        f'{resource.qualified_name} "{name}" is forbidden: {cause}',
        status=403,
        reason="Forbidden",
        details=_details(resource, name),
    )


def bad_request(message: str) -> ApiError:
    """The request itself cannot be used (400)."""
    return ApiError(message, status=400, reason="BadRequest")


def unsupported_media_type(accepted: Iterable[str]) -> ApiError:
    """The body's content type is not taken here (415)."""
    listed = ", ".join(accepted)
    return ApiError(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{listed}",
        status=415,
        reason="UnsupportedMediaType",
    )


def _details(resource: Resource, name: str) -> ErrorDetails:
    return ErrorDetails(name=name, group=resource.group, kind=resource.plural)
