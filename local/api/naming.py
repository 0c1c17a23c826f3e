"""Names and labels that Kubernetes accepts, and the metadata every kind shares."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from kubeloop.local.api.refusals import FieldError, value_invalid, value_required
from kubeloop.local.api.resources import NAMESPACES, SERVICES, Resource
from kubeloop.local.client import Manifest

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_MAX_LABEL = 63
_MAX_SUBDOMAIN = 253
_MAX_ANNOTATIONS = 256 << 10

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
    "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def generate_name(prefix: str, *, random_source: random.Random) -> str:
    """A name from a `generateName` prefix, cut so that the whole fits a DNS label."""
    suffix = "".join(random_source.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))
    return prefix[: _MAX_LABEL - _SUFFIX_LENGTH] + suffix


def check_metadata(resource: Resource, metadata: Manifest) -> Iterator[FieldError]:
    """The faults of an object's `metadata`."""
    yield from _check_name(resource, metadata.get("name", ""))
    yield from _check_labels(metadata.get("labels") or {})
    yield from _check_annotations(metadata.get("annotations") or {})
    yield from _check_owners(metadata.get("ownerReferences") or [])
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        if not _is_qualified(finalizer):
            yield value_invalid(f"metadata.finalizers[{index}]", finalizer, _QUALIFIED_RULE)


def _check_name(resource: Resource, name: str) -> Iterator[FieldError]:
    if not name:
        yield value_required("metadata.name", "name or generateName is required")
        return
    if resource is NAMESPACES:
        pattern, longest, rule = _LABEL, _MAX_LABEL, _LABEL_RULE
    elif resource is SERVICES:
        pattern, longest, rule = _LABEL_1035, _MAX_LABEL, _LABEL_1035_RULE
    else:
        pattern, longest, rule = _SUBDOMAIN, _MAX_SUBDOMAIN, _SUBDOMAIN_RULE
    if len(name) > longest:
        yield value_invalid("metadata.name", name, f"must be no more than {longest} characters")
    if not pattern.fullmatch(name):
        yield value_invalid("metadata.name", name, rule)


def _check_labels(labels: dict[str, Any]) -> Iterator[FieldError]:
    for key, value in labels.items():
        if not _is_qualified(key):
            yield value_invalid("metadata.labels", key, _QUALIFIED_RULE)
        if not isinstance(value, str):
            yield value_invalid("metadata.labels", value, "must be a string")
        elif len(value) > _MAX_LABEL:
            yield value_invalid(
                "metadata.labels", value, f"must be no more than {_MAX_LABEL} characters"
            )
        elif not _VALUE.fullmatch(value):
            yield value_invalid("metadata.labels", value, _VALUE_RULE)


def _check_annotations(annotations: dict[str, Any]) -> Iterator[FieldError]:
    size = 0
    for key, value in annotations.items():
        if not _is_qualified(key.lower()):
            yield value_invalid("metadata.annotations", key, _QUALIFIED_RULE)
        if not isinstance(value, str):
            yield value_invalid("metadata.annotations", value, "must be a string")
        else:
            size += len(key) + len(value)
    if size > _MAX_ANNOTATIONS:
        yield FieldError(
            field="metadata.annotations",
            reason="FieldValueTooLong",
            message=f"Too long: must have at most {_MAX_ANNOTATIONS} bytes",
        )


def _check_owners(owners: list[Manifest]) -> Iterator[FieldError]:
    for index, owner in enumerate(owners):
        for part in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(part):
                yield value_invalid(
                    f"metadata.ownerReferences[{index}].{part}", "", f"{part} must not be empty"
                )
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        yield value_invalid(
            "metadata.ownerReferences",
            [owner.get("name") for owner in controllers],
            "Only one reference can have Controller set to true",
        )


def _is_qualified(key: object) -> bool:
    if not isinstance(key, str):
        return False
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _MAX_SUBDOMAIN or not _SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= _MAX_LABEL and bool(_QUALIFIED.fullmatch(name))
