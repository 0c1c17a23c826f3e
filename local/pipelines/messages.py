"""Messages of the API as clients send them: JSON objects whose fields are known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from kubeloop.local.pipelines.rpc_errors import invalid
from kubeloop.local.pipelines.spec.nodes import listed


def as_message(value: Any, *, kind: str, fields: Iterable[str]) -> dict[str, Any]:
    """A JSON value as a message of the API; names may be written in either case.

    Raises:
        RpcError: It is no object, or has a field that the message does not.
    """
    if not isinstance(value, dict):
        raise invalid(f"A {kind} is a JSON object, not {type(value).__name__}.")
    known = set(fields)
    message = {}
    for name, item in value.items():
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        if snake not in known:
            raise invalid(f"A {kind} has no field {name!r}; it has {listed(sorted(known))}.")
        if item is not None:
            message[snake] = item
    return message


def text(message: Mapping[str, Any], key: str) -> str:
    """A text of a message; empty where it is unset.

    Raises:
        RpcError: It is something else.
    """
    value = message.get(key, "")
    if not isinstance(value, str):
        raise invalid(f"{key} is a text, not {value!r}.")
    return value


def required(message: Mapping[str, Any], name: str, *, of: str) -> str:
    """A text of a message that must be there.

    Raises:
        RpcError: It is missing or empty.
    """
    found = text(message, name)
    if not found:
        raise invalid(f"The {name} of {of} is missing.")
    return found


def whole_number(message: Mapping[str, Any], key: str) -> int:
    """A whole number of a message, which JSON may carry as text; 0 where it is unset.

    Raises:
        RpcError: It is something else.
    """
    value = message.get(key, 0)
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise invalid(f"{key} is a whole number, not {value!r}.") from None
    return int(value)


def flag(message: Mapping[str, Any], key: str) -> bool:
    """A boolean of a message; false where it is unset.

    Raises:
        RpcError: It is something else.
    """
    value = message.get(key, False)
    if not isinstance(value, bool):
        raise invalid(f"{key} is true or false, not {value!r}.")
    return value


def choice(message: Mapping[str, Any], key: str, options: Iterable[str]) -> str:
    """One of the names of an enumeration, which may be given by its number; the first if unset.

    Raises:
        RpcError: It is none of them.
    """
    names = tuple(options)
    value = message.get(key, names[0])
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    if value not in names:
        raise invalid(f"{key} {value!r} is not one of {listed(names)}.")
    return str(value)


def optional_number(message: Mapping[str, Any], key: str) -> float | None:
    """A number of a message, which JSON may carry as text; None where it is unset.

    Raises:
        RpcError: It is something else.
    """
    value = message.get(key)
    if value is None:
        return None
    try:
        number = float(value)
        if isinstance(value, bool) or not math.isfinite(number):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise invalid(f"{key} is a number, not {value!r}.") from None
    return number
