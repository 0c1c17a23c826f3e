"""Rows of CSV, JSON Lines, Parquet and Arrow files, in batches.

Every file is read once, from front to back, in blocks, so that memory does not grow with it. All
files of a source must have the same columns. What Arrow's readers say of bad data is translated
here.
"""

from __future__ import annotations

import json
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.columns import RowTypes, has_header
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.sources.base import Source, SourceFile
from kubeloop.datasets.splits import TEST, TRAIN, VALIDATION
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 16_384
_LONGEST_FIELD = 4 << 20
_TOO_LONG = "a row is longer than 4 MiB, or a quote is not closed"
_SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How text files are read."""

    as_text: bool
    """Whether all columns of a CSV file are texts, rather than of inferred types."""
    encoding: str = "utf-8"
    """Encoding of CSV and JSON Lines files."""
    header: str = "auto"
    """Whether CSV files begin with column names: auto, yes or no."""
    delimiter: str = ""
    """Delimiter of CSV files; empty: a tab in .tsv files, else a comma."""


class Table(ABC):
    """Rows with named columns, from one file or another source."""

    path: str
    """Where the rows come from."""
    split: str
    """The split that its place declares, or ''."""

    @abstractmethod
    def read_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows.

        Raises:
            InputError: They cannot be read.
        """


def split_of_name(name: str) -> str:
    """Return the split that a file or folder name stands for, or ''."""
    stem = re.split(r"[-_.]\d", name.lower(), maxsplit=1)[0]
    return _SPLIT_NAMES.get(stem.partition(".")[0], "")


def open_tables(
    source: Source,
    *,
    options: TableOptions,
    log: ScanLog,
    files: Sequence[SourceFile] | None = None,
) -> list[Table]:
    """Find the tables of a source, or among some files of it.

    Raises:
        InputError: There is none.
    """
    if source.has_rows:
        return [RowsTable(source.uri, source.read_rows())]
    files = list(source.list_files()) if files is None else files
    tables: list[Table] = []
    readable = [file for file in files if _format_of(file) is not None]
    unused = _unused_files(source, files)
    for file in files:
        reader = _format_of(file)
        if file.path in unused:
            continue
        if reader is None:
            if PurePosixPath(file.path).name not in _SILENT:
                log.ignore(file.path, "not a table (.csv, .tsv, .jsonl, .parquet, .arrow)")
            continue
        tables.append(reader(source, file, options=options, log=log))
    if not tables:
        raise InputError(
            f"The source {source.uri!r} holds no table; give .csv, .tsv, .jsonl, .parquet or"
            " .arrow files, compressed ones unpacked."
        )
    if not options.as_text:
        _settle_all([table for table in tables if isinstance(table, CsvTable)])
    if len(readable) == 1 and not PurePosixPath(readable[0].path).parent.name:
        tables[0].split = ""
    return tables


def _settle_all(tables: Sequence[CsvTable]) -> None:
    """Give CSV files the types that the rows of all of them have."""
    types: Mapping[str, pa.DataType] = {}
    for table in tables:
        types = table.settle_types(types)
    for table in tables:
        table.types = types


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


class FileTable(Table):
    """Rows of a file."""

    def __init__(
        self, source: Source, file: SourceFile, *, options: TableOptions, log: ScanLog
    ) -> None:
        self.path = file.path
        self._source = source
        self._file = file
        self._options = options
        self._log = log
        parts = PurePosixPath(file.path).parts
        self.split = next((name for part in parts[::-1] if (name := split_of_name(part))), "")

    def read_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows."""
        with self._errors():
            yield from self._read(self._source.local_path(self.path))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import pyarrow as pa

        if not self._file.num_bytes:
            raise InputError(f"The file {self.path!r} in {self._source.uri!r} is empty.")
        try:
            yield
        except InputError:
            raise
        except (pa.ArrowException, UnicodeError, OSError, EOFError) as error:
            detail = " ".join(str(error).split()).rstrip(".")
            if re.search("utf-?8|decode|codec", detail, re.IGNORECASE):
                detail += f" (the file is not {self._options.encoding}; give its encoding)"
            if "straddl" in detail:
                num_bytes = self._source.local_path(self.path).stat().st_size
                detail = _TOO_LONG if num_bytes > BLOCK_BYTES else "it has one line, so no rows"
            raise InputError(
                f"Failed to read {self.path!r} in {self._source.uri!r}: {detail}."
            ) from error

    @abstractmethod
    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the file at `path`."""


