"""Rows of CSV, JSON Lines, Parquet and Arrow files, in batches.

Every file is read once, from front to back, in blocks, so that memory does not grow with it. All
files of a source must have the same columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.columns import RowTypes
from kubeloop.datasets.csv_tables import CsvTable, settle_all
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.sources.base import Source, SourceFile, extension_of
from kubeloop.datasets.table_files import (
    BLOCK_BYTES,
    FileTable,
    Table,
    TableOptions,
    without_mark,
)
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 16_384


def open_tables(
    source: Source,
    *,
    options: TableOptions,
    log: ScanLog,
    files: Sequence[SourceFile] | None = None,
) -> list[Table]:
    """Find the tables of a source, or among some files of it.

    Raises:
        InputError: There is none, and the source is no part of a larger one.
    """
    if source.has_rows:
        return [RowsTable(source.uri, source.read_rows())]
    files = list(source.list_files()) if files is None else files
    tables: list[Table] = []
    everything = list(source.list_all_files())
    readable = [file for file in everything if is_table(file)]
    unused = _unused_files(source, everything)
    for file in files:
        reader = _format_of(file)
        if file.path in unused:
            continue
        if reader is None:
            if PurePosixPath(file.path).name not in _SILENT:
                log.ignore(file.path, "not a table (.csv, .tsv, .jsonl, .parquet, .arrow)")
            continue
        tables.append(reader(source, file, options=options, log=log))
    if not tables and not source.is_part:
        raise InputError(
            f"The source {source.uri!r} holds no table; give .csv, .tsv, .jsonl, .parquet or"
            " .arrow files, compressed ones unpacked."
        )
    if not options.as_text:
        settle_all([table for table in tables if isinstance(table, CsvTable)])
    if len(readable) == 1 and not PurePosixPath(readable[0].path).parent.name:
        for table in tables:
            table.split = ""
    return tables


_SILENT = frozenset({"dataset_info.json", "state.json", "dataset_dict.json"})


def _unused_files(source: Source, files: Sequence[SourceFile]) -> set[str]:
    """Return the caches that Hugging Face's library keeps beside the files of a dataset."""
    unused: set[str] = set()
    for state in files:
        folder, _, name = state.path.rpartition("/")
        if name != "state.json":
            continue
        try:
            named = {
                entry["filename"] for entry in json.loads(source.read(state.path))["_data_files"]
            }
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{state.path!r} in {source.uri!r} does not name the files of a dataset: {error!r}."
            ) from error
        unused.update(
            file.path
            for file in files
            if file.path.rpartition("/")[0] == folder
            and file.path.endswith(".arrow")
            and file.path.rpartition("/")[2] not in named
        )
    return unused


class RowsTable(Table):
    """Rows that a source gives by itself."""

    def __init__(self, uri: str, rows: Iterator[pa.RecordBatch]) -> None:
        self.path = uri
        self.split = ""
        self._rows = rows

    def read_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows."""
        return self._rows


class JsonLinesTable(FileTable):
    """A JSON Lines file: one object a line."""

    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        types = RowTypes()
        for first, rows in self._read_objects(path):
            try:
                yield types.apply(pa.RecordBatch.from_pylist(rows))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise InputError(
                    f"The rows of {self.path!r} from line {first} on do not have the types of those"
                    f" before: {error}."
                ) from error
            except (UnicodeEncodeError, OverflowError) as error:
                raise InputError(
                    f"The rows of {self.path!r} from line {first} on hold text that is no Unicode,"
                    f" or a number beyond 64 bits: {error}."
                ) from error

    def _read_objects(self, path: Path) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
        rows: list[Mapping[str, Any]] = []
        names: dict[str, None] = {}
        start, num_bytes, number = 1, 0, 0
        with path.open(encoding=without_mark(self._options.encoding)) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = self._parse(line, number)
                if start == 1:
                    names.update(dict.fromkeys(row))
                elif unknown := row.keys() - names.keys():
                    raise InputError(
                        f"Line {number} of {self.path!r} has {sorted(unknown)[0]!r}, which the"
                        f" first {start - 1} lines have not; give all rows the same columns."
                    )
                rows.append(row)
                num_bytes += len(line)
                if len(rows) >= _BATCH_ROWS or num_bytes >= BLOCK_BYTES:
                    yield start, [{name: row.get(name) for name in names} for row in rows]
                    rows, start, num_bytes = [], number + 1, 0
        if rows:
            yield start, [{name: row.get(name) for name in names} for row in rows]

    def _parse(self, line: str, number: int) -> Mapping[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"Line {number} of {self.path!r} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise InputError(f"Line {number} of {self.path!r} is not a JSON object.")
        return row


class ParquetTable(FileTable):
    """A Parquet file."""

    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                yield _check(batch)


class ArrowTable(FileTable):
    """An Arrow stream or file, as Hugging Face's library writes them."""

    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with path.open("rb") as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                with pa.ipc.open_file(file) as reader:
                    for number in range(reader.num_record_batches):
                        yield from _slice(_check(reader.get_batch(number)))
            else:
                with pa.ipc.open_stream(file) as stream:
                    for batch in stream:
                        yield from _slice(_check(batch))


def _check(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Refuse texts that are no UTF-8 and offsets that lead out, which Arrow takes on trust."""
    batch.validate(full=True)
    return name_classes(batch)


def _slice(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, _BATCH_ROWS):
        yield batch.slice(start, _BATCH_ROWS)


def name_classes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Replace class numbers by names, where the schema has them as Hugging Face writes it."""
    import pyarrow as pa

    document = (batch.schema.metadata or {}).get(b"huggingface")
    if document is None:
        return batch
    try:
        features = json.loads(document)["info"]["features"]
        names = {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return batch
    columns = [
        _name_values(batch.column(place), names[name]) if name in names else batch.column(place)
        for place, name in enumerate(batch.schema.names)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _name_values(column: pa.Array, names: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    indices = column.to_pylist()
    largest = max((index for index in indices if index is not None), default=-1)
    if largest >= len(names):
        raise InputError(
            f"A class has number {largest}, but the schema names {len(names)} classes."
        )
    named = [None if index is None or index < 0 else names[index] for index in indices]
    return pa.array(named, pa.string())


_FORMATS: Mapping[str, type[FileTable]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".jsonl": JsonLinesTable,
    ".ndjson": JsonLinesTable,
    ".parquet": ParquetTable,
    ".arrow": ArrowTable,
}


def is_table(file: SourceFile) -> bool:
    """Tell by its name whether a file holds rows."""
    return _format_of(file) is not None


def _format_of(file: SourceFile) -> type[FileTable] | None:
    return _FORMATS.get(extension_of(file.path))
