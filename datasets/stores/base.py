"""Object stores: where commits, checkpoints and model packages live.

One small interface over a folder and over S3. Objects are written whole or not at all, so that a
reader never sees half of one; whoever writes several objects that belong together writes the one
that names the others last. Listing is in key order. `open_store(uri)` picks the implementation by
the URI's scheme; on the laptop URIs are plain absolute paths.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from kubeloop.errors import InputError
from kubeloop.registry import Registry

OBJECT_STORE_SECRET = "kubeloop-object-store"  # noqa: S105 - a Secret's name, not its content
"""Secret whose keys are the variables below; `manifests/` has a template."""
OBJECT_STORE_VARIABLES = (
    "S3_ENDPOINT",
    "S3_USE_HTTPS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
)


class ObjectStore(ABC):
    """Immutable bytes under keys below one root URI.

    A key is a relative path of plain names joined by '/'. Every write is atomic: other readers see
    the object before or after it, never part of it, and a writer that dies leaves nothing under the
    key. Writing a key again replaces it; deleting a missing key does nothing. Implementations
    translate their client's exceptions: a missing object is an `InputError`, a store that may
    answer later a `TransientError`, everything else a `PermanentError`.
    """

    uri: str
    """Root of the store, without a trailing '/'."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return an object's bytes."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write an object."""

    @abstractmethod
    def upload(self, key: str, path: Path) -> None:
        """Write an object from a local file."""

    def adopt(self, key: str, path: Path) -> None:
        """Write an object from a local file in `staging_folder()`, and remove the file."""
        self.upload(key, path)
        path.unlink()

    def staging_folder(self) -> Path:
        """Return where to write files that `adopt` takes; they are named `.staging-…`."""
        return Path(tempfile.gettempdir())

    def remove_stale_staging(self, *, older_than_seconds: float = 86_400.0) -> None:  # noqa: B027
        """Remove staged files that writers which died left; stores without any do nothing."""

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether the object is there."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a folder prefix ('' for all), sorted."""

    @abstractmethod
    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders right below a folder prefix, sorted."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Return an object's size in bytes."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object."""

    def clear(self) -> None:
        """Remove all objects."""
        for key in list(self.list()):
            self.delete(key)

    def uri_of(self, key: str) -> str:
        """Return the URI of an object."""
        return f"{self.uri}/{check_key(key)}"


def check_key(key: str) -> str:
    """Return the key, or refuse one that could leave the store's root.

    Raises:
        InputError: The key is empty, absolute, or has an empty, '.' or '..' part.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in key or "\0" in key:
        raise InputError(f"Object key {key!r} must be plain names joined by '/'.")
    return key


STORES: Registry[Callable[[str], ObjectStore]] = Registry("object store scheme")
"""URI scheme → function that opens a store at a URI."""


def open_store(uri: str) -> ObjectStore:
    """Open the store that a URI points at.

    Args:
        uri: An absolute path, `file:///…`, `s3://bucket/prefix` or `minio://bucket/prefix`.

    Raises:
        InputError: The scheme is unknown or the URI is malformed.
    """
    try:
        scheme = urlsplit(uri).scheme
    except ValueError as error:
        raise InputError(f"The object store {uri!r} is no URI: {error}.") from error
    return STORES[scheme](uri.rstrip("/") or uri)


def open_object(uri: str) -> tuple[ObjectStore, str]:
    """Split an object's URI into its store and its key there."""
    folder, _, name = uri.rstrip("/").rpartition("/")
    return open_store(folder or "/"), name
