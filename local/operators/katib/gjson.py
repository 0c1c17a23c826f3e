"""The part of GJSON that success and failure conditions are written in.

Katib asks a trial's job with GJSON paths, such as
`status.conditions.#(type=="Complete")#|#(status=="True")#`. Supported: keys and indices joined by
dots, escaped characters, `#` for the elements of an array (or their number, at the end), queries
`#(path op value)` for the first and `#(path op value)#` for every match with `==`, `!=`, `<`, `<=`,
`>`, `>=`, `%` and `!%`, and `|`, which hands on a whole array where a dot goes on with each of its
elements. Wildcard keys, modifiers and multipaths are refused.

Source: the path syntax of github.com/tidwall/gjson.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubeloop.errors import InputError

Json = Any  # any JSON


class _Missing:
    """Nothing is at the path; JSON's null is something."""


MISSING: Final = _Missing()

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_OPERATORS = ("==", "!=", "<=", ">=", "!%", "<", ">", "%", "=")
_UNSUPPORTED = ("@", "!", "{", "[")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    path: tuple[Stage, ...]
    operator: str
    value: Json
    takes_all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elements:
    """`#`: go on with each element, or count them."""


_Step = _Query | _Key | _Elements
Stage = tuple[_Step, ...]


def query(document: Json, path: str) -> Json:
    """What is at a path, `MISSING` when nothing is.

    Raises:
        InputError: The path cannot be read.
    """
    value = document
    for stage in parse_path(path):
        value = _walk(value, stage)
    return value


def find_match(document: Json, path: str) -> Json:
    """What a condition has matched: an object, or the first element of a non-empty array.

    Returns:
        `MISSING` when the condition does not hold.

    Raises:
        InputError: The path cannot be read.
    """
    value = query(document, path)
    if isinstance(value, list) and value:
        return value[0]
    return value if isinstance(value, dict) else MISSING


@functools.lru_cache(maxsize=256)
def parse_path(path: str) -> tuple[Stage, ...]:
    """The stages between pipes, each a sequence of steps.

    Raises:
        InputError: The path cannot be read.
    """
    if not path:
        raise InputError("A condition's path is empty; write one such as status.phase.")
    return tuple(
        tuple(_parse_step(part, path) for part in _split(stage, ".", path))
        for stage in _split(path, "|", path)
    )


def _split(text: str, separator: str, path: str) -> Iterator[str]:
    """Cut at separators outside of queries, quotes and escapes."""
    depth, quoted, start, position = 0, False, 0, 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == '"' and depth:
            quoted = not quoted
        elif not quoted and character in "()":
            depth += 1 if character == "(" else -1
        elif character == separator and depth == 0:
            yield text[start:position]
            start = position + 1
        position += 1
    if depth or quoted:
        raise InputError(f"The path {path!r} has an open parenthesis or quote; close it.")
    yield text[start:]


def _parse_step(part: str, path: str) -> _Step:
    if part == "#":
        return _Elements()
    if part.startswith("#("):
        inner, takes_all = (part[2:-2], True) if part.endswith(")#") else (part[2:-1], False)
        if not part.endswith((")", ")#")):
            raise InputError(f"The path {path!r} goes on after a query; put '.' or '|' between.")
        return _parse_query(inner, path, takes_all=takes_all)
    if not part or part.startswith(_UNSUPPORTED) or _has_wildcard(part):
        raise InputError(
            f"The part {part!r} of the path {path!r} is not supported; use keys, indices, # and "
            'queries such as #(type=="Complete")#.'
        )
    return _Key(name=_unescape(part))


def _parse_query(text: str, path: str, *, takes_all: bool) -> _Query:
    left, sign, right = _split_operator(text)
    if left.startswith("#("):
        raise InputError(f"The path {path!r} nests queries, which is not supported.")
    try:
        value = _parse_value(right.strip())
    except ValueError:
        raise InputError(f"The value {right!r} in the path {path!r} is not valid JSON.") from None
    steps = parse_path(left.strip()) if left.strip() else ()
    return _Query(path=steps, operator=sign, value=value, takes_all=takes_all)


def _split_operator(text: str) -> tuple[str, str, str]:
    """Path, operator and value; a query that is a path alone asks whether it exists."""
    quoted = False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted:
            for sign in _OPERATORS:
                if text.startswith(sign, position):
                    spelled = "==" if sign == "=" else sign
                    return text[:position], spelled, text[position + len(sign) :]
    return text, "", ""


def _parse_value(text: str) -> Json:
    """A JSON value; what is none is a bare text, as GJSON reads it."""
    if text.startswith('"'):
        return json.loads(text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _walk(value: Json, steps: Sequence[_Step]) -> Json:
    if not steps or value is MISSING:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, _Key):
        return _walk(_get(value, step.name), rest)
    if not isinstance(value, list):
        return MISSING
    if isinstance(step, _Elements):
        return _walk_each(value, rest) if rest else len(value)
    matches = [element for element in value if _matches(element, step)]
    if step.takes_all:
        return _walk_each(matches, rest)
    return _walk(matches[0], rest) if matches else MISSING


def _walk_each(elements: Sequence[Json], steps: Sequence[_Step]) -> Json:
    results = (_walk(element, steps) for element in elements)
    return [result for result in results if result is not MISSING]


def _get(value: Json, name: str) -> Json:
    if isinstance(value, dict):
        return value.get(name, MISSING)
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    return MISSING


def _matches(element: Json, condition: _Query) -> bool:
    value = element
    for stage in condition.path:
        value = _walk(value, stage)
    if value is MISSING:
        return False
    if not condition.operator:
        return True
    return _compare(value, condition.operator, condition.value)


def _compare(value: Json, sign: str, wanted: Json) -> bool:
    if sign in ("%", "!%"):
        both_text = isinstance(value, str) and isinstance(wanted, str)
        found = both_text and fnmatch.fnmatchcase(value, wanted)
        return found if sign == "%" else both_text and not found
    if _kind(value) is not _kind(wanted):
        return sign == "!="
    try:
        return _COMPARISONS[sign](value, wanted)
    except TypeError:  # an order that these values do not have
        return False


def _kind(value: Json) -> type:
    """The JSON type; booleans are no numbers."""
    return float if type(value) is int else type(value)


def _has_wildcard(part: str) -> bool:
    return any(
        character in "*?" and (index == 0 or part[index - 1] != "\\")
        for index, character in enumerate(part)
    )


def _unescape(part: str) -> str:
    characters = iter(part)
    return "".join(next(characters, "") if c == "\\" else c for c in characters)
