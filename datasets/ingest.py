"""Turn raw data into a commit.

Three passes over the source, each flat in memory: hash everything (which recognises data that was
ingested before), check every example, pack the shards. A source that changes in between is noticed
and refused. Nothing is visible to readers before the manifest, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from kubeloop.datasets.commits import (
    Commit,
    Manifest,
    Shard,
    VersionHash,
    build_commit,
    read_commit,
)
from kubeloop.datasets.images import DEFAULT_MAX_PIXELS
from kubeloop.datasets.kinds import KINDS, Candidate, DatasetKind, Rejection
from kubeloop.datasets.shards import ShardRow, pack_shards
from kubeloop.datasets.sources import Source, open_source
from kubeloop.datasets.splits import SplitConfig, assign_splits, order_key
from kubeloop.datasets.stores import ObjectStore, open_store
from kubeloop.errors import InputError

_NAME = re.compile(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?")
_MAX_LISTED = 1000
_MAX_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """One ingestion."""

    name: str
    """Name of the dataset: lower-case letters, digits, '-', '_' and '.'."""
    source: str
    """Where the raw data lies: a path or a URI."""
    store: str
    """Root URI of all datasets; the commit goes below `<store>/<name>/`."""
    kind: str = "image_folder"
    """Kind of dataset."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Fractions and seed of the splits."""
    max_corrupt_fraction: float = 0.0
    """Fraction of unreadable examples that is left out; more is an error. By default any is."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Images with more pixels count as unreadable."""
    shard_bytes: int = 64 << 20
    """Size that a shard should have, and the memory that packing takes."""
    message: str = ""
    """Why the commit is made."""

    def __post_init__(self) -> None:
        """Refuse what would fail later."""
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"Dataset name {self.name!r} must be at most 63 lower-case letters, digits, '-',"
                " '_' and '.', starting and ending with a letter or digit."
            )
        if not 0 <= self.max_corrupt_fraction < 1:
            raise InputError(
                "max_corrupt_fraction must be from 0 to below 1, not"
                f" {self.max_corrupt_fraction!r}."
            )
        if self.shard_bytes < 1 or self.max_pixels < 1:
            raise InputError("shard_bytes and max_pixels must be positive.")

    def render_settings(self) -> dict[str, Any]:
        """Return the settings that shape a commit's content."""
        return {
            "splits": asdict(self.splits),
            "max_pixels": self.max_pixels,
            "shard_bytes": self.shard_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an ingestion is."""

    stage: str
    """`hash`, `check` or `pack`."""
    done: int
    total: int


ProgressCallback = Callable[[Progress], None]


def ingest(
    config: IngestConfig,
    *,
    on_progress: ProgressCallback | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Commit:
    """Make a commit of a source's data; unchanged data is recognised and adds nothing.

    Args:
        config: What to ingest, and how.
        on_progress: Called for every file of every pass.
        clock: Gives the commit's time.

    Raises:
        InputError: The source cannot be used; the message names what to put right.
    """
    ingestion = _Ingestion(
        config=config,
        kind=KINDS[config.kind],
        source=open_source(config.source),
        dataset=open_store(f"{config.store.rstrip('/')}/{config.name}"),
        report=on_progress or (lambda _: None),
    )
    return ingestion.run(clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Example:
    candidate: Candidate
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ingestion:
    config: IngestConfig
    kind: DatasetKind
    source: Source
    dataset: ObjectStore
    report: ProgressCallback

    def run(self, clock: Callable[[], datetime]) -> Commit:
        listing = self.kind.list_candidates(self.source)
        hashed = self._hash(listing.candidates)
        source_digest = _combine(hashed)
        recognition_key = self._recognition_key(source_digest)
        known = self._recognise(recognition_key)
        if known is not None:
            return replace(known, source_uri=self.source.uri, is_new=False)
        examples, corrupt = self._check(hashed)
        splits, counts = self._pack(examples, listing.labels)
        manifest = Manifest(
            kind=self.kind.name,
            schema=self.kind.describe_schema(),
            labels=listing.labels,
            settings=self.config.render_settings(),
            source_digest=source_digest,
            splits=splits,
            statistics={
                "labels": _sum_counts(listing.labels, counts),
                "splits": counts,
                "num_bytes": sum(example.facts["num_bytes"] for example in examples),
                self.kind.name: self.kind.summarize([example.facts for example in examples]),
            },
        )
        rejected = (*corrupt, *listing.rejected)
        record = {
            "name": self.config.name,
            "source_uri": self.source.uri,
            "message": self.config.message,
            "created_at": clock().isoformat(timespec="seconds"),
            "num_rejected": len(rejected),
            "rejected": [asdict(rejection) for rejection in rejected[:_MAX_LISTED]],
        }
        return self._publish(manifest, record, recognition_key)

    def _hash(self, candidates: Sequence[Candidate]) -> list[_Example]:
        hashed: list[_Example] = []
        for candidate in candidates:
            digest = hashlib.sha256(self.source.read(candidate.path)).hexdigest()
            hashed.append(_Example(candidate=candidate, digest=digest))
            self.report(Progress(stage="hash", done=len(hashed), total=len(candidates)))
        return hashed

    def _recognition_key(self, source_digest: str) -> str:
        settings = {
            "kind": self.kind.name,
            "source_digest": source_digest,
            "max_corrupt_fraction": self.config.max_corrupt_fraction,
            **self.config.render_settings(),
        }
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return f"sources/{name}.json"

    def _recognise(self, recognition_key: str) -> Commit | None:
        if not self.dataset.exists(recognition_key):
            return None
        version_hash = json.loads(self.dataset.read(recognition_key))["version_hash"]
        key = f"commits/{version_hash}.json"
        return read_commit(self.dataset.uri_of(key)) if self.dataset.exists(key) else None

    def _read(self, example: _Example) -> bytes:
        data = self.source.read(example.candidate.path)
        if hashlib.sha256(data).hexdigest() != example.digest:
            raise InputError(
                f"Source file {example.candidate.path!r} in {self.source.uri!r} changed while it"
                " was ingested; ingest again when nothing writes to the source."
            )
        return data

    def _check(self, hashed: Sequence[_Example]) -> tuple[list[_Example], list[Rejection]]:
        examples: list[_Example] = []
        corrupt: list[Rejection] = []
        for number, example in enumerate(hashed, start=1):
            data = self._read(example)
            try:
                facts = self.kind.inspect(data, max_pixels=self.config.max_pixels)
                examples.append(replace(example, facts={**facts, "num_bytes": len(data)}))
            except InputError as error:
                corrupt.append(Rejection(path=example.candidate.path, reason=str(error)))
            self.report(Progress(stage="check", done=number, total=len(hashed)))
        _refuse_too_many(corrupt, num_examples=len(hashed), config=self.config)
        return examples, corrupt

    def _pack(
        self, examples: Sequence[_Example], labels: Sequence[str]
    ) -> tuple[dict[str, tuple[Shard, ...]], dict[str, dict[str, int]]]:
        """Write the shards; return them and the label counts, both by split."""
        contents: dict[str, list[str]] = {label: [] for label in labels}
        for example in examples:
            contents[example.candidate.label].append(example.digest)
        assigned = assign_splits(contents, self.config.splits)
        members: dict[str, list[_Example]] = {split: [] for split in self.config.splits.fractions()}
        for example in examples:
            members[assigned[example.candidate.label, example.digest]].append(example)
        shards = {split: tuple(self._write_shards(rows, labels)) for split, rows in members.items()}
        counts = {split: _count_labels(rows, labels) for split, rows in members.items()}
        return shards, counts

    def _write_shards(self, examples: Sequence[_Example], labels: Sequence[str]) -> Iterator[Shard]:
        seed = self.config.splits.seed
        mixed = sorted(
            examples,
            key=lambda example: order_key(seed, f"{example.digest}:{example.candidate.path}"),
        )
        rows = self._read_rows(mixed, {label: index for index, label in enumerate(labels)})
        for data, num_rows in pack_shards(rows, max_bytes=self.config.shard_bytes):
            digest = hashlib.sha256(data).hexdigest()
            shard = Shard(sha256=digest, num_rows=num_rows, num_bytes=len(data))
            if not self.dataset.exists(shard.key):
                self.dataset.write(shard.key, data)
            yield shard

    def _read_rows(
        self, examples: Sequence[_Example], indices: Mapping[str, int]
    ) -> Iterator[ShardRow]:
        for number, example in enumerate(examples, start=1):
            candidate = example.candidate
            yield ShardRow(
                data=self._read(example),
                extension=PurePosixPath(candidate.path).suffix.lower(),
                class_index=indices[candidate.label],
                label=candidate.label,
                path=candidate.path,
            )
            self.report(Progress(stage="pack", done=number, total=len(examples)))

    def _publish(
        self, manifest: Manifest, record: Mapping[str, Any], recognition_key: str
    ) -> Commit:
        data = manifest.render()
        version_hash = VersionHash(hashlib.sha256(data).hexdigest())
        key = f"commits/{version_hash}.json"
        is_new = not self.dataset.exists(key)
        if is_new:
            self.dataset.write(f"records/{version_hash}.json", _render(record))
            self.dataset.write(key, data)
        self.dataset.write(recognition_key, _render({"version_hash": version_hash}))
        commit = build_commit(self.dataset.uri_of(key), manifest, record)
        return replace(commit, is_new=is_new)


def _render(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _combine(examples: Sequence[_Example]) -> str:
    """Hash the sorted paths and digests of a source."""
    combined = hashlib.sha256()
    for example in sorted(examples, key=lambda example: example.candidate.path):
        combined.update(
            f"{example.candidate.path}\0{example.digest}\n".encode(errors="surrogateescape")
        )
    return combined.hexdigest()


def _refuse_too_many(
    corrupt: Sequence[Rejection], *, num_examples: int, config: IngestConfig
) -> None:
    fraction = len(corrupt) / num_examples
    if fraction <= config.max_corrupt_fraction:
        return
    named = "; ".join(f"{rejection.path}: {rejection.reason}" for rejection in corrupt[:_MAX_NAMED])
    more = f"; and {len(corrupt) - _MAX_NAMED} more" if len(corrupt) > _MAX_NAMED else ""
    raise InputError(
        f"{len(corrupt)} of {num_examples} files in {config.source!r} cannot be read"
        f" ({named}{more}); repair or remove them, or allow max_corrupt_fraction {fraction:.4f}."
    )


def _count_labels(examples: Sequence[_Example], labels: Sequence[str]) -> dict[str, int]:
    counts = Counter(example.candidate.label for example in examples)
    return {label: counts[label] for label in labels}


def _sum_counts(labels: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {label: sum(by_label[label] for by_label in counts.values()) for label in labels}
