"""What the kinds that read tables share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubeloop.datasets.columns import settle_nulls
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.shards.base import DIGEST, LABEL, SCAN_COLUMNS, SIZE, SPLIT
from kubeloop.datasets.sources.base import Source, SourceFile
from kubeloop.datasets.table_files import Table, TableOptions, split_of_name
from kubeloop.datasets.tables import open_tables
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 8192
"""Rows become Python objects, of which memory should not hold too many."""


def read_tables(
    source: Source,
    *,
    options: TableOptions,
    log: ScanLog,
    files: Sequence[SourceFile] | None = None,
) -> Iterator[tuple[Table, pa.RecordBatch]]:
    """Yield the rows of all tables of a source, refusing those of another schema.

    Args:
        source: The source.
        options: How text files are read.
        log: Takes what is left out.
        files: Files to look for tables in; by default those of the source.

    Raises:
        InputError: They do not have one schema, or there are none and the source is no part.
    """
    import pyarrow as pa

    schema: pa.Schema | None = None
    first = ""
    for table in open_tables(source, options=options, log=log, files=files):
        for rows in table.read_batches():
            plain = rows.replace_schema_metadata(None)
            if schema is None:
                schema, first = settle_nulls(_check_names(plain.schema)), table.path
            elif plain.schema.names != schema.names:
                raise InputError(
                    f"{table.path!r} has the columns {plain.schema.names}, {first!r} has"
                    f" {schema.names}; give all tables the same."
                )
            try:
                typed = plain.cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise InputError(
                    f"{table.path!r} has columns of other types than {first!r}: {error}."
                ) from error
            for start in range(0, typed.num_rows, _BATCH_ROWS):
                yield table, typed.slice(start, _BATCH_ROWS)
    if schema is None and not source.is_part:
        rejected = "".join(f" ({entry.path}: {entry.reason})" for entry in log.corrupt[:1])
        raise InputError(f"The source {source.uri!r} has no rows{rejected}.")


def _check_names(schema: pa.Schema) -> pa.Schema:
    for name in schema.names:
        if name in SCAN_COLUMNS or not name:
            raise InputError(f"A column must not be named {name!r}; rename it.")
        if schema.names.count(name) > 1:
            raise InputError(f"Several columns are named {name!r}; rename all but one.")
    return schema


def label_texts(rows: pa.RecordBatch, name: str) -> pa.Array:
    """Return labels as texts; those of a categorical column by their names."""
    import pyarrow as pa

    column = rows.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        raise InputError(f"The label column {name!r} holds {column.type}, not classes.")
    try:
        return column.cast(pa.string()).fill_null("")
    except pa.ArrowInvalid as error:
        raise InputError(f"The label column {name!r} does not hold texts: {error}.") from error


def add_scan_columns(
    rows: pa.RecordBatch,
    *,
    digests: Sequence[bytes],
    sizes: Sequence[int],
    labels: pa.Array | Sequence[str],
    splits: pa.Array | None = None,
    split: str = "",
) -> pa.RecordBatch:
    """Add the columns that ingestion works with.

    Args:
        rows: Columns of the kind.
        digests: sha256 of what makes an example the same example.
        sizes: Bytes of the encoded examples.
        labels: Labels as texts.
        splits: Names of the splits that the source declares row by row, if it does.
        split: The split that it declares for all rows, or ''.
    """
    import pyarrow as pa

    if splits is None:
        declared = pa.array([split] * rows.num_rows, pa.string())
    else:
        names = {value: read_split(value) for value in splits.unique().to_pylist()}
        declared = pa.array([names[value] for value in splits.to_pylist()], pa.string())
    columns = {
        DIGEST: pa.array(digests, pa.binary(32)),
        LABEL: labels if isinstance(labels, pa.Array) else pa.array(labels, pa.string()),
        SPLIT: declared,
        SIZE: pa.array(sizes, pa.int64()),
    }
    return pa.RecordBatch.from_arrays(
        [*rows.columns, *columns.values()], names=[*rows.schema.names, *columns]
    )


def read_split(value: object) -> str:
    """Return the split that a value of a split column names, or ''.

    Raises:
        InputError: It names none.
    """
    if value is None or value == "":
        return ""
    split = split_of_name(str(value))
    if not split:
        raise InputError(f"The split column holds {value!r}; use train, validation or test.")
    return split
