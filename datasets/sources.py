"""Where raw data comes from.

A source lists its files and gives their bytes; what the files mean is a kind's business. Sources
are chosen by the scheme of their URI. Listing skips hidden files, never follows a link out of the
source, and is sorted, so that everything computed from it is the same on any machine.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubeloop.errors import InputError
from kubeloop.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of a source."""

    path: str
    """Path relative to the source, parts joined by '/'."""
    num_bytes: int
    """Size when it was listed."""


class Source(ABC):
    """Read-only raw data.

    `list_files` returns every file that is not hidden (no part of its path starts with '.'), sorted
    by path; `read` returns one's bytes. Both raise `InputError` for what the user has to put right:
    a missing or unreadable place, a link that leaves the source.
    """

    uri: str
    """What the user gave, absolute; recorded as the origin of a commit."""

    @abstractmethod
    def list_files(self) -> Sequence[SourceFile]:
        """List the files."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the bytes of a listed file."""


class LocalFolder(Source):
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        if not root.exists():
            hint = "check the path" if root.is_absolute() else "give its absolute path"
            raise InputError(f"The source folder {str(root)!r} does not exist; {hint}.")
        if not root.is_dir():
            raise InputError(f"The source {str(root)!r} is a file; a folder is needed.")
        self._root = root.resolve()
        self.uri = str(self._root)

    @classmethod
    def from_uri(cls, uri: str) -> LocalFolder:
        """Open a path (absolute, relative or with `~`) or a `file://` URI."""
        parts = urlsplit(uri)
        path = unquote(parts.path) if parts.scheme == "file" else uri
        if not path:
            raise InputError("The source folder's path is empty; name a folder.")
        return cls(Path(path).expanduser())

    def list_files(self) -> Sequence[SourceFile]:
        """List the files."""
        files: list[SourceFile] = []
        for parent, folders, names in os.walk(self._root, onerror=_refuse_unreadable):
            visible = [name for name in folders if not name.startswith(".")]
            for name in visible:
                self._check_folder(Path(parent, name))
            folders[:] = visible
            files += [
                self._describe(Path(parent, name)) for name in names if not name.startswith(".")
            ]
        return sorted(files, key=lambda file: file.path)

    def _describe(self, path: Path) -> SourceFile:
        self._check_inside(path)
        relative = path.relative_to(self._root).as_posix()
        if not path.is_file():
            raise InputError(f"{str(path)!r} in the source is not a regular file; remove it.")
        return SourceFile(path=relative, num_bytes=path.stat().st_size)

    def _check_folder(self, path: Path) -> None:
        self._check_inside(path)
        if path.is_symlink():
            raise InputError(
                f"{str(path)!r} in the source is a link to a folder, which is not followed;"
                " replace it by the folder itself or remove it."
            )

    def _check_inside(self, path: Path) -> None:
        if path.is_symlink() and not path.resolve().is_relative_to(self._root):
            raise InputError(
                f"{str(path)!r} in the source is a link to {str(path.resolve())!r}, outside of it;"
                " replace it by the file itself."
            )

    def read(self, path: str) -> bytes:
        """Return the bytes of a listed file."""
        full = self._root / path
        self._check_inside(full)
        try:
            return full.read_bytes()
        except OSError as error:
            raise InputError(f"Failed to read source file {str(full)!r}: {error.strerror}.") from (
                error
            )


def _refuse_unreadable(error: OSError) -> None:
    raise InputError(f"Failed to list {error.filename!r} in the source: {error.strerror}.")


SOURCES: Registry[Callable[[str], Source]] = Registry("source scheme")
"""URI scheme → function that opens a source."""
SOURCES.register("", LocalFolder.from_uri)
SOURCES.register("file", LocalFolder.from_uri)


def open_source(uri: str) -> Source:
    """Open raw data by its URI.

    Raises:
        InputError: The scheme is unknown, or there is nothing to read.
    """
    return SOURCES[urlsplit(uri).scheme](uri)
