"""Checks that a manifest's fields have the types that its resource definition declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubeloop.local.api.refusals import FieldError, value_invalid

_TYPE_NAMES = {
    int: "integer",
    str: "string",
    bool: "boolean",
    dict: "object",
    list: "array",
    float: "number",
    type(None): "null",
}


def find_wrong_types(path: str, value: Any, schema: Any) -> Iterator[FieldError]:
    """Compare any JSON with a schema: a type, [schema of the items], or {key: schema}.

    Null is absence, but not in a list; an integer is a number; keys that the schema does not name
    are not looked at.
    """
    if value is not None:
        yield from _compare(path, value, schema)


def _compare(path: str, value: Any, schema: Any) -> Iterator[FieldError]:  # any JSON and schema
    expected = schema if isinstance(schema, type) else type(schema)
    given_type: type = type(value)
    if given_type is not expected and not (expected is float and given_type is int):
        given = _TYPE_NAMES[given_type]
        text = f'{path} in body must be of type {_TYPE_NAMES[expected]}: "{given}"'
        yield value_invalid(path, given, text)
    elif isinstance(schema, dict):
        for key, part in schema.items():
            yield from find_wrong_types(f"{path}.{key}", value.get(key), part)
    elif isinstance(schema, list):
        for index, item in enumerate(value):
            yield from _compare(f"{path}[{index}]", item, schema[0])
