"""A real S3 server process on loopback (moto's), and a proxy that makes it fail on purpose."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from minio import Minio

ACCESS_KEY, SECRET_KEY = "key", "secret"


@contextmanager
def s3_process() -> Iterator[str]:
    """Run an S3 server without buckets; yields its URL."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(  # noqa: S603 - our own arguments
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _read_url(process)
        finally:
            process.terminate()


def _read_url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"http://[0-9.]+:[0-9]+", line):
            # NB: a pipe that nobody reads fills up, and the server would stop.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[0]
    raise RuntimeError("moto's server did not start: " + "".join(said))


def make_bucket(url: str, bucket: str) -> None:
    """Make a bucket on a server."""
    address = url.removeprefix("http://")
    client = Minio(
        address, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False, region="us-east-1"
    )
    client.make_bucket(bucket)


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Run an S3 server with one bucket; yields its URL."""
    with s3_process() as url:
        make_bucket(url, bucket)
        yield url


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a request instead of, or after, being passed on."""

    status: int = 0
    """Answer this status without asking the server."""
    code: str = "InternalError"
    """S3's code in the answer."""
    cut_after_bytes: int = -1
    """Break the connection after so many bytes of the body."""


Faults = Callable[[str, str, int], Fault | None]
"""From method, path and the number of requests so far to a fault."""


@contextmanager
def failing_proxy(url: str, faults: Faults) -> Iterator[str]:
    """Pass requests on to a server, except where `faults` says otherwise; yields the URL."""
    server = _ProxyServer(url, faults)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _ProxyServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, url: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.target = urlsplit(url)
        self.faults = faults
        self.num_requests = 0


class _ProxyHandler(BaseHTTPRequestHandler):
    server: _ProxyServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = self.server.faults(self.command, self.path, self.server.num_requests)
        self.server.num_requests += 1
        if fault is not None and fault.status:
            text = f"<Error><Code>{fault.code}</Code><Message>{fault.code}</Message></Error>"
            self._answer(fault.status, [("Content-Type", "application/xml")], text.encode())
            return
        connection = http.client.HTTPConnection(
            self.server.target.hostname or "", self.server.target.port, timeout=30
        )
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        cut = fault.cut_after_bytes if fault is not None else -1
        self._answer(answer.status, answer.getheaders(), data, cut=cut)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 - the base's names

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: int = -1
    ) -> None:
        self.send_response(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value
            elif name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut < 0 else body[:cut])
        self.close_connection = True
