import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio
from urllib3 import PoolManager

from kubeloop.datasets.stores import (
    FileStore,
    ObjectStore,
    S3Store,
    connect_s3,
    open_object,
    open_store,
)
from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.testing.s3_server import s3_server
from kubeloop.testing.store_contract import StoreContract


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
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
        with s3_server("bucket") as endpoint:
            use_endpoint(monkeypatch, endpoint)
            yield open_store("s3://bucket/some/prefix")


class TestMinioStoreWithoutPrefix(StoreContract):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
        with s3_server("bucket") as endpoint:
            use_endpoint(monkeypatch, endpoint)
            yield open_store("minio://bucket")


def test_a_store_that_is_down_may_answer_later() -> None:
    with s3_server("bucket") as endpoint:
        address = endpoint.removeprefix("http://")
    impatient = PoolManager(retries=False)
    client = Minio(address, secure=False, region="us-east-1", http_client=impatient)

    with pytest.raises(TransientError, match="Failed to read object s3://bucket/a"):
        S3Store(client, bucket="bucket").read("a")


def test_a_missing_bucket_is_an_error_that_names_the_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with s3_server("bucket") as endpoint:
        use_endpoint(monkeypatch, endpoint)

        with pytest.raises(InputError, match="s3://other/a"):
            open_store("s3://other").write("a", b"")


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
