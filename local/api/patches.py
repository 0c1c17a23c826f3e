"""JSON patches (RFC 6902) and JSON merge patches (RFC 7386)."""

from __future__ import annotations

import copy
from typing import Any

from kubeloop.errors import ApiError, InvalidError
from kubeloop.local.api.refusals import bad_request

Json = Any  # any JSON value


def apply_merge_patch(target: Json, patch: Json) -> Json:
    """`patch` merged into `target`: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = apply_merge_patch(merged.get(key), value)
    return merged


def apply_json_patch(target: Json, operations: Json) -> Json:
    """The operations applied in order to a copy of `target`.

    Raises:
        ApiError: 400 for a malformed patch, 422 when an operation cannot be applied.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    document = copy.deepcopy(target)
    for operation in operations:
        document = _apply(document, operation)
    return document


def _apply(document: Json, operation: Json) -> Json:
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise bad_request(f"{operation!r} is no operation of a JSON patch: it needs op and path")
    path = _split(operation["path"])
    name = operation.get("op")
    if name == "remove":
        return _remove(document, path)
    if name in ("move", "copy"):
        source = _split(str(operation.get("from", "")))
        value = copy.deepcopy(_get(document, source))
        if name == "move":
            document = _remove(document, source)
        return _add(document, path, value)
    if name not in ("add", "replace", "test"):
        raise bad_request(
            f"unknown JSON patch operation {name!r}; accepted are add, copy, move, remove, "
            "replace, test"
        )
    if "value" not in operation:
        raise bad_request(f"JSON patch operation {name} needs a value")
    value = operation["value"]
    if name == "add":
        return _add(document, path, copy.deepcopy(value))
    current = _get(document, path)
    if name == "test":
        if current != value:
            raise _refuse(path, f"test failed: the value is {current!r}, not {value!r}")
        return document
    return _replace(document, path, copy.deepcopy(value))


def _split(pointer: str) -> list[str]:
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise bad_request(f"JSON pointer {pointer!r} must start with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]


def _get(document: Json, path: list[str]) -> Json:
    for part in path:
        document = _child(document, part, path)
    return document


def _child(parent: Json, part: str, path: list[str]) -> Json:
    if isinstance(parent, dict) and part in parent:
        return parent[part]
    if isinstance(parent, list):
        return parent[_index(part, len(parent) - 1, path)]
    raise _refuse(path, "the path does not exist")


def _index(part: str, last: int, path: list[str]) -> int:
    if not part.isdecimal() or int(part) > last:
        raise _refuse(path, f"{part!r} is no index of the list")
    return int(part)


def _add(document: Json, path: list[str], value: Json) -> Json:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent), path), value)
    else:
        raise _refuse(path, "the path does not exist")
    return document


def _replace(document: Json, path: list[str], value: Json) -> Json:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent[_index(last, len(parent) - 1, path)] = value
    else:
        parent[last] = value
    return document


def _remove(document: Json, path: list[str]) -> Json:
    if not path:
        return None
    parent, last = _get(document, path[:-1]), path[-1]
    _child(parent, last, path)
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
    return document


def _refuse(path: list[str], cause: str) -> ApiError:
    pointer = "".join(f"/{part}" for part in path)
    return InvalidError(f"the JSON patch cannot be applied at {pointer!r}: {cause}")
