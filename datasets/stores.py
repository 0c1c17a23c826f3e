"""Object stores: where commits, checkpoints and model packages live.

One small interface over a folder and over S3. Objects are written whole or not at all, so that a
reader never sees half of one; whoever writes several objects that belong together writes the one
that names the others last. Listing is in key order. `open_store(uri)` picks the implementation by
the URI's scheme; on the laptop URIs are plain absolute paths.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.optional_imports import import_from_extra
from kubeloop.registry import Registry

if TYPE_CHECKING:
    from minio import Minio

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
    def delete(self, key: str) -> None:
        """Remove an object."""

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

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file."""
        with _file_errors("read", self.uri_of(key)):
            _copy(self.path_of(key), path)

    def exists(self, key: str) -> bool:
        """Tell whether the object is there."""
        return self.path_of(key).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a folder prefix, sorted."""
        folder = self.path_of(prefix) if prefix else self.root
        keys = (
            Path(parent, name).relative_to(self.root).as_posix()
            for parent, _, names in os.walk(folder)
            for name in names
            if not name.startswith(_STAGING)
        )
        yield from sorted(keys)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with _file_errors("delete", self.uri_of(key)):
            self.path_of(key).unlink(missing_ok=True)


_STAGING = ".staging-"


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
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"Failed to {verb} object {uri}: there is none; check the URI.") from error
    except OSError as error:
        raise PermanentError(f"Failed to {verb} object {uri}: {error.strerror}.") from error


class S3Store(ObjectStore):
    """A prefix of an S3 bucket, through the minio client; PUT is atomic in S3."""

    def __init__(self, client: Minio, *, bucket: str, prefix: str = "", scheme: str = "s3") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self.uri = "/".join(part for part in (f"{scheme}://{bucket}", self._prefix) if part)

    @classmethod
    def from_uri(cls, uri: str) -> S3Store:
        """Open `s3://bucket/prefix` with the credentials and endpoint of the environment."""
        parts = urlsplit(uri)
        if not parts.netloc:
            raise InputError(f"{uri!r} names no bucket; write {parts.scheme}://BUCKET/PREFIX.")
        client = connect_s3(os.environ)
        return cls(client, bucket=parts.netloc, prefix=unquote(parts.path), scheme=parts.scheme)

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        with _s3_errors("read", self.uri_of(key)):
            response = self._client.get_object(self._bucket, self._name(key))
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

    def write(self, key: str, data: bytes) -> None:
        """Write an object."""
        import io

        with _s3_errors("write", self.uri_of(key)):
            self._client.put_object(self._bucket, self._name(key), io.BytesIO(data), len(data))

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a local file."""
        with _s3_errors("write", self.uri_of(key)):
            self._client.fput_object(self._bucket, self._name(key), str(path))

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file."""
        with _s3_errors("read", self.uri_of(key)):
            self._client.fget_object(self._bucket, self._name(key), str(path))

    def exists(self, key: str) -> bool:
        """Tell whether the object is there."""
        from minio.error import S3Error

        with _s3_errors("look up", self.uri_of(key)):
            try:
                self._client.stat_object(self._bucket, self._name(key))
            except S3Error as error:
                if error.code in _S3_MISSING:
                    return False
                raise
            return True

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a folder prefix, sorted."""
        start = "/".join(part for part in (self._prefix, prefix) if part)
        with _s3_errors("list", f"{self.uri}/{prefix}"):
            objects = self._client.list_objects(
                self._bucket, prefix=f"{start}/" if start else "", recursive=True
            )
            skip = len(self._prefix) + 1 if self._prefix else 0
            yield from sorted(str(entry.object_name)[skip:] for entry in objects)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with _s3_errors("delete", self.uri_of(key)):
            self._client.remove_object(self._bucket, self._name(key))


_S3_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject"})
_S3_BUSY = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})


def connect_s3(environment: Mapping[str, str]) -> Minio:
    """Build the S3 client that S3_ENDPOINT, S3_USE_HTTPS and the AWS_… variables describe.

    Raises:
        MissingDependencyError: The extra `s3` is not installed.
    """
    with import_from_extra("s3", why="s3:// needs minio"):
        from minio import Minio
    endpoint = environment.get("S3_ENDPOINT") or "s3.amazonaws.com"
    secure = (environment.get("S3_USE_HTTPS") or "1").lower() not in ("0", "false", "no")
    if "://" in endpoint:
        parts = urlsplit(endpoint)
        endpoint, secure = parts.netloc, parts.scheme == "https"
    return Minio(
        endpoint,
        access_key=environment.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=environment.get("AWS_SECRET_ACCESS_KEY") or None,
        session_token=environment.get("AWS_SESSION_TOKEN"),
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
        secure=secure,
    )


@contextlib.contextmanager
def _s3_errors(verb: str, uri: str) -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        if error.code in _S3_MISSING:
            raise InputError(
                f"Failed to {verb} object {uri}: there is none; check the URI."
            ) from error
        kind = TransientError if error.code in _S3_BUSY else PermanentError
        raise kind(f"Failed to {verb} object {uri}: {error.code}: {error.message}") from error
    except (HTTPError, OSError) as error:
        raise TransientError(f"Failed to {verb} object {uri}: {error}") from error
    except MinioException as error:
        raise PermanentError(f"Failed to {verb} object {uri}: {error}") from error


STORES: Registry[Callable[[str], ObjectStore]] = Registry("object store scheme")
"""URI scheme → function that opens a store at a URI."""
STORES.register("", FileStore.from_uri)
STORES.register("file", FileStore.from_uri)
STORES.register("s3", S3Store.from_uri)
STORES.register("minio", S3Store.from_uri)


def open_store(uri: str) -> ObjectStore:
    """Open the store that a URI points at.

    Args:
        uri: An absolute path, `file:///…`, `s3://bucket/prefix` or `minio://bucket/prefix`.

    Raises:
        InputError: The scheme is unknown or the URI is malformed.
    """
    return STORES[urlsplit(uri).scheme](uri.rstrip("/") or uri)


def open_object(uri: str) -> tuple[ObjectStore, str]:
    """Split an object's URI into its store and its key there."""
    folder, _, name = uri.rstrip("/").rpartition("/")
    return open_store(folder or "/"), name
