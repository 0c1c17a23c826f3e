"""Tables of numbers, categories and texts, with or without a label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.columns import LABEL_NAMES, choose_column, choose_split
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.kinds.base import DatasetKind, ScanOptions
from kubeloop.datasets.kinds.rows import add_scan_columns, label_texts, read_tables
from kubeloop.datasets.shards.base import SCAN_COLUMNS, ShardFormat
from kubeloop.datasets.sources.base import Source
from kubeloop.datasets.statistics import Statistics
from kubeloop.datasets.table_files import TableOptions

if TYPE_CHECKING:
    import pyarrow as pa


class Tabular(DatasetKind):
    """CSV, JSON Lines, Parquet or Arrow files of any columns.

    A categorical column named `label` (or the like, or as the user says) gives the classes; a
    column of fractions is a target to regress on, and the table has no classes then. Two rows that
    are equal in all columns are the same example.
    """

    name = "tabular"
    shard_format = ShardFormat.PARQUET
    is_labelled = False

    def scan(
        self, source: Source, *, options: ScanOptions, log: ScanLog
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows without the split column."""
        import pyarrow as pa

        from kubeloop.datasets.shards.parquet import stored_schema

        table_options = TableOptions(
            as_text=False,
            encoding=options.encoding,
            header=options.header,
            delimiter=options.delimiter,
        )
        is_first = True
        stored: pa.Schema | None = None
        label_name: str | None = None
        split_name: str | None = None
        for table, rows in read_tables(source, options=table_options, log=log):
            if is_first:
                is_first = False
                split_name = choose_split(rows, wanted=options.split_column, source=source)
                label_name = _choose_label(rows, options=options, log=log)
            kept = [name for name in rows.schema.names if name != split_name]
            batch = pa.RecordBatch.from_arrays([rows.column(name) for name in kept], names=kept)
            stored = stored or stored_schema(batch.schema)
            columns = batch.cast(stored).columns
            values = zip(*(column.to_pylist() for column in columns), strict=True)
            encoded = [repr(row).encode() for row in values]
            log.num_seen += len(encoded)
            yield add_scan_columns(
                batch,
                digests=[hashlib.sha256(data).digest() for data in encoded],
                sizes=[len(data) for data in encoded],
                labels=label_texts(rows, label_name) if label_name else [""] * len(encoded),
                splits=rows.column(split_name) if split_name else None,
                split=table.split,
            )

    def describe(self, rows: pa.RecordBatch, statistics: Statistics) -> None:
        """Summarize every column by its type; durations as the numbers that they are stored as."""
        import pyarrow as pa

        for field in rows.schema:
            if field.name in SCAN_COLUMNS:
                continue
            column = rows.column(field.name)
            if pa.types.is_duration(column.type):
                column = column.cast(pa.int64())
            if _is_number(column.type):
                statistics.add_numbers(field.name, column.to_pylist())
            else:
                statistics.add_categories(field.name, column.to_pylist())

    def describe_schema(self, schema: pa.Schema) -> dict[str, str]:
        """Name the columns."""
        return {field.name: str(field.type) for field in schema if field.name not in SCAN_COLUMNS}


def _choose_label(rows: pa.RecordBatch, *, options: ScanOptions, log: ScanLog) -> str | None:
    import pyarrow as pa

    chosen = choose_column(rows, wanted=options.label_column, role="label", known=LABEL_NAMES)
    if chosen is None:
        return None
    if pa.types.is_floating(rows.schema.field(chosen).type):
        log.note(f"Column {chosen!r} holds fractions: a target to regress on, so no classes.")
        return None
    if not options.label_column:
        log.note(f"Label column: {chosen!r}, by its name.")
    return chosen


def _is_number(kind: Any) -> bool:  # Any: pyarrow has no types
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )
