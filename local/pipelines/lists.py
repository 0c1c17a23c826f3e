"""Lists of the KFP API: filter, sort and pages, as SQL.

A page token carries the sort, the filter and the last row of the page before, so that pages stay
right while rows come and go, and a client need send nothing but the token.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from kubeloop.local.pipelines.rpc_errors import invalid
from kubeloop.local.pipelines.spec.nodes import listed
from kubeloop.local.pipelines.storage.tables import Query, Table

T = TypeVar("T")

_DEFAULT_PAGE = 20
_MAX_PAGE = 200
_OPERATIONS = {
    1: ("EQUALS", "{} = ?"),
    2: ("NOT_EQUALS", "{} != ?"),
    3: ("GREATER_THAN", "{} > ?"),
    5: ("GREATER_THAN_EQUALS", "{} >= ?"),
    6: ("LESS_THAN", "{} < ?"),
    7: ("LESS_THAN_EQUALS", "{} <= ?"),
    8: ("IN", "{} IN ({})"),
    9: ("IS_SUBSTRING", "instr({}, ?) > 0"),
}
_NUMBERS = {name: number for number, (name, _) in _OPERATIONS.items()}
_TAG_PREFIX = "tags."
_VALUES = ("int_value", "long_value", "string_value", "timestamp_value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[T]):
    """What a list may be sorted and filtered by: names of the API and their columns."""

    table: Table[T]
    key: str
    keys: Mapping[str, str]
    default: str = "created_at"
    has_tags: bool = False
    """Whether records have tags, which `tags.NAME` filters by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page."""

    records: list[T]
    total_size: int
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    column: str
    is_descending: bool = False
    sort_by: str = ""
    filter_text: str = ""
    after: tuple[Any, str] | None = None
    where: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def list_page(
    listing: Listing[T], params: Mapping[str, str], *, only: Mapping[str, Any]
) -> Page[T]:
    """Answer a list request.

    Args:
        listing: What is listed.
        params: The request's query: page_token, page_size, sort_by, filter.
        only: Columns that must equal these values, or be among them; empty values restrict
            nothing.

    Raises:
        RpcError: A parameter is malformed, or names a key that does not exist.
    """
    size = _page_size(params.get("page_size", ""))
    options = _read_options(listing, params)
    where, values = list(options.where), list(options.values)
    for column, value in only.items():
        allowed = value if isinstance(value, tuple) else (value,) if value else ()
        if allowed:
            where.append(f'"{column}" IN ({", ".join("?" * len(allowed))})')
            values += allowed
    total = listing.table.count(Query(where=" AND ".join(where), values=tuple(values)))
    column, key = f'"{options.column}"', f'"{listing.key}"'
    if options.after is not None:
        compared = "<" if options.is_descending else ">"
        where.append(f"({column}, {key}) {compared} (?, ?)")
        values += options.after
    direction = "DESC" if options.is_descending else "ASC"
    found = listing.table.select(
        Query(
            where=" AND ".join(where),
            values=tuple(values),
            order=f"{column} {direction}, {key} {direction}",
            limit=size + 1,
        )
    )
    token = _write_token(listing, options, found[size - 1]) if len(found) > size else ""
    return Page(records=found[:size], total_size=total, next_page_token=token)


def _page_size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError:
        raise invalid(f"page_size {text!r} is not a whole number.") from None
    if size < 0:
        raise invalid(f"page_size {size} is negative; give 1 to {_MAX_PAGE}.")
    return min(size, _MAX_PAGE) or _DEFAULT_PAGE


def _read_options(listing: Listing[T], params: Mapping[str, str]) -> _Options:
    sort_by, filter_text = params.get("sort_by", ""), params.get("filter", "")
    after = None
    if token := params.get("page_token", ""):
        held = _read_token(token)
        for name, given, kept in (
            ("sort_by", sort_by, held["sort_by"]),
            ("filter", filter_text, held["filter"]),
        ):
            if given and given != kept:
                raise invalid(f"{name} {given!r} differs from that of the page token, {kept!r}.")
        sort_by, filter_text = held["sort_by"], held["filter"]
        after = (held["value"], held["key"])
    column, is_descending = _read_sort(listing, sort_by)
    where, values = _read_filter(listing, filter_text)
    return _Options(
        column=column,
        is_descending=is_descending,
        sort_by=sort_by,
        filter_text=filter_text,
        after=after,
        where=where,
        values=values,
    )


def _read_sort(listing: Listing[T], sort_by: str) -> tuple[str, bool]:
    words = sort_by.split()
    if not words:
        return listing.default, False
    if len(words) > 2 or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
        raise invalid(
            f'sort_by {sort_by!r} is not understood; give "KEY", "KEY asc" or "KEY desc".'
        )
    return _column(listing, words[0]), len(words) == 2 and words[1].lower() == "desc"


def _column(listing: Listing[T], key: str) -> str:
    name = key.rpartition(".")[2]
    if name not in listing.keys:
        raise invalid(
            f"Key {key!r} cannot be sorted or filtered by; there are {listed(listing.keys)}."
        )
    return listing.keys[name]


def _read_filter(listing: Listing[T], text: str) -> tuple[list[str], list[Any]]:
    if not text:
        return [], []
    try:
        written = json.loads(text)
        predicates = written.get("predicates") or []
        clauses = [_read_predicate(listing, predicate) for predicate in predicates]
    except (ValueError, AttributeError, TypeError) as error:
        raise invalid(f"The filter {text!r} is not understood: {error}.") from error
    return [clause for clause, _ in clauses], [value for _, held in clauses for value in held]


def _read_predicate(listing: Listing[T], predicate: Mapping[str, Any]) -> tuple[str, list[Any]]:
    fields = {_snake(key): value for key, value in predicate.items()}
    operation = fields.get("operation")
    number = operation if isinstance(operation, int) else _NUMBERS.get(str(operation), 0)
    if number not in _OPERATIONS:
        raise invalid(f"Filter operation {operation!r} is not one of {listed(_NUMBERS)}.")
    name, sql = _OPERATIONS[number]
    key = str(fields.get("key", ""))
    if listing.has_tags and key.startswith(_TAG_PREFIX):
        return _read_tag_predicate(key.removeprefix(_TAG_PREFIX), name, fields)
    column = f'"{_column(listing, key)}"'
    if name == "IN":
        kind = next((kind for kind in _VALUES if f"{kind}s" in fields), "string_value")
        held = fields.get(f"{kind}s", {}).get("values") or []
        values = [_read_value(kind, value) for value in held]
        return sql.format(column, ", ".join("?" * len(values))), values
    kind = next((kind for kind in _VALUES if kind in fields), "")
    if not kind:
        raise invalid(f"A filter predicate needs one value of {listed(_VALUES)}.")
    return sql.format(column), [_read_value(kind, fields[kind])]


def _read_tag_predicate(
    tag: str, operation: str, fields: Mapping[str, Any]
) -> tuple[str, list[Any]]:
    if operation != "EQUALS" or "string_value" not in fields:
        raise invalid(f"Tag {tag!r} is filtered by EQUALS and a string_value.")
    sql = (
        "EXISTS (SELECT 1 FROM json_each(CAST(record AS TEXT), '$.tags') AS tag "
        "WHERE tag.key = ? AND tag.value = ?)"
    )
    return sql, [tag, str(fields["string_value"])]


def _read_value(kind: str, value: Any) -> Any:
    if kind == "timestamp_value":
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    return int(value) if kind in ("int_value", "long_value") else str(value)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _write_token(listing: Listing[T], options: _Options, last: T) -> str:
    held = {
        "sort_by": options.sort_by,
        "filter": options.filter_text,
        "value": getattr(last, options.column),
        "key": getattr(last, listing.key),
    }
    return base64.urlsafe_b64encode(json.dumps(held).encode()).decode()


def _read_token(token: str) -> dict[str, Any]:
    try:
        held = json.loads(base64.urlsafe_b64decode(token.encode()))
        return {name: held[name] for name in ("sort_by", "filter", "value", "key")}
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise invalid("The page token is not one that this server gave out.") from error