class CsvTable(FileTable):
    """A CSV or TSV file."""

    types: Mapping[str, pa.DataType] = {}
    """Types of columns, where they are settled."""

    def settle_types(self, known: Mapping[str, pa.DataType]) -> Mapping[str, pa.DataType]:
        """Return types that all rows have, here and in the files whose types are known."""
        with self._errors():
            path = self._source.local_path(self.path)
            names, is_header = self._find_names(path)
            open_reader = partial(self._open_reader, path, names=names, is_header=is_header)
            return _settle_types(names, lambda types: open_reader(types=types), known=known)

    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        names, is_header = self._find_names(path)
        types = dict.fromkeys(names, pa.string()) if self._options.as_text else self.types
        with self._open_reader(
            path, names=names, is_header=is_header, types=types, handle_invalid=self._reject_row
        ) as reader:
            yield from reader

    @contextmanager
    def _open_reader(
        self,
        path: Path,
        *,
        names: Sequence[str],
        is_header: bool,
        types: Mapping[str, pa.DataType],
        handle_invalid: Callable[[Any], str] = lambda _: "skip",
    ) -> Iterator[pa.RecordBatchReader]:
        from pyarrow import csv

        options = self._options
        # NB: given a path, Arrow reads 32 blocks ahead; given a file, it keeps one or two.
        with path.open("rb") as file:
            reader = csv.open_csv(
                file,
                read_options=csv.ReadOptions(
                    block_size=BLOCK_BYTES,
                    encoding=options.encoding,
                    column_names=names,
                    skip_rows_after_names=int(is_header),
                    use_threads=False,
                ),
                parse_options=csv.ParseOptions(
                    delimiter=self._delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=handle_invalid,
                ),
                convert_options=csv.ConvertOptions(
                    column_types=types, strings_can_be_null=not options.as_text
                ),
            )
            with reader:
                yield reader

    @property
    def _delimiter(self) -> str:
        is_tabbed = self.path.lower().endswith(".tsv")
        return self._options.delimiter or ("\t" if is_tabbed else ",")

    def _reject_row(self, row: Any) -> str:  # Any: pyarrow.csv.InvalidRow has no types
        self._log.num_seen += 1
        place = f"{self.path}, row {row.number}" if row.number else self.path
        self._log.reject(place, f"{row.actual_columns} columns, not {row.expected_columns}")
        return "skip"

    def _find_names(self, path: Path) -> tuple[list[str], bool]:
        import csv
        from itertools import islice

        csv.field_size_limit(_LONGEST_FIELD)  # NB: for the process; Python's own is 128 KiB
        with path.open(encoding=_without_mark(self._options.encoding), newline="") as file:
            try:
                rows = list(islice(csv.reader(file, delimiter=self._delimiter), 1000))
            except csv.Error as error:
                detail = _TOO_LONG if "field larger" in str(error) else str(error)
                raise InputError(
                    f"Failed to read {self.path!r} in {self._source.uri!r}: {detail}."
                ) from error
        if not rows or not rows[0]:
            raise InputError(f"The file {self.path!r} in {self._source.uri!r} has no columns.")
        other = next((mark for mark in ";\t|" if mark in rows[0][0]), "")
        if other and len(rows[0]) == 1 and not self._options.delimiter:
            raise InputError(
                f"The file {self.path!r} in {self._source.uri!r} has one column, {rows[0][0]!r};"
                f" give its delimiter, which may be {other!r}."
            )
        wanted = self._options.header
        is_header = has_header(rows) if wanted == "auto" else wanted == "yes"
        if not is_header:
            names = [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
            if wanted == "auto":
                self._log.note(
                    f"{self.path} seems to have no header: its first row looks like the others."
                )
            return names, False
        names = [name.strip() for name in rows[0]]
        if len(set(names)) < len(names) or not all(names):
            raise InputError(
                f"The file {self.path!r} in {self._source.uri!r} has columns {names!r}; names must"
                " be given and different (header=no if the first row holds data)."
            )
        return names, True


def _settle_types(
    names: Sequence[str],
    open_reader: Callable[[Mapping[str, pa.DataType]], AbstractContextManager[Any]],
    *,
    known: Mapping[str, pa.DataType],
) -> dict[str, pa.DataType]:
    """Find types that all rows of a file have: Arrow by itself looks at its first block alone.

    Raises:
        ArrowInvalid: The file is no CSV.
    """
    import pyarrow as pa

    types, first = dict(known), pa.schema([])
    while True:
        try:
            with open_reader(types) as reader:
                first = reader.schema
                for _ in reader:
                    pass
        except pa.ArrowInvalid as error:
            found = re.search(r"column #(\d+): .*conversion error to (?!string)", str(error))
            if found is None:
                raise
            name = names[int(found[1])]
            kind = types[name] if name in types else first.field(name).type
            if pa.types.is_null(kind):
                types[name] = pa.int64()
            else:
                types[name] = pa.float64() if pa.types.is_integer(kind) else pa.string()
        else:
            # NB: Arrow takes what is no UTF-8 for bytes; as texts it is refused.
            found_types = (pa.string() if pa.types.is_binary(t) else t for t in first.types)
            return types | dict(zip(first.names, found_types, strict=True))


def _without_mark(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding


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
        with path.open(encoding=_without_mark(self._options.encoding)) as file:
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
    return _FORMATS.get(posixpath.splitext(file.path)[1].lower())
