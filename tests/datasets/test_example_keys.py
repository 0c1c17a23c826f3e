import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kubeloop.datasets import (
    Commit,
    IngestConfig,
    S3Store,
    ScanOptions,
    ingest,
    open_dataset,
    open_store,
)
from kubeloop.datasets.commits import dataset_of
from kubeloop.datasets.housekeeping import collect_garbage, delete_commit, delete_dataset
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.s3_server import ACCESS_KEY, SECRET_KEY, s3_server

Ingest = Callable[..., Commit]


@pytest.fixture
def s3_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Run an S3 server with a bucket of that name, and note the keys of objects that are read."""
    keys: list[str] = []

    def note(name: str) -> None:
        method = getattr(S3Store, name)

        def counting(store: S3Store, key: str, *arguments: Path) -> object:
            keys.append(key)
            return method(store, key, *arguments)

        monkeypatch.setattr(S3Store, name, counting)

    note("read")
    note("download")
    with s3_server("bucket") as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield keys


def shards(commit: Commit) -> set[str]:
    return {shard.key for shard in commit.manifest.shards}


def write_additions(folder: Path, source: Path) -> Path:
    """Write a new class, and a cat that the source has."""
    more = write_image_folder(folder, {"emu": 20})
    (more / "cat").mkdir()
    (more / "cat" / "again.png").write_bytes((source / "cat" / "003.png").read_bytes())
    return more


def remove_keys(commit: Commit) -> None:
    """Make a dataset what it was before keys were kept."""
    dataset = dataset_of(commit.uri)
    for key in list(dataset.list("keys")):
        dataset.delete(key)


def test_adding_reads_no_shard_that_was_there(s3_reads: list[str], tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 40, "dog": 40}, grey=False)
    more = write_additions(tmp_path / "more", source)
    store = "s3://bucket/datasets"
    first = ingest(IngestConfig(name="pets", source=str(source), store=store))
    s3_reads.clear()

    both = ingest(IngestConfig(name="pets", source=str(more), store=store, extend=True))

    assert not shards(first) & set(s3_reads)
    assert shards(first) < shards(both)
    assert both.statistics["labels"] == {"cat": 40, "dog": 40, "emu": 20}


def test_a_dataset_without_keys_is_extended_to_the_same_and_then_has_them(
    s3_reads: list[str], tmp_path: Path
) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 40, "dog": 40}, grey=False)
    more = write_additions(tmp_path / "more", source)
    made = []
    for store in ("s3://bucket/new", "s3://bucket/old"):
        first = ingest(IngestConfig(name="pets", source=str(source), store=store))
        if store.endswith("old"):
            remove_keys(first)
        made.append(ingest(IngestConfig(name="pets", source=str(more), store=store, extend=True)))
    s3_reads.clear()
    last = write_image_folder(tmp_path / "last", {"fox": 20})

    ingest(IngestConfig(name="pets", source=str(last), store="s3://bucket/old", extend=True))

    assert made[0].version_hash == made[1].version_hash
    assert not shards(made[1]) & set(s3_reads)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:-16],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    ],
)
def test_damaged_keys_are_not_believed(
    tmp_path: Path, ingest_text: Ingest, damage: Callable[[bytes], bytes]
) -> None:
    lines = [f"text {n},{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]))
    (tmp_path / "more.csv").write_text("\n".join(["text,label", *lines[:30], "more,a"]))
    ingest_text(tmp_path / "rows.csv")
    for path in (tmp_path / "store" / "texts" / "keys").iterdir():
        path.write_bytes(damage(path.read_bytes()))

    assert ingest_text(tmp_path / "more.csv", extend=True).num_examples == 61


def test_keys_go_with_their_shards(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 40, "dog": 40}, grey=False)
    store = str(tmp_path / "store")
    first = ingest(IngestConfig(name="pets", source=str(source), store=store))
    write_image_folder(source, {"emu": 40}, grey=False)
    second = ingest(IngestConfig(name="pets", source=str(source), store=store))
    dataset = open_store(f"{store}/pets")
    delete_commit(second)

    freed = collect_garbage(dataset)

    own = {key.removeprefix("shards/").removesuffix(".tar") for key in shards(second)}
    kept = {key.removeprefix("shards/").removesuffix(".tar") for key in shards(first)}
    assert {f"keys/{name}" for name in own - kept} <= set(freed.keys)
    assert {f"keys/{name}" for name in kept} == set(dataset.list("keys"))
    assert freed.num_shards == len(own - kept)
    delete_dataset(dataset)
    assert list(dataset.list()) == []


@pytest.mark.parametrize("are_kept", [True, False])
def test_rows_are_the_same_whatever_types_parquet_keeps(
    tmp_path: Path, ingest_text: Ingest, are_kept: bool
) -> None:
    """Parquet knows one time zone, no seconds, no durations and no categories."""
    zone = dt.timezone(dt.timedelta(hours=2))
    rows = [
        {
            "at": dt.datetime(2026, 1, 2, n, tzinfo=zone),
            "took": dt.timedelta(seconds=n),
            "nested": {"at": [dt.datetime(2026, 1, 2, n, tzinfo=zone)]},
            "name": f"name {n % 3}",
            "species": "ab"[n % 2],
            "label": n,
        }
        for n in range(20)
    ]
    table = pa.Table.from_pylist(rows)
    at_seconds = table.column("at").cast(pa.timestamp("s", "Europe/Berlin"))
    table = table.append_column("seconds", at_seconds)
    table = table.set_column(3, "name", table.column("name").dictionary_encode())
    for name, part in (("first", table.slice(0, 15)), ("second", table.slice(5))):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    options: dict[str, Any] = {"kind": "tabular", "scan": ScanOptions(label_column="species")}
    first = ingest_text(tmp_path / "first.parquet", **options)
    if not are_kept:
        remove_keys(first)

    both = ingest_text(tmp_path / "second.parquet", extend=True, **options)

    dataset = open_dataset(both.uri)
    found = Counter(row["label"] for split in dataset.splits for row in dataset.split(split))
    assert found == Counter(range(20))
    assert both.statistics["tabular"]["took"]["max"] == 19_000_000
