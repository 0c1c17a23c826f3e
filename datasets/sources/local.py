"""Files of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubeloop.datasets.sources.base import (
    SOURCES,
    Source,
    SourceFile,
    SourceLimits,
    refuse_changed,
)
from kubeloop.errors import InputError


class LocalFiles(Source):
    """A folder, or one file, of this machine."""

    def __init__(self, root: Path, *, uri: str = "") -> None:
        try:
            mode = root.stat().st_mode
        except FileNotFoundError as error:
            hint = "check the path" if root.is_absolute() else "give its absolute path"
            raise InputError(f"The source {str(root)!r} does not exist; {hint}.") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"Failed to open the source {str(root)!r}: {reason}.") from error
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise InputError(f"The source {str(root)!r} is neither a folder nor a file.")
        root = root.resolve()
        self._root = root if stat.S_ISDIR(mode) else root.parent
        self._only = "" if stat.S_ISDIR(mode) else root.name
        self.uri = uri or str(root)

    def list_files(self) -> Iterator[SourceFile]:
        """Yield the files, each folder's entries by name."""
        if self._only:
            full = self._root / self._only
            try:
                status = full.stat()
            except OSError as error:
                raise InputError(
                    f"Failed to read source file {str(full)!r}: {error.strerror}."
                ) from error
            yield SourceFile(path=self._only, num_bytes=status.st_size, version=_version_of(status))
        else:
            yield from self._walk(str(self._root), "")

    def _walk(self, folder: str, prefix: str) -> Iterator[SourceFile]:
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(
                    (entry for entry in scanned if not entry.name.startswith(".")),
                    key=lambda entry: entry.name,
                )
            for entry in entries:
                path = prefix + entry.name
                if not _is_unicode(entry.name):
                    raise InputError(
                        f"The name of {os.fsencode(entry.path)!r} in the source is not UTF-8;"
                        " rename it."
                    )
                if entry.is_symlink():
                    self._check_link(path, is_folder=entry.is_dir())
                if entry.is_dir():
                    yield from self._walk(entry.path, f"{path}/")
                    continue
                status = entry.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise InputError(
                        f"{entry.path!r} in the source is not a regular file; remove it."
                    )
                yield SourceFile(path=path, num_bytes=status.st_size, version=_version_of(status))
        except OSError as error:
            raise InputError(
                f"Failed to list {error.filename or folder!r} in the source: {error.strerror}."
            ) from error

    def _check_link(self, path: str, *, is_folder: bool) -> None:
        full = self._root / path
        target = full.resolve()
        if not target.is_relative_to(self._root):
            raise InputError(
                f"{str(full)!r} in the source is a link to {str(target)!r}, outside of it;"
                " replace it by the file itself."
            )
        if is_folder:
            raise InputError(
                f"{str(full)!r} in the source is a link to a folder, which is not followed;"
                " replace it by the folder itself or remove it."
            )

    def read(self, path: str, *, version: str = "") -> bytes:
        """Return the bytes of a listed file."""
        full = f"{self._root}/{path}"
        try:
            handle = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if not Path(full).is_symlink():
                raise InputError(f"Failed to read source file {full!r}: {error.strerror}.") from (
                    error
                )
            self._check_link(path, is_folder=False)
            handle = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as file:
            status = os.fstat(handle)
            if version and _version_of(status) != version:
                raise refuse_changed(self.uri, path)
            return file.read()

    def local_path(self, path: str) -> Path:
        """Return where a listed file lies."""
        full = self._root / path
        if full.is_symlink():
            self._check_link(path, is_folder=False)
        return full


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _version_of(status: os.stat_result) -> str:
    # The time of the last change of the inode cannot be set, so that a file with its old size and
    # its old time of modification put back still counts as changed.
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def open_local(uri: str, limits: SourceLimits) -> Source:  # noqa: ARG001 - nothing to limit
    """Open a path (absolute, relative or with `~`) or a `file://` URI."""
    parts = urlsplit(uri)
    path = unquote(parts.path) if parts.scheme == "file" else uri
    if not path:
        raise InputError("The source's path is empty; name a folder or a file.")
    return LocalFiles(Path(path).expanduser())


SOURCES.register("", open_local)
SOURCES.register("file", open_local)
