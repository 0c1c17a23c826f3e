"""Values of pipeline parameters: their types, their one JSON form, their text.

KFP carries every number as a double, so `3`, `3.0` and the `3.0` that the compiler writes for a
default of `3` are one value. Here that value is written once, as an integer wherever it is whole;
a list of integers stays a list of integers however many tasks it passes through.
"""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Any

from kubeloop.errors import InputError

JsonValue = Any  # None, bool, int, float, str, or a list or dict of them: JSON has no narrower type

_WHOLE_LIMIT = 2**53  # up to here a double is exactly the integer it looks like
_INTEGER_LIMIT = 2**63  # beyond, KFP's doubles are all there is


class ParameterType(StrEnum):
    """`parameterType` of the pipeline spec."""

    NUMBER_DOUBLE = "NUMBER_DOUBLE"
    NUMBER_INTEGER = "NUMBER_INTEGER"
    STRING = "STRING"
    BOOLEAN = "BOOLEAN"
    LIST = "LIST"
    STRUCT = "STRUCT"
    TASK_FINAL_STATUS = "TASK_FINAL_STATUS"
    TASK_CONFIG = "TASK_CONFIG"


_DESCRIPTIONS = {
    ParameterType.NUMBER_DOUBLE: "a number",
    ParameterType.NUMBER_INTEGER: "a whole number",
    ParameterType.STRING: "a text",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.LIST: "a list",
    ParameterType.STRUCT: "an object",
    ParameterType.TASK_FINAL_STATUS: "a task's final status",
    ParameterType.TASK_CONFIG: "a task's configuration",
}


def describe_type(kind: ParameterType) -> str:
    """What a person has to give, for messages: "a whole number (NUMBER_INTEGER)"."""
    return f"{_DESCRIPTIONS[kind]} ({kind.value})"


def canonical(value: JsonValue) -> JsonValue:
    """The one form of a value: whole doubles become integers, also inside lists and objects.

    What JSON cannot carry (NaN, infinity) becomes its name, a text.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        return int(value) if value.is_integer() and abs(value) < _WHOLE_LIMIT else value
    if isinstance(value, int) and abs(value) >= _INTEGER_LIMIT:
        return canonical(float(value))
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def is_of_type(value: JsonValue, kind: ParameterType) -> bool:
    """Whether a canonical value may be passed as a parameter of this type, unchanged."""
    match kind:
        case ParameterType.STRING:
            return isinstance(value, str)
        case ParameterType.BOOLEAN:
            return isinstance(value, bool)
        case ParameterType.NUMBER_INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case ParameterType.NUMBER_DOUBLE:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ParameterType.LIST:
            return isinstance(value, list)
        case ParameterType.STRUCT | ParameterType.TASK_FINAL_STATUS | ParameterType.TASK_CONFIG:
            return isinstance(value, dict)


def convert(value: JsonValue, kind: ParameterType) -> JsonValue:
    """Fit a value passed between tasks into the type that the receiving task declares.

    As in KFP, a text parameter takes the text of any value, and any other parameter takes a text
    that is JSON of its type.

    Raises:
        InputError: The value does not fit; the message says what does.
    """
    if kind is ParameterType.STRING:
        return to_text(value)
    candidate = parse_json(value) if isinstance(value, str) else value
    if not is_of_type(candidate, kind):
        raise InputError(f"{shorten(value)} is not {describe_type(kind)}")
    return candidate


def parse_json(text: str) -> JsonValue:
    """The canonical value of a JSON text, or the text itself where it is not JSON."""
    try:
        return canonical(json.loads(text))
    except ValueError:
        return text


def parse_text(text: str, kind: ParameterType) -> JsonValue:
    """Read a parameter from the file that a task wrote.

    Raises:
        InputError: The text is not a value of this type.
    """
    if kind is ParameterType.STRING:
        return text
    candidate = parse_json(text.strip())
    if kind is ParameterType.BOOLEAN and isinstance(candidate, str):
        candidate = {"true": True, "false": False}.get(candidate.lower(), candidate)
    if not is_of_type(candidate, kind):
        raise InputError(f"{shorten(text)} is not {describe_type(kind)}")
    return candidate


def to_text(value: JsonValue) -> str:
    """The text of a value where it stands inside text: JSON, except that text stays itself."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(canonical(value), separators=(",", ":"), ensure_ascii=False)


def shorten(value: JsonValue, *, limit: int = 120) -> str:
    """A value for a message: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
