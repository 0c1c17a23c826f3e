"""What `kubectl get` prints: the server renders each kind's columns into a Table.

Kinds of custom resources name their columns by path, in the resource table; the built-in kinds'
columns are computed, one function a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubeloop.local.api.jsonpath import find_values
from kubeloop.local.api.printing import ROWS, Cell, RowPrinter, Seen, human_duration
from kubeloop.local.api.resources import Resource
from kubeloop.local.client import Manifest

_DESCRIPTIONS = {"Name": "Name must be unique within a namespace."}
_NO_COLUMNS = RowPrinter(columns=("Age",), row=lambda _, seen: (seen.age,))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """What a client asks of a table."""

    api_version: str = "meta.k8s.io/v1"
    include_object: str = "Metadata"
    """Each row's `object`: None, Metadata or Object."""


def render_table(
    resource: Resource,
    manifests: Iterable[Manifest],
    *,
    options: TableOptions,
    now: datetime,
    metadata: Manifest | None = None,
    with_columns: bool = True,
) -> Manifest:
    """A Table of the objects.

    Args:
        resource: Their kind.
        manifests: The objects.
        options: What the client asked for.
        now: What ages are counted to.
        metadata: The list's own.
        with_columns: Whether to define the columns; watches do so once.
    """
    return {
        "kind": "Table",
        "apiVersion": options.api_version,
        "metadata": metadata or {},
        "columnDefinitions": _define_columns(resource) if with_columns else None,
        "rows": [_render_row(resource, m, options=options, now=now) for m in manifests],
    }


def _define_columns(resource: Resource) -> list[Manifest]:
    definitions = [_define_column("Name", "string", 0)]
    if resource.columns:
        definitions += [
            _define_column(c.name, "string" if c.type == "date" else c.type, c.priority)
            for c in resource.columns
        ]
        return definitions
    printer = ROWS.get(resource, _NO_COLUMNS)
    definitions += [_define_column(name, "string", 0) for name in printer.columns]
    definitions += [_define_column(name, "string", 1) for name in printer.wide_columns]
    return definitions


def _define_column(name: str, type_: str, priority: int) -> Manifest:
    return {
        "name": name,
        "type": type_,
        "format": "name" if name == "Name" else "",
        "description": _DESCRIPTIONS.get(name, name),
        "priority": priority,
    }


def _render_row(
    resource: Resource, manifest: Manifest, *, options: TableOptions, now: datetime
) -> Manifest:
    metadata = manifest["metadata"]

    def age(stamp: str | None) -> str:
        return _age(stamp, now)

    seen = Seen(age=age(metadata.get("creationTimestamp")), age_of=age, now=now)
    cells: list[Cell] = [metadata["name"]]
    if resource.columns:
        for column in resource.columns:
            values = find_values(manifest, column.path)
            cells.append(_cell(values, is_date=column.type == "date", age=age))
    else:
        printer = ROWS.get(resource, _NO_COLUMNS)
        cells += [*printer.row(manifest, seen), *printer.wide(manifest, seen)]
    row: Manifest = {"cells": cells}
    if options.include_object == "Object":
        row["object"] = manifest
    elif options.include_object == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": options.api_version,
            "metadata": metadata,
        }
    return row


def _cell(values: list[Any], *, is_date: bool, age: Callable[[str | None], str]) -> Cell:
    if is_date:
        return age(values[0] if values else None)
    if not values or values[0] is None:
        return None
    if len(values) > 1:
        return ",".join(str(value) for value in values)
    value = values[0]
    return value if isinstance(value, str | int | float) else str(value)


def _age(stamp: str | None, now: datetime) -> str:
    if not stamp:
        return "<unknown>"
    return human_duration(now - datetime.fromisoformat(stamp))
