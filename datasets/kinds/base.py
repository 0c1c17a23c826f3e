"""The plug point for kinds of datasets."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.images import DEFAULT_MAX_PIXELS
from kubeloop.datasets.shards.base import SCAN_COLUMNS, ShardFormat
from kubeloop.datasets.sources.base import Source
from kubeloop.datasets.statistics import Statistics
from kubeloop.errors import InputError
from kubeloop.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_SAMPLE_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """How a kind reads a source."""

    text_column: str = ""
    """Column with the texts; empty: by a common name, else guessed and said."""
    label_column: str = ""
    """Column with the labels; empty: by a common name, else guessed and said."""
    split_column: str = ""
    """Column that names the split of a row; empty: a column named split."""
    path_column: str = ""
    """Column of an image manifest with the files' paths; empty: by a common name."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    header: str = "auto"
    """Whether CSV files begin with column names: auto, yes or no."""
    delimiter: str = ""
    """Delimiter of CSV files; empty: a tab in .tsv files, else a comma."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Images with more pixels count as unreadable."""
    decode_images: bool = False
    """Decode every image while ingesting. By default its structure is checked: header, size,
    checksums where the format has some, and that it ends."""

    def __post_init__(self) -> None:
        """Refuse what would fail later."""
        if self.max_pixels < 1:
            raise InputError(f"max_pixels must be positive, not {self.max_pixels!r}.")
        if self.header not in ("auto", "yes", "no"):
            raise InputError(f"header must be auto, yes or no, not {self.header!r}.")
        if len(self.delimiter) > 1:
            raise InputError(f"delimiter must be one character, not {self.delimiter!r}.")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise InputError(f"Unknown encoding {self.encoding!r}.") from error

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> ScanOptions:
        """Read options by name, with values as they come from JSON or a command line.

        Raises:
            InputError: One is unknown, or its value is of another type.
        """
        known = {field.name: type(field.default) for field in fields(cls)}
        if unknown := sorted(options.keys() - known.keys()):
            raise InputError(f"Unknown option {unknown[0]!r}; there are: {', '.join(known)}.")
        return cls(**{name: _convert(name, options[name], known[name]) for name in options})


def _convert(name: str, value: object, wanted: type) -> Any:  # Any: of the wanted type
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if wanted is str and isinstance(value, (str, int)):
        return text  # a column may be named by a number
    if wanted is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if wanted is int and text.isascii() and text.isdigit():
        return int(text)
    accepted = {str: "text", bool: "true or false", int: "a whole number"}[wanted]
    raise InputError(f"Option {name!r} must be {accepted}, not {value!r}.")


class DatasetKind(ABC):
    """How a source becomes labelled examples.

    A kind is stateless and deterministic: the same source gives the same rows, in the same order,
    and the same statistics on any machine. It reads the source in batches and keeps none of them.
    `name` is what users write and what a commit's manifest records.
    """

    name: str
    shard_format: ShardFormat
    """TAR for examples that are files, PARQUET for rows of a table."""
    described_columns: frozenset[str] = frozenset()
    """Scanned columns that describe an example that is a file, and are not stored beside it."""
    is_labelled: bool = True
    """Whether every example has a label."""

    @abstractmethod
    def scan(
        self, source: Source, *, options: ScanOptions, log: ScanLog
    ) -> Iterator[pa.RecordBatch]:
        """Yield the source's examples, with the columns of `shards.base` added.

        Examples that cannot be read are left out and noted in `log`; a kind of files gives the
        columns `path` and `extension`, and `version` as the source has it. All batches have one
        schema. The digests of examples are the same when they are scanned as rows of a shard.

        Raises:
            InputError: The source does not have the shape of this kind. A part of a source may
                have no examples.
        """

    @abstractmethod
    def describe(self, rows: pa.RecordBatch, statistics: Statistics) -> None:
        """Add the features of scanned rows to the statistics."""

    @abstractmethod
    def describe_schema(self, schema: pa.Schema) -> dict[str, str]:
        """Name the features of an example and their types, for scanned rows of a schema."""

    def read_example(self, source: Source, row: Mapping[str, Any]) -> bytes:
        """Return the encoded example of a scanned row, for kinds of files."""
        return source.read(row["path"], version=row["version"])

    def describe_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write a scanned row for the sample in a manifest."""
        return {
            name: _describe_value(value)
            for name, value in row.items()
            if name not in (*SCAN_COLUMNS, "version", "extension")
        }


def _describe_value(value: object) -> Any:  # Any: JSON
    if isinstance(value, str):
        return value[:_MAX_SAMPLE_CHARACTERS]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # Dates, decimals and bytes are nothing that JSON knows, nor is what contains them.
    described = json.dumps(value, default=str, sort_keys=True)
    if len(described) > _MAX_SAMPLE_CHARACTERS:
        return described[:_MAX_SAMPLE_CHARACTERS]
    return json.loads(described)


KINDS: Registry[DatasetKind] = Registry("dataset kind")
