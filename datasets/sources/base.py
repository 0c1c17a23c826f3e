"""The plug point for sources of raw data."""

from __future__ import annotations

import hashlib
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kubeloop.errors import InputError
from kubeloop.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of a source."""

    path: str
    """Path relative to the source, parts joined by '/'."""
    num_bytes: int
    """Size when it was listed."""
    version: str
    """Changes whenever the file may have: times and inode, or a remote entity tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimits:
    """What a source may ask of this machine."""

    max_bytes: int = 1 << 40
    """Bytes that are downloaded or unpacked from one source."""
    max_files: int = 10_000_000
    """Files of one source."""
    max_ratio: int = 200
    """Unpacked bytes for each byte of an archive, beyond the first 16 MiB; a bomb has thousands."""
    timeout_seconds: float = 60.0
    """Longest silence of a remote source."""
    num_retries: int = 5
    """Attempts to go on after a remote source broke off."""

    def __post_init__(self) -> None:
        """Refuse limits that allow nothing."""
        numbers = (self.max_bytes, self.max_files, self.max_ratio, self.timeout_seconds)
        if min(numbers) <= 0 or self.num_retries < 0:
            raise InputError("The limits of a source must be positive.")


def extension_of(path: str) -> str:
    """Return a path's extension in lower case, with the dot; faster than `pathlib`."""
    return posixpath.splitext(path)[1].lower()


class Source(ABC):
    """Read-only raw data: files below one URI, or rows.

    `list_files` yields every file that is not hidden (no part of its path starts with '.'), in an
    order that is the same on any machine. All methods raise `InputError` for what the user has to
    put right: a missing or unreadable place, a link that leaves the source, a file that changed. A
    source is a context manager that removes what it kept on this machine.
    """

    uri: str
    """What the user gave, absolute and without passwords; recorded as the origin of a commit."""
    has_rows: bool = False
    """Whether there are rows and no files."""
    declares_splits: bool = True
    """Whether a column may name the splits of rows; not where they were dealt out already."""
    is_part: bool = False
    """Whether this is a part of a larger source; it may be one without examples."""

    @abstractmethod
    def list_files(self) -> Iterator[SourceFile]:
        """Yield the files; none where the source has rows."""

    def list_all_files(self) -> Iterator[SourceFile]:
        """Yield the files that tell the shape of the source, also where this is one part of it."""
        return self.list_files()

    @abstractmethod
    def read(self, path: str, *, version: str = "") -> bytes:
        """Return the bytes of a listed file.

        Args:
            path: Its path.
            version: Refuse the file if its version is not this one.
        """

    @abstractmethod
    def local_path(self, path: str) -> Path:
        """Return where a listed file lies on this machine, fetching it if need be."""

    def read_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a source that has no files."""
        raise InputError(f"The source {self.uri!r} has files, not rows.")

    def fingerprint(self) -> str:
        """Return a digest that changes when the source does; empty where that cannot be told."""
        combined = hashlib.sha256(self.uri.encode())
        for file in self.list_files():
            combined.update(f"\n{file.path}\0{file.version}".encode(errors="surrogateescape"))
        return combined.hexdigest()

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """Remove what was kept on this machine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def refuse_changed(uri: str, path: str) -> InputError:
    """Return the error for a file that changed while it was ingested."""
    return InputError(
        f"Source file {path!r} in {uri!r} changed while it was ingested; ingest again when nothing"
        " writes to the source."
    )


OpenSource = Callable[[str, SourceLimits], Source]
SOURCES: Registry[OpenSource] = Registry("source scheme")
"""URI scheme → function that opens a source."""
