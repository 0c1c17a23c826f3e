"""Immutable, content-addressed commits of a dataset.

Layout below `<store>/<name>/`:

    shards/<sha256>.tar            examples, shared between commits
    records/<version hash>.json    origin, message and time: what is known about a commit
    commits/<version hash>.json    the manifest: what the commit is
    sources/<digest>.json          source digest and settings → commit, to recognise a re-ingest

The manifest holds content alone, so the same source and settings give the same bytes, and with
them the same version hash, anywhere. It is written after everything it names: a commit whose
manifest exists is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NewType

from kubeloop.datasets.kinds.base import Rejection
from kubeloop.datasets.stores import ObjectStore, open_object, open_store
from kubeloop.errors import InputError, IntegrityError

VersionHash = NewType("VersionHash", str)
FORMAT = "kubeloop/dataset-commit"
FORMAT_VERSION = 1
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar file of a split."""

    sha256: str
    num_rows: int
    num_bytes: int

    @property
    def key(self) -> str:
        """Key below the dataset's folder."""
        return f"shards/{self.sha256}.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a commit is, by content alone."""

    kind: str
    """Kind of dataset."""
    schema: Mapping[str, str]
    """Features of an example and their types."""
    labels: tuple[str, ...]
    """Labels in the order of their index."""
    settings: Mapping[str, Any]
    """Settings of the ingestion that shaped the content."""
    source_digest: str
    """Hash over the source's sorted paths and sha256 digests."""
    splits: Mapping[str, tuple[Shard, ...]]
    """Shards by split."""
    statistics: Mapping[str, Any]
    """Counts and summaries."""

    def render(self) -> bytes:
        """Write as JSON; the same manifest is always the same bytes."""
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "kind": self.kind,
            "schema": dict(self.schema),
            "labels": list(self.labels),
            "settings": dict(self.settings),
            "source_digest": self.source_digest,
            "splits": {
                split: [_render_shard(shard) for shard in shards]
                for split, shards in self.splits.items()
            },
            "statistics": dict(self.statistics),
        }
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _render_shard(shard: Shard) -> dict[str, Any]:
    return {
        "key": shard.key,
        "sha256": shard.sha256,
        "num_rows": shard.num_rows,
        "num_bytes": shard.num_bytes,
    }


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: It is not one, or of a newer format.
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
            settings=document["settings"],
            source_digest=document["source_digest"],
            splits={
                split: tuple(_parse_shard(shard) for shard in shards)
                for split, shards in document["splits"].items()
            },
            statistics=document["statistics"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Not the manifest of a dataset commit: {error!r}.") from error


def _parse_shard(document: Mapping[str, Any]) -> Shard:
    return Shard(
        sha256=document["sha256"],
        num_rows=document["num_rows"],
        num_bytes=document["num_bytes"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One version of a dataset."""

    name: str
    """Name of the dataset."""
    uri: str
    """URI of the manifest; its last part is the version hash."""
    version_hash: VersionHash
    """sha256 of the manifest."""
    manifest: Manifest
    """What the commit is."""
    source_uri: str = ""
    """Where its data came from."""
    message: str = ""
    """Why it was made."""
    created_at: str = ""
    """When it was first made, in UTC."""
    num_rejected: int = 0
    """Files of the source that did not become examples."""
    rejected: tuple[Rejection, ...] = field(default=())
    """The first of them, with the reason."""
    is_new: bool = True
    """False where an ingestion found the commit made already."""

    @property
    def source_digest(self) -> str:
        """Hash over the source's sorted paths and sha256 digests."""
        return self.manifest.source_digest

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
        return sum(shard.num_rows for shards in self.manifest.splits.values() for shard in shards)


def read_commit(uri: str) -> Commit:
    """Read a commit by its URI.

    Raises:
        InputError: There is none.
        IntegrityError: The manifest's bytes differ from its version hash.
    """
    store, name = open_object(uri)
    data = store.read(name)
    version_hash = VersionHash(name.removesuffix(".json"))
    if hashlib.sha256(data).hexdigest() != version_hash:
        raise IntegrityError(f"The dataset commit {uri} differs from the hash that names it.")
    record = _read_record(dataset_of(uri), version_hash)
    return build_commit(uri, parse_manifest(data), record)


def dataset_of(uri: str) -> ObjectStore:
    """Open the folder of the dataset that a commit's URI belongs to."""
    parts = uri.rsplit("/", 2)
    if len(parts) != 3 or parts[1] != "commits":
        raise InputError(f"{uri!r} is not the URI of a dataset commit: …/commits/<hash>.json.")
    return open_store(parts[0])


def _read_record(dataset: ObjectStore, version_hash: VersionHash) -> Mapping[str, Any]:
    key = f"records/{version_hash}.json"
    record: Mapping[str, Any] = json.loads(dataset.read(key)) if dataset.exists(key) else _EMPTY
    return record


def build_commit(uri: str, manifest: Manifest, record: Mapping[str, Any]) -> Commit:
    """Join a manifest and its record."""
    dataset_uri, _, name = uri.rsplit("/", 2)
    return Commit(
        name=record.get("name", dataset_uri.rpartition("/")[2]),
        uri=uri,
        version_hash=VersionHash(name.removesuffix(".json")),
        manifest=manifest,
        source_uri=record.get("source_uri", ""),
        message=record.get("message", ""),
        created_at=record.get("created_at", ""),
        num_rejected=record.get("num_rejected", 0),
        rejected=tuple(Rejection(**rejection) for rejection in record.get("rejected", ())),
    )
