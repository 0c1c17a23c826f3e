"""Refuses values of a job's pods that Kubernetes would refuse when the pods are created.

By then the job exists, and what is wrong is told in an event that few look for. Here it is told
when the configuration is made, by the name of its field. This module must stay cheap to import.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from kubeloop.errors import InputError

_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_OBJECT_NAME = re.compile(_SUBDOMAIN)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"({_SUBDOMAIN}/)?{_WORD}")
_VALUE = re.compile(rf"({_WORD})?")
_VARIABLE = re.compile(r"[-._A-Za-z][-._A-Za-z0-9]*")
_MAX_NAME_LENGTH = 253


def check_quantity(field: str, value: str) -> None:
    """Refuse what is no positive amount of a resource.

    Raises:
        InputError: As all checks here.
    """
    if not _QUANTITY.fullmatch(value) or not re.search("[1-9]", re.split("[a-zA-Z]", value)[0]):
        raise InputError(
            f"{field} must be a positive Kubernetes quantity such as '2', '500m' or '4Gi', not"
            f" {value!r}."
        )


def check_object_names(field: str, names: Iterable[str]) -> None:
    """Refuse what cannot name a Kubernetes object."""
    for name in names:
        if not _OBJECT_NAME.fullmatch(name) or len(name) > _MAX_NAME_LENGTH:
            raise InputError(
                f"{field} must name a Kubernetes object (lower-case letters, digits, '-' and '.'),"
                f" not {name!r}."
            )


def check_dns_label(field: str, value: str) -> None:
    """Refuse what is no name without dots, as namespaces and volumes have."""
    if not _LABEL.fullmatch(value):
        raise InputError(
            f"{field} must be at most 63 lower-case letters, digits and '-', not {value!r}."
        )


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Refuse keys and values that labels cannot have."""
    check_keys(field, labels)
    for key, value in labels.items():
        if not _VALUE.fullmatch(value):
            raise InputError(
                f"{field}[{key!r}] must be at most 63 letters, digits, '-', '_' and '.', not"
                f" {value!r}."
            )


def check_keys(field: str, keys: Iterable[str]) -> None:
    """Refuse what cannot be the key of a label, an annotation or a taint."""
    for key in keys:
        if not _KEY.fullmatch(key):
            raise InputError(
                f"{field} has the key {key!r}; a key is at most 63 letters, digits, '-', '_' and"
                " '.', after a domain and '/' if it has one."
            )


def check_variables(field: str, names: Iterable[str]) -> None:
    """Refuse what cannot name an environment variable."""
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise InputError(f"{field} has {name!r}, which cannot name an environment variable.")


def check_choice(field: str, value: str, accepted: Collection[str]) -> None:
    """Refuse a word that is not among those accepted; empty is."""
    if value and value not in accepted:
        raise InputError(f"{field} must be one of {', '.join(accepted)} or empty, not {value!r}.")


def check_at_least(field: str, value: int | None, least: int) -> None:
    """Refuse a number that is too small; unset is none."""
    if value is not None and value < least:
        raise InputError(f"{field} must be at least {least}, not {value!r}.")
