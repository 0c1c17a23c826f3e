"""Parquet shards, for texts and tables.

Rows are cut into row groups by their own sizes, so that the file does not depend on how they came,
and memory holds one group. No time, path or Arrow schema goes into the file; Arrow's version does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from kubeloop.datasets.shards.base import LABEL, SCAN_COLUMNS, SIZE, ShardWriter
from kubeloop.datasets.statistics import Statistics

_GROUP_BYTES = 4 << 20
_GROUP_ROWS = 1 << 16

_FORM = {"compression": "zstd", "store_schema": False, "version": "2.6"}

Describe = Callable[[pa.RecordBatch, Statistics], None]


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the types with which rows are read back: Parquet has fewer than Arrow."""
    file = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), file, **_FORM)
    return pq.read_schema(pa.BufferReader(file.getvalue()))


class ParquetShardWriter(ShardWriter):
    """Writes rows as Parquet."""

    def __init__(self, file: BinaryIO, *, describe: Describe) -> None:
        super().__init__(file)
        self._describe = describe
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._num_rows = self._num_bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Append scanned rows."""
        import numpy as np

        ends = np.cumsum(rows.column(SIZE).to_numpy(zero_copy_only=False))
        start = first_byte = 0
        while start < rows.num_rows:
            full = int(np.searchsorted(ends, first_byte + _GROUP_BYTES - self._num_bytes))
            stop = min(full + 1, start + _GROUP_ROWS - self._num_rows, rows.num_rows)
            self._waiting.append(rows.slice(start, stop - start))
            self._num_rows += stop - start
            self._num_bytes += int(ends[stop - 1]) - first_byte
            start, first_byte = stop, int(ends[stop - 1])
            if self._num_rows >= _GROUP_ROWS or self._num_bytes >= _GROUP_BYTES:
                self._write_group()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._waiting).combine_chunks()
        self._waiting, self._num_rows, self._num_bytes = [], 0, 0
        rows = table.to_batches()[0]
        self.statistics.num_rows += rows.num_rows
        self.statistics.num_bytes += sum(rows.column(SIZE).to_pylist())
        self.statistics.labels.update(label for label in rows.column(LABEL).to_pylist() if label)
        self._describe(rows, self.statistics)
        table = table.drop_columns(list(SCAN_COLUMNS))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, **_FORM)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Write the last group and the footer."""
        if self._waiting:
            self._write_group()
        if self._writer is not None:
            self._writer.close()
