"""One SQLite table for one kind of record.

A row is the record as JSON, and beside it, as columns of their own, the fields that are searched
or sorted by. Records stay plain dataclasses: what a field means is said once, in `records`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to select: SQL over the table's columns, with its values."""

    where: str = ""
    values: tuple[Any, ...] = ()
    order: str = ""
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema(Generic[T]):
    """How records of one kind are kept; columns are fields of the record."""

    name: str
    decode: Callable[[dict[str, Any]], T]
    key: str
    columns: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()


class Table(Generic[T]):
    """Stores records of one kind by their key."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema[T]) -> None:
        name, key = schema.name, schema.key
        self._connection = connection
        self._name = name
        self._decode = schema.decode
        self._key = key
        self._columns = schema.columns
        described = "".join(f', "{column}"' for column in self._columns)
        connection.execute(
            f'CREATE TABLE IF NOT EXISTS {name} ("{key}" TEXT PRIMARY KEY{described}, '
            "record BLOB NOT NULL)"
        )
        for index in schema.indexes:
            label = index.replace(",", "_").replace(" ", "")
            connection.execute(f"CREATE INDEX IF NOT EXISTS {name}_{label} ON {name} ({index})")
        names = ", ".join(f'"{column}"' for column in (key, *self._columns, "record"))
        marks = ", ".join("?" * (len(self._columns) + 2))
        updates = ", ".join(f'"{item}" = excluded."{item}"' for item in (*self._columns, "record"))
        # NB: not INSERT OR REPLACE, which would give the row another place in insertion order.
        self._put_sql = (
            f"INSERT INTO {name} ({names}) VALUES ({marks}) "  # noqa: S608  # own names
            f'ON CONFLICT ("{key}") DO UPDATE SET {updates}'
        )

    def put(self, record: T) -> None:
        """Insert or replace."""
        values = [getattr(record, column) for column in self._columns]
        self._connection.execute(
            self._put_sql, (getattr(record, self._key), *values, orjson.dumps(record))
        )

    def get(self, key: str) -> T | None:
        """The record of this key."""
        found = self.select(Query(where=f'"{self._key}" = ?', values=(key,)))
        return found[0] if found else None

    def delete(self, where: str, values: Iterable[Any]) -> None:
        """Delete the rows that match."""
        self._connection.execute(f"DELETE FROM {self._name} WHERE {where}", tuple(values))  # noqa: S608

    def select(self, query: Query) -> list[T]:
        """The records that match, in the order asked for."""
        sql = f"SELECT record FROM {self._name}"  # noqa: S608
        if query.where:
            sql += f" WHERE {query.where}"
        if query.order:
            sql += f" ORDER BY {query.order}"
        if query.limit is not None:
            sql += f" LIMIT {query.limit}"
        rows = self._connection.execute(sql, query.values)
        return [self._decode(orjson.loads(row[0])) for row in rows]

    def count(self, query: Query) -> int:
        """How many records match."""
        sql = f"SELECT COUNT(*) FROM {self._name}"  # noqa: S608
        if query.where:
            sql += f" WHERE {query.where}"
        number: int = self._connection.execute(sql, query.values).fetchone()[0]
        return number
