import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeloop.datasets import Commit, IngestConfig, S3Store, ingest, open_dataset, open_store
from kubeloop.datasets.cache import CacheConfig, ShardCache
from kubeloop.datasets.commits import dataset_of
from kubeloop.errors import InputError, IntegrityError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.s3_server import ACCESS_KEY, SECRET_KEY, s3_server


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commit]:
    """A commit in S3 with a shard or two a label and split."""
    source = write_image_folder(tmp_path / "source", {"cat": 60, "dog": 60}, grey=False)
    with s3_server("bucket") as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield ingest(IngestConfig(name="pets", source=str(source), store="s3://bucket/datasets"))


def test_a_shard_is_fetched_once_and_the_space_is_bounded(commit: Commit, tmp_path: Path) -> None:
    shards = commit.manifest.shards
    largest = max(shard.num_bytes for shard in shards)
    config = CacheConfig(folder=tmp_path / "cache", max_bytes=2 * largest)
    assert sum(shard.num_bytes for shard in shards) > config.max_bytes

    dataset = open_dataset(commit.uri, cache=config)
    paths = [row.path for split in dataset.splits for row in dataset.split(split)]

    assert len(paths) == 120
    files = list(config.folder.iterdir())
    assert sum(file.stat().st_size for file in files) <= config.max_bytes
    store = open_store("s3://bucket/datasets/pets")
    for file in files:
        store.delete(f"shards/{file.name}")
    kept = [shard for shard in shards if shard.key.removeprefix("shards/") in
            {file.name for file in files}]  # fmt: skip
    assert len(open_dataset(commit.uri, cache=config).read_shards(kept)[0].data) > 0


def test_a_shard_that_changed_on_the_way_is_not_cached(commit: Commit, tmp_path: Path) -> None:
    shard = commit.manifest.splits["test"][0]
    store = open_store("s3://bucket/datasets/pets")
    data = bytearray(store.read(shard.key))
    data[700] ^= 1
    store.write(shard.key, bytes(data))
    config = CacheConfig(folder=tmp_path / "cache")

    with pytest.raises(IntegrityError, match="differs from its recorded sha256"):
        open_dataset(commit.uri, cache=config).split("test")[0]
    assert list(config.folder.iterdir()) == []


def test_a_cache_without_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be positive"):
        CacheConfig(folder=tmp_path, max_bytes=0)


def test_a_shard_that_another_process_fetches_is_left_alone(
    commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = commit.manifest.shards
    config = CacheConfig(folder=tmp_path / "cache", max_bytes=1)
    first, second = (ShardCache(dataset_of(commit.uri), config) for _ in range(2))
    download = S3Store.download

    def download_beside_another(store: S3Store, key: str, path: Path) -> None:
        monkeypatch.setattr(S3Store, "download", download)
        path.write_bytes(b"part of it")
        second.open(shards[1])
        assert path.read_bytes() == b"part of it"
        download(store, key, path)

    monkeypatch.setattr(S3Store, "download", download_beside_another)

    assert len(first.open(shards[0])) == shards[0].num_bytes


def test_what_a_dead_process_left_makes_room(commit: Commit, tmp_path: Path) -> None:
    shard = commit.manifest.splits["test"][0]
    config = CacheConfig(folder=tmp_path / "cache", max_bytes=shard.num_bytes)
    config.folder.mkdir()
    left = config.folder / ".fetching-left"
    left.write_bytes(b"1")
    os.utime(left, (0, 0))

    ShardCache(dataset_of(commit.uri), config).open(shard)

    assert not left.exists()


def test_a_shard_that_is_removed_when_it_is_wanted_is_fetched(
    commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = commit.manifest.splits["test"][0]
    cache = ShardCache(dataset_of(commit.uri), CacheConfig(folder=tmp_path / "cache"))
    path = cache.fetch(shard)
    utime = os.utime

    def utime_too_late(touched: Path) -> None:
        touched.unlink(missing_ok=True)
        utime(touched)

    monkeypatch.setattr(os, "utime", utime_too_late)

    assert cache.fetch(shard) == path
    assert path.stat().st_size == shard.num_bytes


def test_a_split_goes_to_workers_that_are_spawned(commit: Commit, tmp_path: Path) -> None:
    """They get it pickled, also when it was read from before."""
    split = open_dataset(commit.uri, cache=CacheConfig(folder=tmp_path / "cache")).split("train")
    first = split[0]

    copy = pickle.loads(pickle.dumps(split))

    assert copy[0] == first
    assert len(copy) == len(split)
