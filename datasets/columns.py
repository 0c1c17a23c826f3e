"""Which column of a table is what.

A name that the user gives decides; else a name that is common for the purpose; else the look of the
first rows. What was guessed is said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.sources.base import Source
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_NAMES = ("text", "sentence", "utterance", "content", "review", "message", "query", "document",
              "body", "comment", "question", "title")  # fmt: skip
LABEL_NAMES = ("label", "labels", "intent", "class", "category", "target", "sentiment", "emotion",
               "topic", "y")  # fmt: skip
SPLIT_NAMES = ("split", "subset", "partition")
PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
_KNOWN = frozenset((*TEXT_NAMES, *LABEL_NAMES, *SPLIT_NAMES, *PATH_NAMES, "id", "index"))
_LONGEST_NAME = 64


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first of the rows names columns."""
    first = [cell.strip().lower() for cell in rows[0]]
    if any(cell in _KNOWN for cell in first):
        return True
    if not all(first) or len(set(first)) < len(first):
        return False
    if any(len(cell) > _LONGEST_NAME or _is_number(cell) for cell in first):
        return False
    return not any(
        cell.strip().lower() == first[place]
        for row in rows[1:]
        for place, cell in enumerate(row[: len(first)])
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def choose_column(
    batch: pa.RecordBatch, *, wanted: str, role: str, known: Sequence[str]
) -> str | None:
    """Return the column that the user named, else one with a common name.

    Raises:
        InputError: There is none of the name that the user gave.
    """
    names = batch.schema.names
    if wanted:
        if wanted not in names:
            raise InputError(
                f"There is no {role} column {wanted!r}; the columns are {', '.join(names)}."
            )
        return wanted
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in known if name in by_lower), None)


def choose_split(batch: pa.RecordBatch, *, wanted: str, source: Source) -> str | None:
    """Return the column that names the splits of rows, if the source has one."""
    if not source.declares_splits:
        return None
    return choose_column(batch, wanted=wanted, role="split", known=SPLIT_NAMES)


def guess_text(batch: pa.RecordBatch, *, taken: Collection[str | None], log: ScanLog) -> str:
    """Return the text column by its look: the one with the longest texts."""
    import pyarrow.compute as pc

    lengths = {
        name: pc.mean(pc.utf8_length(batch.column(name))).as_py() or 0
        for name in batch.schema.names
        if name not in taken and _is_text(batch.schema.field(name).type)
    }
    if not lengths:
        raise InputError(
            f"No text column among {', '.join(batch.schema.names)}; name it with text_column."
        )
    chosen = str(max(lengths, key=lambda name: lengths[name]))
    log.note(f"Text column: {chosen!r}, guessed as the one with the longest texts.")
    return chosen


def guess_label(batch: pa.RecordBatch, *, taken: Collection[str | None], log: ScanLog) -> str:
    """Return the label column by its look: the one whose values repeat most."""
    import pyarrow as pa

    candidates = [
        name
        for name in batch.schema.names
        if name not in taken
        and (
            _is_text(batch.schema.field(name).type)
            or pa.types.is_integer(batch.schema.field(name).type)
            or pa.types.is_boolean(batch.schema.field(name).type)
        )
    ]
    distinct = {name: len(batch.column(name).unique()) for name in candidates}
    repeated = {name: count for name, count in distinct.items() if count <= batch.num_rows / 2}
    if not repeated:
        raise InputError(
            f"No label column among {', '.join(batch.schema.names)}: none repeats its values; name"
            " it with label_column."
        )
    chosen = str(min(repeated, key=lambda name: repeated[name]))
    log.note(f"Label column: {chosen!r}, guessed as the one whose values repeat most.")
    return chosen


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


class RowTypes:
    """Gives batches of rows that were inferred one by one the types of the first.

    NB: Arrow is not asked to read Python objects as a type, for it cuts fractions off silently.
    """

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None
        self._empty: frozenset[int] = frozenset()

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with these types; a column that began empty holds texts.

        Raises:
            ArrowInvalid: Its values are of other types.
        """
        import pyarrow as pa

        if self._schema is None:
            self._schema = settle_nulls(batch.schema)
            nulls = (pa.types.is_null(kind) for kind in batch.schema.types)
            self._empty = frozenset(place for place, is_null in enumerate(nulls) if is_null)
        fields = zip(batch.columns, self._schema, strict=True)
        columns = [
            self._cast(column, field, is_loose=place in self._empty)
            for place, (column, field) in enumerate(fields)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _cast(self, column: pa.Array, field: pa.Field, *, is_loose: bool) -> pa.Array:
        import pyarrow as pa

        is_same = (
            column.type == field.type
            or pa.types.is_null(column.type)
            or (_is_numeric(column.type) and _is_numeric(field.type))
            or (pa.types.is_nested(column.type) and pa.types.is_nested(field.type))
        )
        if not (is_same or is_loose):
            raise pa.ArrowInvalid(f"column {field.name!r} holds {column.type}, not {field.type}")
        return column.cast(field.type)


def _is_numeric(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def settle_nulls(schema: pa.Schema) -> pa.Schema:
    """Take a column of nothing but nulls for text."""
    import pyarrow as pa

    fields = [
        pa.field(field.name, pa.string() if pa.types.is_null(field.type) else field.type)
        for field in schema
    ]
    return pa.schema(fields)
