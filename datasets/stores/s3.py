"""A bucket of an S3 service as an object store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kubeloop.datasets.stores.base import STORES, ObjectStore, check_key
from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.optional_imports import import_from_extra

if TYPE_CHECKING:
    from minio import Minio


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


STORES.register("s3", S3Store.from_uri)
STORES.register("minio", S3Store.from_uri)
