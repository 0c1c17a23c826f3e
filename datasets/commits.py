"""Immutable, content-addressed commits of a dataset.

Layout below `<store>/<name>/`:

    shards/<sha256>.<tar|parquet>   examples, shared between commits
    keys/<sha256>                   which examples the shard holds, to compare without reading it
    records/<version hash>.json     origin, message, author, time: what is known about a commit
    commits/<version hash>.json     the manifest: what the commit is
    snapshots/<version hash>.json   the manifest of a selection of commits
    tags/<tag>/<version hash>       which commits have a tag
    sources/<digest>.json           state of a source and settings → commit, to recognise it again
    parts/<digest>.json             what a part of a source wrote that waits for its commit
    head.json                       the newest commit

The manifest holds content alone, so the same data and settings give the same bytes, and with them
the same version hash, anywhere. It is written after everything it names: a commit whose manifest
exists is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NewType

from kubeloop.datasets.findings import Finding, Rejection
from kubeloop.datasets.shards.base import ShardFormat
from kubeloop.datasets.splits import TEST, TRAIN, VALIDATION
from kubeloop.datasets.statistics import Statistics, add_up
from kubeloop.datasets.stores import ObjectStore, open_store
from kubeloop.errors import InputError, IntegrityError

VersionHash = NewType("VersionHash", str)
FORMAT = "kubeloop/dataset-commit"
FORMAT_VERSION = 2
COMMITS, SNAPSHOTS, SHARDS, KEYS, PARTS = "commits", "snapshots", "shards", "keys", "parts"
_OF_THE_FIRST = ("source_uri", "message", "author", "created_at", "parent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of a split."""

    sha256: str
    num_bytes: int
    """Size of the file."""
    format: ShardFormat
    statistics: Statistics
    """What its rows are like."""

    @property
    def key(self) -> str:
        """Key below the dataset's folder."""
        return f"{SHARDS}/{self.sha256}.{self.format}"

    @property
    def num_rows(self) -> int:
        """Examples in it."""
        return self.statistics.num_rows

    def render(self) -> dict[str, Any]:
        """Write as JSON."""
        return {
            "key": self.key,
            "sha256": self.sha256,
            "num_rows": self.num_rows,
            "num_bytes": self.num_bytes,
            "format": self.format.value,
            "statistics": self.statistics.dump(),
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Shard:
        """Read what `render` wrote."""
        return cls(
            sha256=document["sha256"],
            num_bytes=document["num_bytes"],
            format=ShardFormat(document["format"]),
            statistics=Statistics.load(document["statistics"]),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a commit or snapshot is, by content alone."""

    kind: str
    """Kind of dataset."""
    schema: Mapping[str, str]
    """Features of an example and their types."""
    labels: tuple[str, ...]
    """Labels in the order of their index."""
    splits: Mapping[str, tuple[Shard, ...]]
    """Shards by split."""
    sample: tuple[Mapping[str, Any], ...] = ()
    """Ten examples, without their images."""

    @property
    def shards(self) -> list[Shard]:
        """Shards of all splits."""
        return [shard for shards in self.splits.values() for shard in shards]

    @cached_property
    def statistics(self) -> Mapping[str, Any]:
        """Counts and summaries."""
        splits = {
            split: add_up(shard.statistics for shard in shards)
            for split, shards in self.splits.items()
        }
        total = add_up(splits.values())
        return {
            "labels": {label: total.labels[label] for label in self.labels},
            "splits": {
                split: {label: statistics.labels[label] for label in self.labels}
                for split, statistics in splits.items()
            },
            "num_examples": {split: statistics.num_rows for split, statistics in splits.items()},
            "num_bytes": total.num_bytes,
            self.kind: total.render_features(),
        }

    def render(self) -> bytes:
        """Write as JSON; the same manifest is always the same bytes."""
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "kind": self.kind,
            "schema": dict(self.schema),
            "labels": list(self.labels),
            "splits": {
                split: [shard.render() for shard in shards] for split, shards in self.splits.items()
            },
            "sample": [dict(row) for row in self.sample],
            "statistics": self.statistics,
        }
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: It is not one, or of another format.
    """
    try:
        document = json.loads(data)
        if (document["format"], document["version"]) != (FORMAT, FORMAT_VERSION):
            raise InputError(
                f"The dataset commit has format {document['format']!r} version"
                f" {document['version']!r}; this kubeloop reads {FORMAT!r} version"
                f" {FORMAT_VERSION}."
            )
        return Manifest(
            kind=document["kind"],
            schema=document["schema"],
            labels=tuple(document["labels"]),
            splits={
                split: tuple(Shard.parse(shard) for shard in document["splits"][split])
                for split in sorted(document["splits"], key=_place_of_split)
            },
            sample=tuple(document["sample"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Not the manifest of a dataset commit: {error!r}.") from error


def _place_of_split(split: str) -> tuple[int, str]:
    """People expect training data first; JSON keeps splits by name."""
    known = (TRAIN, VALIDATION, TEST)
    return (known.index(split) if split in known else len(known), split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known about a commit beside its content."""

    name: str = ""
    """Name of the dataset."""
    source_uri: str = ""
    """Where its data came from."""
    source_digest: str = ""
    """Hash over the contents of the source, in its order."""
    message: str = ""
    """Why it was made."""
    author: str = ""
    """Who made it."""
    created_at: str = ""
    """When it was first made, in UTC."""
    parent: str = ""
    """Version hash of the commit that was the newest before."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the ingestion."""
    notes: tuple[str, ...] = ()
    """What the ingestion chose by itself."""
    findings: tuple[Finding, ...] = ()
    """What validation found."""
    num_rejected: int = 0
    """Files or rows of the source that did not become examples."""
    rejected: tuple[Rejection, ...] = ()
    """The first of them, with the reason."""

    def render(self) -> bytes:
        """Write as JSON."""
        document = asdict(self) | {"settings": dict(self.settings)}
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Read what `render` wrote.

        Raises:
            IntegrityError: It is something else.
        """
        try:
            document = json.loads(data)
            return cls(
                **{
                    **document,
                    "notes": tuple(document["notes"]),
                    "findings": tuple(Finding.parse(entry) for entry in document["findings"]),
                    "rejected": tuple(Rejection(**entry) for entry in document["rejected"]),
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"The record of a dataset commit is damaged: {error!r}."
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One version of a dataset."""

    uri: str
    """URI of the manifest; its last part is the version hash."""
    version_hash: VersionHash
    """sha256 of the manifest."""
    manifest: Manifest
    """What the commit is."""
    record: Record = field(default_factory=Record)
    """What is known about it."""
    is_new: bool = field(default=True, compare=False)
    """False where an ingestion found the commit made already."""

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.record.name or self.uri.rsplit("/", 3)[-3]

    @property
    def source_uri(self) -> str:
        """Where its data came from."""
        return self.record.source_uri

    @property
    def source_digest(self) -> str:
        """Hash over the contents of the source, in its order."""
        return self.record.source_digest

    @property
    def label_column(self) -> str:
        """Column that the user named as the labels; '' where its name tells."""
        return str(self.record.settings.get("scan", {}).get("label_column", ""))

    @property
    def message(self) -> str:
        """Why it was made."""
        return self.record.message

    @property
    def created_at(self) -> str:
        """When it was first made, in UTC."""
        return self.record.created_at

    @property
    def num_rejected(self) -> int:
        """Files or rows of the source that did not become examples."""
        return self.record.num_rejected

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """The first of them, with the reason."""
        return self.record.rejected

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of their index."""
        return self.manifest.labels

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Counts and summaries."""
        return self.manifest.statistics

    @property
    def num_examples(self) -> int:
        """Examples in all splits."""
        return sum(shard.num_rows for shard in self.manifest.shards)


def read_commit(uri: str) -> Commit:
    """Read a commit or snapshot by its URI.

    Raises:
        InputError: There is none.
        IntegrityError: The manifest's bytes differ from its version hash.
    """
    dataset = dataset_of(uri)
    folder, name = uri.rsplit("/", 2)[1:]
    version_hash = VersionHash(name.removesuffix(".json"))
    manifest = read_manifest(dataset, f"{folder}/{name}")
    record = read_record(dataset, version_hash) or Record()
    return Commit(uri=uri, version_hash=version_hash, manifest=manifest, record=record)


def read_manifest(dataset: ObjectStore, key: str) -> Manifest:
    """Read the manifest of a commit or snapshot by its key.

    Raises:
        InputError: There is none.
        IntegrityError: Its bytes differ from the hash that names it.
    """
    data = dataset.read(key)
    if f"{hashlib.sha256(data).hexdigest()}.json" != key.rpartition("/")[2]:
        raise IntegrityError(
            f"The dataset commit {dataset.uri_of(key)} differs from the hash that names it."
        )
    return parse_manifest(data)


def read_record(dataset: ObjectStore, version_hash: str) -> Record | None:
    """Return what is known about a commit beside its content, if anything is.

    Raises:
        IntegrityError: The record is damaged.
    """
    try:
        data = dataset.read(_record_key(version_hash))
    except InputError:
        return None
    return Record.parse(data)


def _record_key(version_hash: str) -> str:
    return f"records/{version_hash}.json"


def dataset_of(uri: str) -> ObjectStore:
    """Open the folder of the dataset that a commit's URI belongs to."""
    parts = uri.rsplit("/", 2)
    if len(parts) != 3 or parts[1] not in (COMMITS, SNAPSHOTS):
        raise InputError(f"{uri!r} is not the URI of a dataset commit: …/commits/<hash>.json.")
    return open_store(parts[0])


def open_folder(store: str, name: str) -> ObjectStore:
    """Open the folder of the dataset of a name, whether there is one or not."""
    return open_store(f"{store.rstrip('/')}/{name}")


def publish(
    dataset: ObjectStore, manifest: Manifest, record: Record, *, folder: str = COMMITS
) -> Commit:
    """Make a commit visible, after everything that it names is stored.

    One that was made before keeps what is known of its making; what was found in it is told anew.
    """
    data = manifest.render()
    version_hash = VersionHash(hashlib.sha256(data).hexdigest())
    key = f"{folder}/{version_hash}.json"
    is_new = not dataset.exists(key)
    known = read_record(dataset, version_hash)
    if known is not None:
        first = {name: getattr(known, name) for name in _OF_THE_FIRST}
        record = replace(record, **first)
    if record != known:
        dataset.write(_record_key(version_hash), record.render())
    if is_new:
        dataset.write(key, data)
    return Commit(
        uri=dataset.uri_of(key),
        version_hash=version_hash,
        manifest=manifest,
        record=record,
        is_new=is_new,
    )
