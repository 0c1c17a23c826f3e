"""Rows with named columns in files: what the forms of such files have in common.

What Arrow's readers say of bad data is translated here.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.sources.base import Source, SourceFile
from kubeloop.datasets.splits import TEST, TRAIN, VALIDATION
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 << 20
TOO_LONG = "a row is longer than 4 MiB, or a quote is not closed"
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
                detail = TOO_LONG if num_bytes > BLOCK_BYTES else "it has one line, so no rows"
            raise InputError(
                f"Failed to read {self.path!r} in {self._source.uri!r}: {detail}."
            ) from error

    @abstractmethod
    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the file at `path`."""


def without_mark(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding
