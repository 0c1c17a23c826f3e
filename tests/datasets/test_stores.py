import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeloop.datasets.stores import (
    FileStore,
    ObjectStore,
    S3Store,
    connect_s3,
    open_object,
    open_store,
)
from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.testing.s3_server import (
    ACCESS_KEY,
    SECRET_KEY,
    Fault,
    failing_proxy,
    make_bucket,
    s3_process,
)
from kubeloop.testing.store_contract import StoreContract


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_process() as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of its own, with the environment pointing at it."""
    name = f"bucket-{uuid.uuid4().hex}"
    make_bucket(server, name)
    use_endpoint(monkeypatch, server)
    return name


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("S3_ENDPOINT", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


class TestFileStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store(str(tmp_path / "store"))


class TestFileUriStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store((tmp_path / "a store").as_uri())


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, bucket: str) -> ObjectStore:
        return open_store(f"s3://{bucket}/some/prefix")


class TestMinioStoreWithoutPrefix(StoreContract):
    @pytest.fixture
    def store(self, bucket: str) -> ObjectStore:
        return open_store(f"minio://{bucket}")


if "KUBELOOP_TEST_STORE" in os.environ:  # such as s3://bucket/prefix, with S3_ENDPOINT and so on

    class TestStoreOfTheEnvironment(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[ObjectStore]:
            store = open_store(f"{os.environ['KUBELOOP_TEST_STORE']}/{uuid.uuid4().hex}")
            yield store
            for key in list(store.list()):
                store.delete(key)


def impatient_store(url: str, bucket: str) -> S3Store:
    environment = {
        "S3_ENDPOINT": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }
    client = connect_s3(environment, num_retries=0)
    return S3Store(client, bucket=bucket, num_retries=3, sleep=lambda _: None)


def test_a_store_that_is_down_may_answer_later(server: str, bucket: str) -> None:
    with failing_proxy(server, lambda *_: None) as url:
        store = impatient_store(url, bucket)

    with pytest.raises(TransientError, match=f"Failed to read object s3://{bucket}/a"):
        store.read("a")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=503, code="SlowDown"), TransientError),
        (Fault(status=500, code="InternalError"), TransientError),
        (Fault(status=403, code="AccessDenied"), PermanentError),
        (Fault(status=507, code="XMinioStorageFull"), PermanentError),
    ],
)
def test_what_the_store_refuses_is_said_and_leaves_nothing(
    server: str, bucket: str, fault: Fault, error: type[Exception]
) -> None:
    with (
        failing_proxy(server, lambda method, *_: fault if method == "PUT" else None) as url,
        pytest.raises(error, match=f"Failed to write object s3://{bucket}/a"),
    ):
        impatient_store(url, bucket).write("a", b"data")

    assert not open_store(f"s3://{bucket}").exists("a")


def test_a_busy_store_is_asked_again(server: str, bucket: str, monkeypatch: Any) -> None:
    busy = Fault(status=503, code="SlowDown")
    with failing_proxy(server, lambda _, __, number: busy if number < 2 else None) as url:
        use_endpoint(monkeypatch, url)
        open_store(f"s3://{bucket}").write("a", b"data")

    use_endpoint(monkeypatch, server)
    assert open_store(f"s3://{bucket}").read("a") == b"data"


def test_reading_goes_on_where_a_connection_broke(server: str, bucket: str) -> None:
    data = bytes(range(256)) * 20_000
    open_store(f"s3://{bucket}").write("a", data)
    cut = Fault(cut_after_bytes=3_000_000)
    with failing_proxy(server, lambda _, __, number: cut if number == 0 else None) as url:
        assert impatient_store(url, bucket).read("a") == data


def test_an_upload_that_fails_in_the_middle_leaves_nothing(
    server: str, bucket: str, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (40 << 20))
    denied = Fault(status=403, code="AccessDenied")

    def deny_second_part(method: str, path: str, _: int) -> Fault | None:
        return denied if method == "PUT" and "partNumber=2" in path else None

    with (
        failing_proxy(server, deny_second_part) as url,
        pytest.raises(PermanentError, match="AccessDenied"),
    ):
        impatient_store(url, bucket).upload("big", big)

    assert list(open_store(f"s3://{bucket}").list()) == []


def test_a_missing_bucket_is_an_error_that_names_the_object(bucket: str) -> None:
    with pytest.raises(InputError, match="s3://other-bucket/a"):
        open_store("s3://other-bucket").write("a", b"")


def test_the_endpoint_says_whether_it_is_encrypted() -> None:
    plain = connect_s3({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"})
    encrypted = connect_s3({"S3_ENDPOINT": "https://minio:9000"})

    assert plain._base_url.is_https is False
    assert encrypted._base_url.is_https is True


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("relative/path", "must be an absolute path"),
        ("file://host/path", "must be an absolute path"),
        ("s3:///key", "names no bucket"),
        ("ftp://host/path", "Unknown object store scheme 'ftp'"),
    ],
)
def test_malformed_uris_are_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_store(uri)


def test_an_objects_uri_splits_into_store_and_key(tmp_path: Path) -> None:
    store, key = open_object(f"{tmp_path}/folder/object.json")

    assert (store.uri, key) == (f"{tmp_path}/folder", "object.json")
    assert open_object("/object")[0].uri_of("object") == "/object"


def test_a_lookup_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"Failed to look up object .*too long"):
        FileStore(tmp_path).exists("a" * 300)


def test_a_full_disk_of_this_machine_is_not_the_stores_fault(bucket: str) -> None:
    store = open_store(f"s3://{bucket}")
    store.write("a", b"1" * 100_000)

    with pytest.raises(PermanentError, match=r"Failed to read .*No space left .* on this machine"):
        store.download("a", Path("/dev/full"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(PermanentError, match="Permission denied"):
        FileStore(tmp_path).write("a", b"")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    (tmp_path / "store" / "folder").mkdir(parents=True)

    with pytest.raises(PermanentError, match="Failed to write"):
        store.write("folder", b"a folder lies there")

    assert list(store.list()) == []
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["folder"]
