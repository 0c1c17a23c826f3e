"""Objects of an S3 bucket, below a prefix or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubeloop.datasets.sources.base import SOURCES, Source, SourceFile, SourceLimits, refuse_changed
from kubeloop.datasets.sources.fetched import FetchedFiles
from kubeloop.datasets.stores.s3 import connect_s3, receive_object, s3_errors
from kubeloop.errors import InputError


class S3Objects(FetchedFiles):
    """`s3://bucket/prefix`, with the endpoint and credentials of the environment."""

    def __init__(self, uri: str, limits: SourceLimits) -> None:
        super().__init__(limits)
        parts = urlsplit(uri)
        self.uri = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self._bucket, self._prefix = parts.netloc, unquote(parts.path).strip("/")
        if not self._bucket:
            raise InputError(f"{uri!r} names no bucket; write s3://BUCKET/PREFIX.")
        self._client = connect_s3(os.environ, num_retries=limits.num_retries)
        self._is_object = False

    def find_files(self) -> Iterator[SourceFile]:
        """List the objects whose names have no hidden part."""
        folder = f"{self._prefix}/" if self._prefix else ""
        found = False
        with s3_errors("list", self.uri):
            for entry in self._client.list_objects(self._bucket, prefix=folder, recursive=True):
                found = True
                path = str(entry.object_name)[len(folder) :]
                parts = path.split("/")
                if path.endswith("/") or any(part.startswith(".") for part in parts):
                    continue
                version = f"{entry.etag}:{entry.size}"
                yield SourceFile(path=path, num_bytes=entry.size or 0, version=version)
        if found:
            return
        if not self._prefix:
            raise InputError(f"The source {self.uri!r} is empty.")
        with s3_errors("read", self.uri):
            entry = self._client.stat_object(self._bucket, self._prefix)
        self._is_object = True
        name = self._prefix.rpartition("/")[2]
        yield SourceFile(path=name, num_bytes=entry.size or 0, version=f"{entry.etag}:{entry.size}")

    def fetch(self, file: SourceFile, target: Path) -> None:
        """Download an object in the version that was listed."""
        from minio.error import S3Error

        key = self._prefix if self._is_object else f"{self._prefix}/{file.path}".lstrip("/")
        etag = file.version.partition(":")[0]
        with s3_errors("read", f"{self.uri}/{file.path}"), target.open("wb") as output:
            try:
                receive_object(
                    self._client,
                    bucket=self._bucket,
                    name=key,
                    file=output,
                    etag=etag,
                    num_retries=self.limits.num_retries,
                )
            except S3Error as error:
                if error.code == "PreconditionFailed":
                    raise refuse_changed(self.uri, file.path) from error
                raise
        if target.stat().st_size != file.num_bytes:
            raise refuse_changed(self.uri, file.path)


def open_s3(uri: str, limits: SourceLimits) -> Source:
    """Open an S3 URI."""
    return S3Objects(uri, limits)


SOURCES.register("s3", open_s3)
SOURCES.register("minio", open_s3)
