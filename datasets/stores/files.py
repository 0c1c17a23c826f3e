"""A folder as an object store."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubeloop.datasets.stores.base import STORES, ObjectStore, check_key
from kubeloop.errors import InputError, PermanentError

_STAGING = ".staging-"


class FileStore(ObjectStore):
    """A folder; an object is a file, written beside its place and renamed into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root).rstrip("/")

    @classmethod
    def from_uri(cls, uri: str) -> FileStore:
        """Open a plain absolute path or a `file://` URI."""
        parts = urlsplit(uri)
        path = Path(unquote(parts.path) if parts.scheme == "file" else uri)
        if parts.netloc not in ("", "localhost") or not path.is_absolute():
            raise InputError(f"{uri!r} must be an absolute path or file:///absolute/path.")
        return cls(path)

    def path_of(self, key: str) -> Path:
        """Return where an object lies."""
        return self.root / check_key(key)

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        with _file_errors("read", self.uri_of(key)):
            return self.path_of(key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Write an object."""
        with _file_errors("write", self.uri_of(key)):
            _replace_file(self.path_of(key), lambda staging: _write_durably(staging, data))

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a local file."""
        with _file_errors("write", self.uri_of(key)):
            _replace_file(self.path_of(key), lambda staging: _copy(path, staging))

    def adopt(self, key: str, path: Path) -> None:
        """Move a file from `staging_folder()` to its place."""
        target = self.path_of(key)
        with _file_errors("write", self.uri_of(key)):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(0o644)
            path.replace(target)

    def staging_folder(self) -> Path:
        """Return the root, from where files can be moved into place."""
        with _file_errors("write", self.uri):
            self.root.mkdir(parents=True, exist_ok=True)
        return self.root

    def remove_stale_staging(self, *, older_than_seconds: float = 86_400.0) -> None:
        """Remove staged files that writers which died left."""
        for path in self.root.rglob(f"{_STAGING}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_seconds:
                    path.unlink()

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file."""
        with _file_errors("read", self.uri_of(key)):
            _copy(self.path_of(key), path)

    def exists(self, key: str) -> bool:
        """Tell whether the object is there."""
        with _file_errors("look up", self.uri_of(key)):
            return self.path_of(key).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a folder prefix, sorted."""
        folder = self.path_of(prefix) if prefix else self.root
        with _file_errors("list", str(folder)):
            keys = sorted(
                Path(parent, name).relative_to(self.root).as_posix()
                for parent, _, names in os.walk(folder, onerror=_refuse_unlisted)
                for name in names
                if not name.startswith(_STAGING)
            )
        yield from keys

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders right below a folder prefix, sorted."""
        folder = self.path_of(prefix) if prefix else self.root
        with _file_errors("list", str(folder)):
            names = (
                sorted(path.name for path in folder.iterdir() if path.is_dir())
                if folder.is_dir()
                else []
            )
        yield from names

    def size(self, key: str) -> int:
        """Return an object's size in bytes."""
        with _file_errors("look up", self.uri_of(key)):
            return self.path_of(key).stat().st_size

    def delete(self, key: str) -> None:
        """Remove an object."""
        with _file_errors("delete", self.uri_of(key)):
            self.path_of(key).unlink(missing_ok=True)


def _refuse_unlisted(error: OSError) -> None:
    # NB: without this, a folder that cannot be read looks empty, and what it names like garbage.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _replace_file(path: Path, fill: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_STAGING, dir=path.parent)
    os.close(handle)
    staging = Path(name)
    try:
        fill(staging)
        staging.chmod(0o644)
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(1 << 20):
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())


@contextlib.contextmanager
def _file_errors(verb: str, uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"Failed to {verb} object {uri}: there is none; check the URI.") from error
    except NotADirectoryError as error:
        raise InputError(
            f"Failed to {verb} object {uri}: a file lies where a folder must be; check the URI."
        ) from error
    except OSError as error:
        raise PermanentError(f"Failed to {verb} object {uri}: {error.strerror}.") from error


STORES.register("", FileStore.from_uri)
STORES.register("file", FileStore.from_uri)
