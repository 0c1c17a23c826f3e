"""Rows of CSV files, whose names and types nobody declares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.columns import has_header
from kubeloop.datasets.table_files import BLOCK_BYTES, TOO_LONG, FileTable, without_mark
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST_FIELD = 4 << 20


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
        with path.open(encoding=without_mark(self._options.encoding), newline="") as file:
            try:
                rows = list(islice(csv.reader(file, delimiter=self._delimiter), 1000))
            except csv.Error as error:
                detail = TOO_LONG if "field larger" in str(error) else str(error)
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


def settle_all(tables: Sequence[CsvTable]) -> None:
    """Give CSV files the types that the rows of all of them have."""
    types: Mapping[str, pa.DataType] = {}
    for table in tables:
        types = table.settle_types(types)
    for table in tables:
        table.types = types


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
