"""A small S3 on loopback: enough of the protocol for the minio client, without signatures."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bucket: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _request(self) -> tuple[str, str, dict[str, str]]:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {
            name: values[0]
            for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        return bucket, key, query

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": _DATE, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: str) -> None:
        self._answer(404, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def do_GET(self) -> None:
        """Read an object, list a bucket, or tell its region."""
        bucket, key, query = self._request()
        if bucket != self.server.bucket:
            self._refuse("NoSuchBucket")
        elif "location" in query:
            self._answer(200, f"<LocationConstraint {_NAMESPACE}/>".encode())
        elif not key:
            self._list(query.get("prefix", ""))
        elif key not in self.server.objects:
            self._refuse("NoSuchKey")
        else:
            data = self.server.objects[key]
            self._answer(200, data, ETag=_etag(data))

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _list(self, prefix: str) -> None:
        keys = sorted(key for key in self.server.objects if key.startswith(prefix))
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>{escape(_etag(self.server.objects[key]))}</ETag>"
            f"<Size>{len(self.server.objects[key])}</Size></Contents>"
            for key in keys
        )
        self._answer(
            200,
            f"<ListBucketResult {_NAMESPACE}><Name>{self.server.bucket}</Name>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode(),
        )

    def do_PUT(self) -> None:
        """Write an object or a part of one."""
        bucket, key, query = self._request()
        data = self._body()
        if bucket != self.server.bucket:
            self._refuse("NoSuchBucket")
            return
        if "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = data
        else:
            self.server.objects[key] = data
        self._answer(200, ETag=_etag(data))

    def do_POST(self) -> None:
        """Begin or complete an object of several parts."""
        _, key, query = self._request()
        self._body()
        if "uploads" in query:
            upload = f"upload-{len(self.server.uploads)}"
            self.server.uploads[upload] = {}
            tag, content = "InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"
        else:
            parts = self.server.uploads.pop(query["uploadId"])
            self.server.objects[key] = b"".join(parts[number] for number in sorted(parts))
            tag, content = "CompleteMultipartUploadResult", "<ETag>x</ETag>"
        body = f"<{tag} {_NAMESPACE}><Key>{escape(key)}</Key>{content}</{tag}>"
        self._answer(200, body.encode())

    def do_DELETE(self) -> None:
        """Remove an object."""
        _, key, _ = self._request()
        self.server.objects.pop(key, None)
        self._answer(204)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Serve one empty bucket for the time of the context.

    Yields:
        The endpoint, as `http://127.0.0.1:PORT`.
    """
    with _Server(bucket) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
