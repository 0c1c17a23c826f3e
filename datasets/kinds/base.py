"""The plug point for kinds of datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.images import DEFAULT_MAX_PIXELS
from kubeloop.datasets.shards.base import ShardFormat
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
        """Read options by name.

        Raises:
            InputError: One is unknown.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(options.keys() - set(known)):
            raise InputError(f"Unknown option {unknown[0]!r}; there are: {', '.join(known)}.")
        return cls(**options)


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
        schema.

        Raises:
            InputError: The source does not have the shape of this kind.
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
            name: value[:_MAX_SAMPLE_CHARACTERS] if isinstance(value, str) else value
            for name, value in row.items()
            if not name.startswith("_") and name not in ("version", "extension")
        }


KINDS: Registry[DatasetKind] = Registry("dataset kind")
