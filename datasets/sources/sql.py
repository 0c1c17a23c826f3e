"""Rows of a query to a database, through SQLAlchemy.

    postgresql://user:password@host/database?query=SELECT …
    sqlite:////absolute/path.db?table=messages

Rows come in batches through a cursor on the server, in one read-only transaction, so that they are
one state of the database. Without ORDER BY a database may return the same rows in another order,
which makes another commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.columns import RowTypes
from kubeloop.datasets.sources.base import SOURCES, Source, SourceFile, SourceLimits
from kubeloop.errors import InputError, MissingDependencyError, TransientError
from kubeloop.optional_imports import import_from_extra

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import URL, Connection

_BATCH_ROWS = 8192


class SqlRows(Source):
    """The rows of one query."""

    has_rows = True

    def __init__(self, uri: str) -> None:
        with import_from_extra("sql", why="SQL sources need SQLAlchemy"):
            from sqlalchemy import make_url
            from sqlalchemy.exc import ArgumentError
        try:
            url = make_url(uri)
        except ArgumentError as error:
            raise InputError("The database URL cannot be read; write scheme://host/db.") from error
        self._query = _take_query(url)
        self._url = _choose_driver(url.difference_update_query(["query", "table"]))
        shown = url.difference_update_query(["table"]).update_query_dict({"query": self._query})
        self.uri = shown.render_as_string(hide_password=True)

    def list_files(self) -> Iterator[SourceFile]:
        """Yield nothing: there are rows."""
        return iter(())

    def read(self, path: str, *, version: str = "") -> bytes:  # noqa: ARG002 - there are none
        """Refuse: there are no files."""
        raise InputError(f"The source {self.uri!r} has rows and no file {path!r}.")

    def local_path(self, path: str) -> Path:
        """Refuse: there are no files."""
        raise InputError(f"The source {self.uri!r} has rows and no file {path!r}.")

    def fingerprint(self) -> str:
        """Return '': what a query gives cannot be told without running it."""
        return ""

    def read_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the query."""
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        with self._connected() as connection:
            try:
                # NB: SQLAlchemy would take `:name` for a parameter, also inside of a literal.
                result = connection.execute(text(self._query.replace(":", r"\:")))
                yield from _to_batches(list(result.keys()), result.partitions(_BATCH_ROWS))
            except SQLAlchemyError as error:
                cause = getattr(error, "orig", None) or error
                raise InputError(f"Failed to query {self.uri!r}: {cause}.") from error

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": _BATCH_ROWS}
        try:
            engine = create_engine(self._url, poolclass=NullPool)
            if engine.dialect.name == "postgresql":
                options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            connection = engine.connect().execution_options(**options)
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise TransientError(f"Failed to connect to {self.uri!r}: {cause}.") from error
        except ImportError as error:
            raise MissingDependencyError(f"{self.uri!r} needs its driver: {error}.") from error
        with connection:
            yield connection


def _take_query(url: URL) -> str:
    query, table = url.query.get("query", ""), url.query.get("table", "")
    if not isinstance(query, str) or not isinstance(table, str) or bool(query) == bool(table):
        raise InputError(
            f"The database URL {url.set(query={}).render_as_string()!r} must end in ?query=SELECT …"
            " or ?table=NAME."
        )
    if not table:
        return query
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))
    return f"SELECT * FROM {quoted}"  # noqa: S608 - quoted as an identifier


def _choose_driver(url: URL) -> URL:
    if url.get_backend_name() in ("postgres", "postgresql") and not url.username:
        raise InputError(
            f"The database URL {url.set(query={}).render_as_string()!r} names no user; write"
            f" {url.drivername}://USER:PASSWORD@HOST/DATABASE."
        )
    if url.drivername in ("postgres", "postgresql"):
        # The one of the extra: pure Python, under a permissive licence.
        return url.set(drivername="postgresql+pg8000")
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if not path.is_file():
            raise InputError(f"The SQLite database {str(path)!r} does not exist.")
        return url.set(database=f"file:{path.resolve()}").update_query_dict(
            {"mode": "ro", "uri": "true"}
        )
    return url


def _to_batches(
    names: Sequence[str], partitions: Iterator[Sequence[Any]]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    types = RowTypes()
    for rows in partitions:
        try:
            arrays = [pa.array(column) for column in zip(*rows, strict=True)]
            yield types.apply(pa.RecordBatch.from_arrays(arrays, names=list(names)))
        except (
            *(pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError),
            OverflowError,
        ) as error:
            raise InputError(
                f"The query's rows change their types: {error}; cast the columns in the query."
            ) from error


def open_sql(uri: str, limits: SourceLimits) -> Source:  # noqa: ARG001 - nothing to limit
    """Open a database URL."""
    return SqlRows(uri)


for scheme in ("postgres", "postgresql", "postgresql+pg8000", "postgresql+psycopg", "sqlite"):
    SOURCES.register(scheme, open_sql)
