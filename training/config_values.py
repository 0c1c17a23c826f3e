"""Builds configurations from JSON, by field name, so that pipelines can pass what Python can.

Whatever does not fit is told with its whole path, such as `job_options.pod.volumes[0].kind`, before
anything is created. Whole numbers may come as 3.0: KFP passes objects through a protobuf Struct,
which knows doubles only.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from kubeloop.errors import InputError

ConfigT = TypeVar("ConfigT")
_WORDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def parse_config(kind: type[ConfigT], values: object, *, where: str) -> ConfigT:
    """Build a configuration from the values of its fields.

    Args:
        kind: A dataclass; the types of its fields say what is accepted.
        values: Field name to value, as JSON has it.
        where: What they are, for messages.

    Raises:
        InputError: A field is unknown, missing, of another type, or refused by the configuration.
    """
    parsed = parse_fields(kind, values, where=where)
    needed = [
        field.name
        for field in fields(kind)  # type: ignore[arg-type]  # a dataclass
        if field.default is MISSING and field.default_factory is MISSING
    ]
    if missing := [name for name in needed if name not in parsed]:
        raise InputError(f"{where}.{missing[0]} is missing; {kind.__name__} needs it.")
    try:
        return kind(**parsed)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def parse_fields(
    kind: type[Any], values: object, *, where: str, accepted: Collection[str] = ()
) -> dict[str, Any]:
    """Read values of some fields of a configuration, without building it.

    Args:
        kind: A dataclass.
        values: Field name to value, as JSON has it.
        where: What they are, for messages.
        accepted: The fields that may be given; empty: all.

    Raises:
        InputError: See `parse_config`.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where} must be an object, not {values!r}.")
    types_by_name = get_type_hints(kind)
    known = [*accepted] or [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; do you mean {close[0]!r}?" if close else "."
            raise InputError(f"{where} has no field {name!r}, only {', '.join(known)}{hint}")
    return {
        name: _parse(types_by_name[name], value, where=f"{where}.{name}")
        for name, value in values.items()
    }


def _parse(hint: Any, value: object, *, where: str) -> Any:  # Any: types, and values of them
    if hint is Any:
        return value
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
        return None if value is None else _parse(inner, value, where=where)
    if is_dataclass(hint):
        return parse_config(hint, value, where=where)  # type: ignore[arg-type]  # a class
    if get_origin(hint) is tuple:
        return _parse_list(get_args(hint)[0], value, where=where)
    if get_origin(hint) is Mapping:
        return _parse_object(get_args(hint)[1], value, where=where)
    if issubclass(hint, StrEnum):
        return _parse_choice(hint, value, where=where)
    return _parse_plain(hint, value, where=where)


def _parse_list(inner: Any, value: object, *, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where} must be a list, not {value!r}.")
    return tuple(_parse(inner, item, where=f"{where}[{n}]") for n, item in enumerate(value))


def _parse_object(inner: Any, value: object, *, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be an object, not {value!r}.")
    return {str(key): _parse(inner, item, where=f"{where}[{key!r}]") for key, item in value.items()}


def _parse_choice(kind: type[StrEnum], value: object, *, where: str) -> StrEnum:
    if value not in [*kind]:
        raise InputError(f"{where} must be one of {', '.join(kind)}, not {value!r}.")
    return kind(str(value))


def _parse_plain(kind: type, value: object, *, where: str) -> object:
    if kind in (int, float) and isinstance(value, float) and value.is_integer():
        return kind(value)
    is_number = kind is float and isinstance(value, int)
    if isinstance(value, bool) is not (kind is bool) or not (isinstance(value, kind) or is_number):
        raise InputError(f"{where} must be {_WORDS[kind]}, not {value!r}.")
    return kind(value)
