"""A bucket of an S3 service as an object store.

The client sends a checksum with every request and part, which the service verifies; requests that
the service is too busy for, and connections that break, are tried again with growing pauses, also
in the middle of an object.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import ProtocolError

from kubeloop.datasets.stores.base import STORES, ObjectStore, check_key
from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.optional_imports import import_from_extra

if TYPE_CHECKING:
    from minio import Minio
    from urllib3 import PoolManager


class S3Store(ObjectStore):
    """A prefix of an S3 bucket, through the minio client; PUT is atomic in S3."""

    def __init__(
        self,
        client: Minio,
        *,
        bucket: str,
        prefix: str = "",
        scheme: str = "s3",
        num_retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._num_retries = num_retries
        self._sleep = sleep
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
        buffer = io.BytesIO()
        self._receive(key, buffer)
        return buffer.getvalue()

    def write(self, key: str, data: bytes) -> None:
        """Write an object."""
        with s3_errors("write", self.uri_of(key)):
            self._client.put_object(
                self._bucket, self._name(key), io.BytesIO(data), len(data), part_size=_PART_BYTES
            )

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a local file, in parts where it is large."""
        with s3_errors("write", self.uri_of(key)):
            self._client.fput_object(
                self._bucket, self._name(key), str(path), part_size=_PART_BYTES
            )

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file."""
        with path.open("wb") as file:
            self._receive(key, file)

    def _receive(self, key: str, file: BinaryIO) -> None:
        with s3_errors("read", self.uri_of(key)):
            receive_object(
                self._client,
                bucket=self._bucket,
                name=self._name(key),
                file=file,
                num_retries=self._num_retries,
                sleep=self._sleep,
            )

    def exists(self, key: str) -> bool:
        """Tell whether the object is there."""
        from minio.error import S3Error

        with s3_errors("look up", self.uri_of(key)):
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
        with s3_errors("list", f"{self.uri}/{prefix}"):
            objects = self._client.list_objects(
                self._bucket, prefix=f"{start}/" if start else "", recursive=True
            )
            skip = len(self._prefix) + 1 if self._prefix else 0
            yield from sorted(str(entry.object_name)[skip:] for entry in objects)

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders right below a folder prefix, sorted."""
        start = "/".join(part for part in (self._prefix, prefix) if part)
        start = f"{start}/" if start else ""
        with s3_errors("list", f"{self.uri}/{prefix}"):
            entries = self._client.list_objects(self._bucket, prefix=start)
            names = {
                str(entry.object_name)[len(start) :].rstrip("/")
                for entry in entries
                if entry.is_dir
            }
        yield from sorted(names)

    def size(self, key: str) -> int:
        """Return an object's size in bytes."""
        with s3_errors("look up", self.uri_of(key)):
            return int(self._client.stat_object(self._bucket, self._name(key)).size or 0)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with s3_errors("delete", self.uri_of(key)):
            self._client.remove_object(self._bucket, self._name(key))


_PART_BYTES = 16 << 20
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_S3_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject"})
_S3_BUSY = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})


def connect_s3(environment: Mapping[str, str], *, num_retries: int = 5) -> Minio:
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
        http_client=_build_pool(environment, num_retries=num_retries),
    )


def _build_pool(environment: Mapping[str, str], *, num_retries: int) -> PoolManager:
    from urllib3 import PoolManager, Retry, Timeout

    return PoolManager(
        maxsize=16,
        timeout=Timeout(connect=10.0, read=60.0),
        ca_certs=environment.get("SSL_CERT_FILE") or None,
        retries=Retry(
            total=num_retries,
            backoff_factor=0.2,
            backoff_max=10.0,
            status_forcelist=[429, 500, 502, 503, 504],
            raise_on_status=False,
        ),
    )


def receive_object(
    client: Minio,
    *,
    bucket: str,
    name: str,
    file: BinaryIO,
    etag: str = "",
    num_retries: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Read an object; where the connection breaks, go on with the same version of it.

    Args:
        client: The client.
        bucket: Its bucket.
        name: Its name there.
        file: Where its bytes go.
        etag: Version that it must have; empty: any.
        num_retries: How often to go on after a break.
        sleep: Waits between attempts.
    """
    headers = {"If-Match": f'"{etag}"'} if etag else {}
    for attempt in range(num_retries + 1):
        response = client.get_object(bucket, name, offset=file.tell(), request_headers=headers)
        try:
            headers = {"If-Match": response.headers["ETag"]}
            total = file.tell() + int(response.headers["Content-Length"])
            for block in response.stream(1 << 20):
                file.write(block)
            return
        except ProtocolError:
            if attempt == num_retries:
                raise
            if file.tell() >= total:
                return
            sleep(min(0.2 * 2.0**attempt, 10.0))
        finally:
            response.close()
            response.release_conn()


@contextlib.contextmanager
def s3_errors(verb: str, uri: str) -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        if error.code in _S3_MISSING:
            missing = "no such bucket" if error.code == "NoSuchBucket" else "there is none"
            raise InputError(f"Failed to {verb} object {uri}: {missing}; check the URI.") from error
        kind = TransientError if error.code in _S3_BUSY else PermanentError
        raise kind(f"Failed to {verb} object {uri}: {error.code}: {error.message}") from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _OUT_OF_SPACE:
            raise PermanentError(
                f"Failed to {verb} object {uri}: {error.strerror} on this machine."
            ) from error
        # NB: a request that was given up names its last failure; its own text repeats the URL.
        reason = str(getattr(error, "reason", None) or error)
        raise TransientError(
            f"Failed to {verb} object {uri}: {reason}; is S3_ENDPOINT right, and the store up?"
        ) from error
    except MinioException as error:
        raise PermanentError(f"Failed to {verb} object {uri}: {error}") from error


STORES.register("s3", S3Store.from_uri)
STORES.register("minio", S3Store.from_uri)
