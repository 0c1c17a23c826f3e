"""The part of Kubernetes' JSONPath that printer columns and scale paths use.

A path is a chain of `.name`, `[*]`, `[-1:]`, `[0]` and `[?(@.name=='text')]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kubeloop.local.client import Manifest

Json = Any  # any JSON value
_Step = Callable[[Json], list[Json]]

_TOKEN = re.compile(
    r"\.(?P<name>[\w-]+)"
    r"|\[(?P<all>\*)\]"
    r"|\[(?P<index>-?\d+)(?P<slice>:)?\]"
    r"|\[\?\(@\.(?P<field>\w+)\s*==\s*(?:'(?P<text>[^']*)'|(?P<word>\w+))\)\]"
)
_WORDS = {"true": True, "false": False}


def find_values(manifest: Manifest, path: str) -> list[Json]:
    """All values at a path, none where it leads nowhere.

    Raises:
        ValueError: The path is not of the accepted form.
    """
    values: list[Json] = [manifest]
    for step in _parse(path):
        values = [found for value in values for found in step(value)]
    return values


def find_value(manifest: Manifest, path: str) -> Json:
    """The first value at a path, None where it leads nowhere."""
    return next(iter(find_values(manifest, path)), None)


def set_value(manifest: Manifest, path: str, value: Json) -> None:
    """Write at a path of names only, creating the objects on the way."""
    *parents, last = path.strip(".").split(".")
    for name in parents:
        manifest = manifest.setdefault(name, {})
    manifest[last] = value


@lru_cache(maxsize=256)
def _parse(path: str) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    position = 0
    while position < len(path):
        token = _TOKEN.match(path, position)
        if token is None:
            raise ValueError(f"JSONPath {path!r} cannot be read from position {position}")
        steps.append(_build_step(token))
        position = token.end()
    return tuple(steps)


def _build_step(token: re.Match[str]) -> _Step:
    if name := token["name"]:
        return lambda value: [value[name]] if isinstance(value, dict) and name in value else []
    if token["all"]:
        return lambda value: list(value) if isinstance(value, list) else []
    if token["index"] is not None:
        index, is_slice = int(token["index"]), token["slice"] is not None
        return lambda value: _pick(value, index, is_slice=is_slice)
    field = token["field"]
    wanted: Json = token["text"] if token["word"] is None else _WORDS.get(token["word"])
    return lambda value: [
        item
        for item in (value if isinstance(value, list) else ())
        if isinstance(item, dict) and item.get(field) == wanted
    ]


def _pick(value: Json, index: int, *, is_slice: bool) -> list[Json]:
    if not isinstance(value, list):
        return []
    if is_slice:
        return value[index:]
    return [value[index]] if -len(value) <= index < len(value) else []
