"""Ingesting a source in parts, on as many machines, with one commit at the end.

A part takes a share of the source's files, scans them and packs their shards into the dataset's
store, where nothing names them yet. The commit at the end joins what the parts wrote; it is the
same commit whatever machine did which part. No part knows a whole class, so examples are dealt out
by their hash alone, and rules about repeated contents look at one part at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kubeloop.datasets.commits import (
    PARTS,
    SHARDS,
    Commit,
    Manifest,
    Record,
    Shard,
    open_folder,
    parse_manifest,
    publish,
)
from kubeloop.datasets.findings import Finding
from kubeloop.datasets.history import mark_latest, read_head, recall, remember
from kubeloop.datasets.ingest import Ingestion, check_classes
from kubeloop.datasets.ingest_config import IngestConfig, ProgressCallback
from kubeloop.datasets.joining import order_shards, unite
from kubeloop.datasets.kinds import KINDS
from kubeloop.datasets.leases import ingesting, taking_turns
from kubeloop.datasets.sources import Source, SourceFile, open_source
from kubeloop.datasets.stores import ObjectStore, open_object, open_store
from kubeloop.errors import InputError

WAITING_SECONDS = 7 * 86_400.0
"""After so long, no run is going to commit a part any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several shares of a source."""

    number: int
    """From 0."""
    count: int
    """How many there are."""

    def __post_init__(self) -> None:
        """Refuse a part that is none."""
        if not 0 <= self.number < self.count:
            raise InputError(f"Part {self.number} must be from 0 to below {self.count}.")


class PartOfFiles(Source):
    """A run of a source's files with about an equal share of its bytes."""

    is_part = True

    def __init__(self, source: Source, part: Part) -> None:
        if source.has_rows:
            raise InputError(
                f"The source {source.uri!r} has rows, which are not ingested in parts; give each"
                " part a query of its own and extend the dataset."
            )
        self.uri = source.uri
        self._source = source
        self._part = part

    def list_files(self) -> Iterator[SourceFile]:
        """Yield the files of the part."""
        total = sum(file.num_bytes for file in self._source.list_files())
        first = total * self._part.number // self._part.count
        end = total * (self._part.number + 1) // self._part.count
        start = 0
        for file in self._source.list_files():
            if first <= start < end or (
                start == total and self._part.number + 1 == self._part.count
            ):
                yield file
            start += file.num_bytes

    def list_all_files(self) -> Iterator[SourceFile]:
        """Yield the files of all parts."""
        return self._source.list_files()

    def fingerprint(self) -> str:
        """Return that of all parts, which are of one state."""
        return self._source.fingerprint()

    def read(self, path: str, *, version: str = "") -> bytes:
        """Return the bytes of a listed file."""
        return self._source.read(path, version=version)

    def local_path(self, path: str) -> Path:
        """Return where a listed file lies on this machine."""
        return self._source.local_path(path)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def ingest_part(
    config: IngestConfig,
    part: Part,
    *,
    on_progress: ProgressCallback | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> str:
    """Write the shards of one part of a source; nothing is visible to readers yet.

    Returns:
        URI of what `commit_parts` needs to know of it.

    Raises:
        InputError: The source cannot be used, or the part has no files.
    """
    if config.extend or config.max_examples_per_class:
        raise InputError("A part neither extends a dataset nor takes a few examples of it.")
    config = replace(config, splits=replace(config.splits, exact_below=0))
    dataset = open_folder(config.store, config.name)
    with open_source(config.source, config.limits) as source:
        fingerprint = source.fingerprint()
        share = PartOfFiles(source, part)
        if next(share.list_files(), None) is None:
            raise InputError(
                f"Part {part.number} of {part.count} of {source.uri!r} has no files; use fewer"
                " parts."
            )
        ingestion = Ingestion(
            config=config,
            kind=KINDS[config.kind],
            source=share,
            dataset=dataset,
            report=on_progress or (lambda _: None),
        )
        with ingesting(dataset):
            manifest, record = ingestion.produce(clock())
            ingestion.check_unchanged(fingerprint)
            document = {
                "manifest": manifest.render().decode(),
                "record": record.render().decode(),
                "number": part.number,
                "count": part.count,
                "fingerprint": fingerprint,
            }
            data = json.dumps(document, sort_keys=True).encode()
            key = f"{PARTS}/{hashlib.sha256(data).hexdigest()}.json"
            dataset.write(key, data)
    return dataset.uri_of(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadPart:
    part: Part
    fingerprint: str
    manifest: Manifest
    record: Record


def commit_parts(uris: Sequence[str], *, message: str = "") -> Commit:
    """Make one commit of all parts of a source.

    Args:
        uris: What `ingest_part` returned, in any order.
        message: Why the commit is made.

    Raises:
        InputError: A part is missing, or the parts are not of one state of one source.
    """
    if not uris:
        raise InputError("There are no parts to commit.")
    dataset = open_store(uris[0].rsplit("/", 2)[0])
    # A step that was ended right after its commit is run again with the same parts.
    known = f"sources/{hashlib.sha256(repr(sorted(uris)).encode()).hexdigest()}.json"
    with ingesting(dataset):
        commit = recall(dataset, known)
        if commit is not None:
            return commit
        return _commit(dataset, uris, known=known, message=message)


def _commit(dataset: ObjectStore, uris: Sequence[str], *, known: str, message: str) -> Commit:
    parts = sorted((_read_part(uri) for uri in uris), key=lambda read: read.part.number)
    _check_complete(parts)
    record = _join_records([read.record for read in parts], message=message)
    filled = [read for read in parts if read.manifest.splits]
    _check_columns(filled, record)
    chosen: dict[str, dict[str, Shard]] = {}
    for read in filled:
        for split, shards in read.manifest.splits.items():
            chosen.setdefault(split, {}).update({shard.sha256: shard for shard in shards})
    union = unite([read.manifest for read in filled])
    manifest = replace(union, splits=order_shards(chosen))
    check_classes(KINDS[manifest.kind], manifest.labels, source_uri=record.source_uri)
    if gone := {shard.key for shard in manifest.shards} - set(dataset.list(SHARDS)):
        raise InputError(f"{min(gone)} of a part is gone; ingest the parts again.")
    with taking_turns(dataset):
        commit = publish(dataset, manifest, replace(record, parent=read_head(dataset)))
        commit = mark_latest(dataset, commit, source_uri=record.source_uri)
        remember(dataset, known, commit)
    for uri in uris:
        dataset.delete(f"{PARTS}/{uri.rpartition('/')[2]}")
    return commit


def _read_part(uri: str) -> _ReadPart:
    store, name = open_object(uri)
    document = json.loads(store.read(name))
    return _ReadPart(
        part=Part(number=document["number"], count=document["count"]),
        fingerprint=document["fingerprint"],
        manifest=parse_manifest(document["manifest"].encode()),
        record=Record.parse(document["record"].encode()),
    )


def list_shards(dataset: ObjectStore, key: str, *, now: float) -> set[str] | None:
    """Return the sha256 of the shards of a part that waits; None where a failed run left it."""
    read = _read_part(dataset.uri_of(key))
    made = datetime.fromisoformat(read.record.created_at)
    if now - made.timestamp() >= WAITING_SECONDS:
        return None
    return {shard.sha256 for shard in read.manifest.shards}


def _check_complete(parts: Sequence[_ReadPart]) -> None:
    if not parts or [read.part.number for read in parts] != list(range(parts[0].part.count)):
        numbers = ", ".join(str(read.part.number) for read in parts) or "none"
        raise InputError(f"The parts of a source must all be there, once: there are {numbers}.")
    first = parts[0]
    for read in parts[1:]:
        if (read.record.source_uri, read.fingerprint, read.record.settings) != (
            first.record.source_uri,
            first.fingerprint,
            first.record.settings,
        ):
            raise InputError(
                f"Parts {first.part.number} and {read.part.number} are not of one state of one"
                " source, ingested alike; ingest all parts again."
            )


def _check_columns(filled: Sequence[_ReadPart], record: Record) -> None:
    """Refuse parts of different columns, and a source of which no part has examples."""
    if not filled:
        left_out = "".join(f" ({entry.path}: {entry.reason})" for entry in record.rejected[:1])
        raise InputError(f"The source {record.source_uri!r} has no examples{left_out}.")
    first = filled[0]
    for read in filled[1:]:
        if dict(read.manifest.schema) != dict(first.manifest.schema):
            raise InputError(
                f"Part {read.part.number} has the columns {dict(read.manifest.schema)}, part"
                f" {first.part.number} has {dict(first.manifest.schema)}."
            )


def _join_records(records: Sequence[Record], *, message: str) -> Record:
    digests = "".join(record.source_digest for record in records)
    findings: tuple[Finding, ...] = tuple(f for record in records for f in record.findings)
    return replace(
        records[0],
        message=message or records[0].message,
        source_digest=hashlib.sha256(digests.encode()).hexdigest(),
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        findings=findings,
        num_rejected=sum(record.num_rejected for record in records),
        rejected=tuple(entry for record in records for entry in record.rejected)[:1000],
    )
