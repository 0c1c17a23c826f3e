"""A file behind a URL.

Downloads go on where they broke off, as long as the server says that the file is still the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import httpx

from kubeloop.datasets.sources.base import SOURCES, Source, SourceFile, SourceLimits, refuse_changed
from kubeloop.datasets.sources.fetched import FetchedFiles
from kubeloop.errors import InputError, PermanentError, TransientError

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_SECRET = re.compile(r"sig|token|key|secret|credential|password|auth", re.IGNORECASE)
T = TypeVar("T")


class HttpFile(FetchedFiles):
    """One file behind an `http(s)://` URL.

    Args:
        url: Its URL; user and password go into the request and nowhere else.
        limits: Sizes, time and retries.
        sleep: Waits between attempts.
    """

    def __init__(
        self, url: str, limits: SourceLimits, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(limits)
        self._url = url
        self._sleep = sleep
        self.uri = hide_secrets(url)
        self._name = unquote(PurePosixPath(urlsplit(url).path).name)
        if not urlsplit(url).hostname or not self._name:
            raise InputError(f"{self.uri!r} names no file; write https://HOST/PATH/FILE.")
        self._client = httpx.Client(timeout=limits.timeout_seconds, follow_redirects=True)

    def find_files(self) -> Iterator[SourceFile]:
        """Ask for the file's size and version."""
        response = self._attempt(self._ask)
        size = int(response.headers.get("content-length", "0"))
        yield SourceFile(path=self._name, num_bytes=size or 1, version=_version_of(response))

    def _ask(self) -> httpx.Response:
        response = self._client.head(self._url, headers={"accept-encoding": "identity"})
        if response.status_code in (403, 405, 501):  # a server that answers GET alone
            with self._client.stream("GET", self._url) as response:
                pass
        self._check(response)
        return response

    def fetch(self, file: SourceFile, target: Path) -> None:
        """Download, going on after breaks."""
        with target.open("wb") as output:
            self._attempt(lambda: self._download(file, output))

    def _download(self, file: SourceFile, output: BinaryIO) -> None:
        start = output.tell()
        headers = {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        with self._client.stream("GET", self._url, headers=headers) as response:
            if response.status_code == 416 and start:  # all there is, is here
                return
            self._check(response)
            if file.version and _version_of(response) not in ("", file.version):
                raise refuse_changed(self.uri, file.path)
            if start and (response.status_code != 206 or not file.version):
                output.seek(0)
                output.truncate()
                if response.status_code == 206:
                    raise httpx.ReadError("the file may have changed; starting again")
            expected = int(response.headers.get("content-length", "-1"))
            for block in response.iter_raw():
                output.write(block)
                expected -= len(block)
                if output.tell() > self.limits.max_bytes:
                    raise InputError(
                        f"The source {self.uri!r} is larger than the {self.limits.max_bytes} bytes"
                        " allowed."
                    )
            if expected > 0:
                raise httpx.ReadError(f"{expected} bytes are missing")

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in _BUSY:
            raise TransientError(f"Failed to read source {self.uri!r}: HTTP {status}.")
        if status in (401, 403):
            raise PermanentError(f"Failed to read source {self.uri!r}: HTTP {status}, no access.")
        if status >= 400:
            raise InputError(f"Failed to read source {self.uri!r}: HTTP {status}; check the URL.")

    def _attempt(self, action: Callable[[], T]) -> T:
        for attempt in range(self.limits.num_retries + 1):
            try:
                return action()
            except httpx.UnsupportedProtocol as error:  # where a redirect leads
                raise PermanentError(f"Failed to read source {self.uri!r}: {error}") from error
            except (httpx.TransportError, TransientError) as error:
                if attempt == self.limits.num_retries:
                    raise TransientError(
                        f"Failed to read source {self.uri!r} {attempt + 1} times: {error}"
                    ) from error
                self._sleep(min(2.0**attempt * 0.2, 10.0))
            except httpx.HTTPError as error:
                raise PermanentError(f"Failed to read source {self.uri!r}: {error}") from error
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Remove what was fetched."""
        super().close()
        self._client.close()


def _version_of(response: httpx.Response) -> str:
    tag = response.headers.get("etag", "")
    modified = response.headers.get("last-modified", "")
    if not tag and not modified:
        return ""
    if response.status_code == 206:
        size = response.headers.get("content-range", "").rpartition("/")[2]
    else:  # also of a server that knows no ranges
        size = response.headers.get("content-length", "")
    return f"{tag.removeprefix('W/')}:{modified}:{size}"


def hide_secrets(url: str) -> str:
    """Return a URL without password and without the values of parameters that look secret."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    query = urlencode(
        [(key, "***" if _SECRET.search(key) else value) for key, value in parse_qsl(parts.query)],
        safe="*",
    )
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def open_http(uri: str, limits: SourceLimits) -> Source:
    """Open a URL."""
    return HttpFile(uri, limits)


SOURCES.register("http", open_http)
SOURCES.register("https", open_http)
