import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kubeloop.datasets import Commit, IngestConfig, SourceLimits, ingest, open_store
from kubeloop.datasets.sources import open_source
from kubeloop.datasets.sources.http import HttpFile, hide_secrets
from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.s3_server import (
    ACCESS_KEY,
    SECRET_KEY,
    Fault,
    failing_proxy,
    make_bucket,
    s3_process,
)

CSV = ("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(3000))).encode()
Ingest = Callable[..., Commit]


class FileServer(ThreadingHTTPServer):
    """One file, with ranges; it can break off, change, and refuse."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data, self.etag = CSV, '"1"'
        self.status = 200
        self.cuts = 0
        self.knows_ranges = True
        self.location = ""
        self.ranges: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/rows.csv"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        requested = self.headers.get("Range", "") if server.knows_ranges else ""
        start = int(requested.removeprefix("bytes=").rstrip("-") or 0)
        body = server.data[start:]
        self.send_response(206 if requested else 200)
        if requested:
            server.ranges.append(requested)
            total = len(server.data)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if server.cuts:
            server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)


@contextmanager
def file_server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


def open_impatiently(url: str, **limits: int) -> HttpFile:
    settings = {"num_retries": 2} | limits
    return HttpFile(url, SourceLimits(**settings), sleep=lambda _: None)


def test_a_url_is_the_commit_of_its_file(
    server: FileServer, tmp_path: Path, ingest_text: Ingest
) -> None:
    (tmp_path / "rows.csv").write_bytes(CSV)

    remote = ingest_text(server.url)

    assert remote.version_hash == ingest_text(tmp_path / "rows.csv").version_hash
    assert remote.source_uri == server.url
    assert not ingest_text(server.url).is_new


def test_a_download_goes_on_where_it_broke_off(server: FileServer) -> None:
    server.cuts = 2
    with open_impatiently(server.url) as source:
        assert source.read("rows.csv") == CSV
    half, quarter = len(CSV) // 2, len(CSV) - len(CSV) // 4
    assert [int(text[6:-1]) for text in server.ranges] == pytest.approx([half, quarter], abs=2)


def test_a_download_from_a_server_without_ranges_starts_again(server: FileServer) -> None:
    server.cuts, server.knows_ranges = 2, False
    with open_impatiently(server.url) as source:
        assert source.read("rows.csv") == CSV


def test_a_redirect_to_another_protocol_is_refused_at_once(server: FileServer) -> None:
    server.location = "file:///etc/passwd"
    with (
        open_impatiently(server.url) as source,
        pytest.raises(PermanentError, match="unsupported protocol 'file://'"),
    ):
        list(source.list_files())


@pytest.mark.parametrize("uri", ["http://[::1/rows.csv", "s3://[bucket/rows"])
def test_a_malformed_uri_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is no URI"):
        open_source(uri)
    with pytest.raises(InputError, match="is no URI"):
        open_store(uri)


def test_a_download_without_a_version_starts_again(server: FileServer) -> None:
    server.cuts, server.etag = 1, ""
    with open_impatiently(server.url) as source:
        assert source.read("rows.csv") == CSV
        assert source.fingerprint() == ""


def test_a_file_that_changes_meanwhile_is_refused(server: FileServer) -> None:
    with open_impatiently(server.url) as source:
        source.fingerprint()
        server.etag = '"2"'
        with pytest.raises(InputError, match=r"'rows\.csv' in .* changed while it was ingested"):
            source.read("rows.csv")
        with pytest.raises(InputError, match="changed while it was ingested"):
            source.fingerprint()


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, InputError, "HTTP 404; check the URL"),
        (403, PermanentError, "HTTP 403, no access"),
        (503, TransientError, "3 times: .*HTTP 503"),
    ],
)
def test_what_a_server_refuses_is_said(
    server: FileServer, status: int, error: type[Exception], message: str
) -> None:
    server.status = status
    with open_impatiently(server.url) as source, pytest.raises(error, match=message):
        list(source.list_files())


def test_a_server_that_is_down_may_answer_later() -> None:
    with file_server() as server:
        url = server.url
    with (
        open_impatiently(url) as source,
        pytest.raises(TransientError, match="Failed to read source"),
    ):
        list(source.list_files())


def test_a_file_beyond_the_limit_is_refused(server: FileServer) -> None:
    with (
        open_impatiently(server.url, max_bytes=1000) as source,
        pytest.raises(InputError, match="at most"),
    ):
        list(source.list_files())


def test_secrets_of_urls_are_not_recorded() -> None:
    url = "https://me:word@host/a.csv?X-Amz-Signature=abc&version=3"

    assert hide_secrets(url) == "https://host/a.csv?X-Amz-Signature=***&version=3"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_process() as url:
        make_bucket(url, "raw")
        yield url


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return "s3://raw"


def upload(folder: Path, uri: str) -> None:
    store = open_store(uri)
    for path in folder.rglob("*.*"):
        store.upload(path.relative_to(folder).as_posix(), path)


def test_a_folder_in_s3_is_the_commit_of_a_local_one(bucket: str, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "pets", {"cat": 12, "dog": 12})
    upload(folder, f"{bucket}/pets")
    local, remote = (
        ingest(IngestConfig(name="pets", source=source, store=str(tmp_path / f"store-{number}")))
        for number, source in enumerate((str(folder), f"{bucket}/pets"))
    )

    assert remote.version_hash == local.version_hash
    assert remote.source_uri == f"{bucket}/pets"


def test_one_object_in_s3_is_a_source(bucket: str, ingest_text: Ingest) -> None:
    open_store(f"{bucket}/tables").write("rows.csv", CSV)

    assert ingest_text(f"{bucket}/tables/rows.csv").num_examples == 3000


def test_an_object_that_changes_meanwhile_is_refused(bucket: str) -> None:
    store = open_store(f"{bucket}/changing")
    store.write("a.csv", CSV)
    with open_source(f"{bucket}/changing") as source:
        assert source.fingerprint()
        store.write("a.csv", CSV[:-1] + b"!")
        with pytest.raises(InputError, match="changed while it was ingested"):
            source.read("a.csv")


def test_an_object_is_read_on_where_the_connection_broke(
    bucket: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CSV * 100
    open_store(f"{bucket}/long").write("rows.csv", data)
    cut = Fault(cut_after_bytes=2_000_000)
    cuts = iter([cut])

    def break_first_read(method: str, path: str, _: int) -> Fault | None:
        return next(cuts, None) if method == "GET" and path.endswith("rows.csv") else None

    with failing_proxy(s3, break_first_read) as url:
        monkeypatch.setenv("S3_ENDPOINT", url)
        with open_source(f"{bucket}/long") as source:
            assert source.read("rows.csv") == data


def test_what_is_not_in_s3_is_said(bucket: str) -> None:
    with (
        pytest.raises(InputError, match="there is none"),
        open_source("s3://raw/nothing") as source,
    ):
        list(source.list_files())
    with pytest.raises(InputError, match="names no bucket"):
        open_source("s3:///a")
