"""Strategic merge patches: lists of built-in kinds merge by a key instead of being replaced.

Which lists do, and by which key, is Kubernetes' `patchMergeKey`, by field name; the few names that
mean different lists in different places are told apart by their parent.
"""

from __future__ import annotations

from typing import Any

from kubeloop.local.api.refusals import bad_request

Json = Any  # any JSON value

_MERGE_KEYS = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "secrets": "name",
    "taints": "key",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_PORT_KEYS = {"containers": "containerPort", "initContainers": "containerPort", "spec": "port"}
_MERGED_VALUES = frozenset({"finalizers"})
_DIRECTIVE = "$patch"
_ORDER = "$setElementOrder/"
_DELETE_VALUES = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"


def apply_strategic_patch(target: Json, patch: Json) -> Json:
    """`patch` merged into `target` by Kubernetes' rules for built-in kinds.

    Raises:
        ApiError: 400, an unknown directive or a list entry without its merge key.
    """
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    return _merge_object(target if isinstance(target, dict) else {}, patch, parent="")


def merge_key(field: str, *, parent: str) -> str | None:
    """By which key entries of the list `field` are the same entry; None: the list is one value."""
    return _PORT_KEYS.get(parent) if field == "ports" else _MERGE_KEYS.get(field)


def _merge_object(target: dict[str, Json], patch: dict[str, Json], *, parent: str) -> Json:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(
            f"unknown $patch directive {directive!r}; accepted are delete, merge, replace"
        )
    merged = dict(target)
    if (kept := patch.get(_RETAIN)) is not None:
        merged = {key: value for key, value in merged.items() if key in kept}
    for key, value in patch.items():
        if key.startswith(_DELETE_VALUES):
            field = key.removeprefix(_DELETE_VALUES)
            merged[field] = [item for item in merged.get(field) or [] if item not in value]
        elif not key.startswith("$"):
            _merge_field(merged, key, value, parent=parent)
    for key, order in patch.items():
        if key.startswith(_ORDER):
            _order(merged, key.removeprefix(_ORDER), order, parent=parent)
    return merged


def _merge_field(merged: dict[str, Json], field: str, value: Json, *, parent: str) -> None:
    current = merged.get(field)
    if value is None:
        merged.pop(field, None)
    elif isinstance(value, dict):
        inner = current if isinstance(current, dict) else {}
        merged[field] = _merge_object(inner, value, parent=field)
    elif isinstance(value, list):
        merged[field] = _merge_list(current or [], value, field=field, parent=parent)
    else:
        merged[field] = value


def _merge_list(current: list[Json], patch: list[Json], *, field: str, parent: str) -> list[Json]:
    if field in _MERGED_VALUES:
        return current + [item for item in patch if item not in current]
    key = merge_key(field, parent=parent)
    if key is None:
        return patch
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and _DIRECTIVE in item)]
    merged = list(current)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"every entry of {field} in a strategic merge patch needs {key}")
        _merge_item(merged, item, key=key, field=field)
    return merged


def _merge_item(merged: list[Json], item: dict[str, Json], *, key: str, field: str) -> None:
    found = next((i for i, old in enumerate(merged) if old.get(key) == item[key]), None)
    if item.get(_DIRECTIVE) == "delete":
        if found is not None:
            del merged[found]
    elif found is None:
        merged.append(_merge_object({}, item, parent=field))
    else:
        merged[found] = _merge_object(merged[found], item, parent=field)


def _order(merged: dict[str, Json], field: str, order: list[Json], *, parent: str) -> None:
    items = merged.get(field)
    if not isinstance(items, list):
        return
    key = merge_key(field, parent=parent)
    wanted = [entry.get(key) if isinstance(entry, dict) else entry for entry in order]

    def place(item: Json) -> int:
        identity = item.get(key) if isinstance(item, dict) else item
        return wanted.index(identity) if identity in wanted else len(wanted)

    merged[field] = sorted(items, key=place)
