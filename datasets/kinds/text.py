"""Text classification from tables: a column of texts and one of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubeloop.datasets.columns import (
    LABEL_NAMES,
    TEXT_NAMES,
    choose_column,
    choose_split,
    guess_label,
    guess_text,
)
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.kinds.base import DatasetKind, ScanOptions
from kubeloop.datasets.kinds.rows import add_scan_columns, label_texts, read_tables
from kubeloop.datasets.shards.base import SCAN_COLUMNS, ShardFormat
from kubeloop.datasets.sources.base import Source
from kubeloop.datasets.statistics import Statistics
from kubeloop.datasets.table_files import TableOptions
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


class TextClassification(DatasetKind):
    """CSV, JSON Lines, Parquet or Arrow files with a text and a label in each row.

    Other columns are kept beside them. Two rows with one text are the same example.
    """

    name = "text_classification"
    shard_format = ShardFormat.PARQUET

    def scan(
        self, source: Source, *, options: ScanOptions, log: ScanLog
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows with `text` and `label` first, then the other columns."""
        import pyarrow as pa

        table_options = TableOptions(
            as_text=True,
            encoding=options.encoding,
            header=options.header,
            delimiter=options.delimiter,
        )
        text_name = label_name = split_name = None
        for table, rows in read_tables(source, options=table_options, log=log):
            if text_name is None or label_name is None:
                split_name = choose_split(rows, wanted=options.split_column, source=source)
                text_name, label_name = _choose(rows, split=split_name, options=options, log=log)
            texts = _as_texts(rows.column(text_name), text_name)
            labels = label_texts(rows, label_name)
            others = [n for n in rows.schema.names if n not in (text_name, label_name, split_name)]
            batch = pa.RecordBatch.from_arrays(
                [texts, labels, *(rows.column(name) for name in others)],
                names=[
                    "text",
                    "label",
                    *(f"original_{name}" if name in ("text", "label") else name for name in others),
                ],
            )
            values = [text or "" for text in texts.to_pylist()]
            encoded = [value.encode() for value in values]
            log.num_seen += len(values)
            yield add_scan_columns(
                batch,
                digests=[hashlib.sha256(data).digest() for data in encoded],
                sizes=[
                    len(data) + len(label)
                    for data, label in zip(encoded, labels.to_pylist(), strict=True)
                ],
                labels=labels,
                splits=rows.column(split_name) if split_name else None,
                split=table.split,
            )

    def describe(self, rows: pa.RecordBatch, statistics: Statistics) -> None:
        """Measure the texts, and count the values of the other columns."""
        import pyarrow.compute as pc

        texts = rows.column("text")
        statistics.add_numbers("characters", pc.utf8_length(texts).to_pylist())
        statistics.add_numbers("words", [len(text.split()) for text in texts.to_pylist()])
        for name in rows.schema.names:
            if name not in ("text", "label", *SCAN_COLUMNS):
                statistics.add_categories(name, rows.column(name).to_pylist())

    def describe_schema(self, schema: pa.Schema) -> dict[str, str]:
        """Name the features."""
        others = [name for name in schema.names if name not in ("text", "label", *SCAN_COLUMNS)]
        return {"text": "text", "label": "class index"} | {
            name: str(schema.field(name).type) for name in others
        }


def _choose(
    rows: pa.RecordBatch, *, split: str | None, options: ScanOptions, log: ScanLog
) -> tuple[str, str]:
    label = choose_column(rows, wanted=options.label_column, role="label", known=LABEL_NAMES)
    text = choose_column(rows, wanted=options.text_column, role="text", known=TEXT_NAMES)
    text = text or guess_text(rows, taken=(split, label), log=log)
    label = label or guess_label(rows, taken=(split, text), log=log)
    if text == label:
        raise InputError(f"Column {text!r} cannot be both the text and the label; name them.")
    return text, label


def _as_texts(column: pa.Array, name: str) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(f"The text column {name!r} holds {column.type}, not text; name another.")
    return column.cast(pa.string()).fill_null("")
