"""Server-side apply: a manager states the fields it cares for, the server remembers whose is what.

Ownership is kept where clients expect it, in `metadata.managedFields`, and only for applied
fields: a plain update owns nothing, so it never conflicts with an apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from kubeloop.errors import ApiError, ConflictError, ErrorDetails
from kubeloop.local.api import refusals
from kubeloop.local.api.resources import Resource
from kubeloop.local.api.strategic import merge_key
from kubeloop.local.client import Manifest

Json = Any  # any JSON value
Path = tuple[str, ...]  # steps such as `f:spec` and `k:{"name":"a"}`; `.` ends an entry of a list

_UNOWNED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata", "f:name"),
    ("f:metadata", "f:namespace"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """What a manager applies."""

    configuration: Manifest
    manager: str
    force: bool
    now: str


def apply_configuration(resource: Resource, live: Manifest, request: ApplyRequest) -> Manifest:
    """`live` with the manager's fields as it states them, and those it no longer states removed.

    Args:
        resource: The kind.
        live: The stored object, or the bare identity of one to create; changed in place.
        request: What to apply.

    Raises:
        ConflictError: Another manager owns a field with another value, and `force` is not set.
        ApiError: 400, no manager is named.
    """
    if not request.manager:
        raise refusals.bad_request("fieldManager is required for apply patch")
    if (request.configuration.get("metadata") or {}).get("managedFields"):
        raise refusals.bad_request("metadata.managedFields must be nil")
    keyed = resource.is_builtin
    entries: list[Manifest] = live.setdefault("metadata", {}).pop("managedFields", [])
    owned = {entry["manager"]: set(_decode(entry["fieldsV1"])) for entry in entries}
    before = owned.pop(request.manager, set())
    stated = {
        path: value
        for path, value in _leaves(request.configuration, keyed=keyed)
        if path not in _UNOWNED
    }
    _settle_conflicts(resource, live, stated, owned, request=request)
    kept = set(stated).union(*owned.values())
    for path in sorted(before - kept, key=lambda path: path[-1] != "."):  # whole entries first
        _remove(live, path)
    merged: Manifest = _merge(live, request.configuration, keyed=keyed)
    owned[request.manager] = set(stated)
    merged["metadata"]["managedFields"] = _render_entries(resource, owned, entries, request)
    return merged


def _settle_conflicts(
    resource: Resource,
    live: Manifest,
    stated: dict[Path, Json],
    owned: dict[str, set[Path]],
    *,
    request: ApplyRequest,
) -> None:
    conflicts = [
        (manager, path)
        for manager, paths in owned.items()
        for path, value in stated.items()
        if path in paths and path[-1] != "." and _find(live, path) != value
    ]
    if conflicts and not request.force:
        raise _conflict_error(resource, live, conflicts)
    for manager, path in conflicts:
        owned[manager].discard(path)


def _conflict_error(
    resource: Resource, live: Manifest, conflicts: list[tuple[str, Path]]
) -> ApiError:
    causes = tuple(
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}"',
            "field": _dotted(path),
        }
        for manager, path in conflicts
    )
    count = "1 conflict" if len(causes) == 1 else f"{len(causes)} conflicts"
    listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return ConflictError(
        f"Apply failed with {count}: {listed}",
        details=ErrorDetails(
            name=live["metadata"].get("name", ""),
            group=resource.group,
            kind=resource.plural,
            causes=causes,
        ),
    )


def _render_entries(
    resource: Resource,
    owned: dict[str, set[Path]],
    entries: Iterable[Manifest],
    request: ApplyRequest,
) -> list[Manifest]:
    before = {entry["manager"]: entry for entry in entries}
    rendered = []
    for manager, paths in owned.items():
        if not paths:
            continue
        fields = _encode(paths)
        same = before.get(manager, {})
        unchanged = same.get("fieldsV1") == fields
        rendered.append(
            {
                "manager": manager,
                "operation": "Apply",
                "apiVersion": resource.api_version,
                "time": same["time"] if unchanged else request.now,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }
        )
    return rendered


def _leaves(
    value: Manifest, *, keyed: bool, path: Path = (), parent: str = ""
) -> Iterator[tuple[Path, Json]]:
    for field, inner in value.items():
        here = (*path, f"f:{field}")
        key = _list_key(field, inner, keyed=keyed, parent=parent)
        if isinstance(inner, dict):  # an empty one states nothing
            yield from _leaves(inner, keyed=keyed, path=here, parent=field)
        elif key is not None:
            for item in inner:
                entry = (*here, "k:" + orjson.dumps({key: item[key]}).decode())
                yield (*entry, "."), None
                yield from _leaves(item, keyed=keyed, path=entry, parent=field)
        else:
            yield here, inner


def _list_key(field: str, value: Json, *, keyed: bool, parent: str) -> str | None:
    key = merge_key(field, parent=parent) if keyed and isinstance(value, list) else None
    if key is None or not value:
        return None
    return key if all(isinstance(item, dict) and key in item for item in value) else None


def _merge(live: Json, stated: Json, *, keyed: bool, field: str = "", parent: str = "") -> Json:
    if isinstance(stated, dict):
        merged = dict(live) if isinstance(live, dict) else {}
        for name, value in stated.items():
            merged[name] = _merge(merged.get(name), value, keyed=keyed, field=name, parent=field)
        return merged
    key = _list_key(field, stated, keyed=keyed, parent=parent)
    if key is None or not isinstance(live, list):
        return stated
    items = list(live)
    for item in stated:
        found = next((i for i, old in enumerate(items) if old.get(key) == item[key]), None)
        if found is None:
            items.append(item)
        else:
            items[found] = _merge(items[found], item, keyed=keyed, field=field)
    return items


def _step(value: Json, step: str) -> Json:
    if step.startswith("f:"):
        return value.get(step[2:]) if isinstance(value, dict) else None
    wanted = orjson.loads(step[2:])
    items = value if isinstance(value, list) else ()
    return next((item for item in items if wanted.items() <= item.items()), None)


def _find(value: Json, path: Path) -> Json:
    for step in path:
        value = _step(value, step)
    return value


def _remove(value: Json, path: Path) -> None:
    if path[-1] == ".":  # the whole entry of a list
        items, entry = _find(value, path[:-2]), _find(value, path[:-1])
        if isinstance(items, list) and entry is not None:
            items.remove(entry)
        return
    parent = _find(value, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1][2:], None)


def _encode(paths: Iterable[Path]) -> Manifest:
    tree: Manifest = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def _decode(tree: Manifest, path: Path = ()) -> Iterator[Path]:
    for step, inner in tree.items():
        here = (*path, step)
        if inner:
            yield from _decode(inner, here)
        else:
            yield here


def _dotted(path: Path) -> str:
    return "".join(
        f".{step[2:]}" if step.startswith("f:") else f"[{step[2:].strip('{}')}]" for step in path
    )
