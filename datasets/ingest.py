"""Turn raw data into a commit.

The source is scanned once, in batches: every example is checked, hashed and noted in a file on this
machine (rows of tables whole, images by their path). Then, knowing all classes, the noted examples
are dealt out to splits and packed into shards. Memory stays flat. A source that changes in between
is noticed and refused. Nothing is visible to readers before the manifest, which is written last.
"""

from __future__ import annotations

import getpass
import hashlib
import heapq
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.commits import (
    Commit,
    Manifest,
    Record,
    Shard,
    publish,
    read_commit,
)
from kubeloop.datasets.findings import MAX_LISTED, ScanLog
from kubeloop.datasets.history import mark_latest, read_head
from kubeloop.datasets.kinds import KINDS, DatasetKind, ScanOptions, sort_labels
from kubeloop.datasets.packing import Packing, packers
from kubeloop.datasets.sampling import ClassSampler
from kubeloop.datasets.shards.base import DIGEST, LABEL, SPLIT
from kubeloop.datasets.sources import Source, SourceLimits, open_source
from kubeloop.datasets.splits import Dealer, SplitConfig
from kubeloop.datasets.stores import ObjectStore, open_store
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?")
_MAX_NAMED = 10
_MAX_LABELS = 100_000
_SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """One ingestion."""

    name: str
    """Name of the dataset: lower-case letters, digits, '-', '_' and '.'."""
    source: str
    """Where the raw data lies: a path or a URI."""
    store: str
    """Root URI of all datasets; the commit goes below `<store>/<name>/`."""
    kind: str = "image_classification"
    """Kind of dataset."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Fractions and seed of the splits, for examples that the source does not assign to one."""
    scan: ScanOptions = field(default_factory=ScanOptions)
    """How the source is read."""
    limits: SourceLimits = field(default_factory=SourceLimits)
    """What the source may ask of this machine."""
    max_corrupt_fraction: float = 0.0
    """Fraction of unreadable examples that is left out; more is an error. By default any is."""
    max_examples_per_class: int = 0
    """Take only so many distinct examples of each class, chosen by content and seed; 0: all."""
    shard_bytes: int = 32 << 20
    """Size that the shards of a big split have about."""
    message: str = ""
    """Why the commit is made."""
    author: str = ""
    """Who makes it; empty: the user of this process."""
    full: bool = False
    """Read a source again although it looks unchanged by times and sizes."""

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
        if self.shard_bytes < 1:
            raise InputError(f"shard_bytes must be positive, not {self.shard_bytes!r}.")
        if self.max_examples_per_class < 0:
            raise InputError(
                "max_examples_per_class must be 0 for all, or positive, not"
                f" {self.max_examples_per_class!r}."
            )

    def render_settings(self) -> dict[str, Any]:
        """Return the settings that shape a commit's content."""
        return {
            "kind": self.kind,
            "splits": asdict(self.splits),
            "scan": asdict(self.scan),
            "max_corrupt_fraction": self.max_corrupt_fraction,
            "max_examples_per_class": self.max_examples_per_class,
            "shard_bytes": self.shard_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an ingestion is."""

    stage: str
    """`scan` or `pack`."""
    done: int
    """Examples."""
    total: int
    """Examples; 0 where it is not known yet."""


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
        on_progress: Called for every batch of every pass.
        clock: Gives the commit's time.

    Raises:
        InputError: The source cannot be used; the message names what to put right.
    """
    kind = KINDS[config.kind]
    dataset = open_store(f"{config.store.rstrip('/')}/{config.name}")
    with open_source(config.source, config.limits) as source:
        ingestion = _Ingestion(
            config=config,
            kind=kind,
            source=source,
            dataset=dataset,
            report=on_progress or (lambda _: None),
        )
        return ingestion.run(clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ingestion:
    config: IngestConfig
    kind: DatasetKind
    source: Source
    dataset: ObjectStore
    report: ProgressCallback

    def run(self, clock: Callable[[], datetime]) -> Commit:
        started_at = clock()
        fingerprint = self.source.fingerprint()
        recognition_key = self._recognition_key(fingerprint)
        known = self._recognise(recognition_key) if fingerprint and not self.config.full else None
        if known is not None:
            return mark_latest(
                self.dataset, replace(known, is_new=False), source_uri=self.source.uri
            )
        with _Spool.temporary() as spool, _Spool.temporary() as chosen:
            log = ScanLog()
            scan = self._scan(spool, log)
            if self.config.max_examples_per_class and self.kind.is_labelled:
                scan, spool = self._sample(spool, scan, into=chosen), chosen
            shards = self._pack(spool, scan)
        if self.source.fingerprint() != fingerprint:
            raise InputError(
                f"The source {self.source.uri!r} changed while it was ingested; ingest again when"
                " nothing writes to it."
            )
        manifest = Manifest(
            kind=self.kind.name,
            schema=self.kind.describe_schema(spool.schema),
            labels=scan.labels,
            splits=shards,
            sample=scan.sample,
        )
        commit = publish(self.dataset, manifest, self._record(scan, log, started_at))
        if fingerprint:
            self.dataset.write(recognition_key, _render({"version_hash": commit.version_hash}))
        return mark_latest(self.dataset, commit, source_uri=self.source.uri)

    def _recognition_key(self, fingerprint: str) -> str:
        state = {"fingerprint": fingerprint, "settings": self.config.render_settings()}
        name = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        return f"sources/{name}.json"

    def _recognise(self, recognition_key: str) -> Commit | None:
        if not self.dataset.exists(recognition_key):
            return None
        version_hash = json.loads(self.dataset.read(recognition_key))["version_hash"]
        key = f"commits/{version_hash}.json"
        return read_commit(self.dataset.uri_of(key)) if self.dataset.exists(key) else None

    def _scan(self, spool: _Spool, log: ScanLog) -> _Scan:
        scan = _Scan(self.config)
        for found in self.kind.scan(self.source, options=self.config.scan, log=log):
            rows = _reject_unlabelled(found, log) if self.kind.is_labelled else found
            scan.add(rows, self.kind)
            spool.add(rows)
            self.report(Progress(stage="scan", done=scan.num_rows, total=0))
        _refuse_too_many(log, config=self.config)
        if self.kind.is_labelled and len(scan.labels) < 2:
            raise InputError(
                f"The source {self.source.uri!r} has one class, {scan.labels[0]!r};"
                " classification needs two."
                if scan.labels
                else f"The source {self.source.uri!r} has no examples."
            )
        return scan

    def _sample(self, spool: _Spool, scan: _Scan, *, into: _Spool) -> _Scan:
        """Copy the rows of the chosen examples; what is known is known of them alone."""
        chosen = _Scan(self.config)
        for rows in spool.read():
            columns = (rows.column(name).to_pylist() for name in (LABEL, DIGEST))
            mask = [scan.sampler.chooses(*pair) for pair in zip(*columns, strict=True)]
            if any(mask):
                part = rows.filter(mask)
                chosen.add(part, self.kind)
                into.add(part)
        return chosen

    def _pack(self, spool: _Spool, scan: _Scan) -> dict[str, tuple[Shard, ...]]:
        """Write the shards; return them by split."""
        done = 0
        packing = Packing(
            self.dataset,
            kind=self.kind,
            source=self.source,
            shard_bytes=self.config.shard_bytes,
        )
        with packers(packing.open_packer) as by_split:
            for rows in spool.read():
                for split, part in _deal(rows, scan.dealer):
                    by_split[split].add(part)
                done += rows.num_rows
                self.report(Progress(stage="pack", done=done, total=scan.num_rows))
        names = [*self.config.splits.fractions(), *sorted(by_split)]
        return {
            split: tuple(by_split[split].shards)
            for split in dict.fromkeys(names)
            if split in by_split or not scan.is_declared
        }

    def _record(self, scan: _Scan, log: ScanLog, created_at: datetime) -> Record:
        return Record(
            name=self.config.name,
            source_uri=self.source.uri,
            source_digest=scan.digest,
            message=self.config.message,
            author=self.config.author or _current_user(),
            created_at=created_at.isoformat(timespec="seconds"),
            parent=read_head(self.dataset),
            settings=self.config.render_settings(),
            notes=tuple(log.notes),
            num_rejected=log.num_corrupt + log.num_ignored,
            rejected=(*log.corrupt, *log.ignored)[:MAX_LISTED],
        )


class _Scan:
    """What is known of the examples after the first pass; bounded however many there are."""

    def __init__(self, config: IngestConfig) -> None:
        self.dealer = Dealer(config.splits)
        self.sampler = ClassSampler(config.max_examples_per_class, seed=config.splits.seed)
        self.num_rows = 0
        self.is_declared = False
        self._labels: set[str] = set()
        self._contents = hashlib.sha256()
        self._label_names = hashlib.sha256()
        self._sample: list[tuple[int, dict[str, Any]]] = []

    def add(self, rows: pa.RecordBatch, kind: DatasetKind) -> None:
        """Take note of a batch."""
        digests = rows.column(DIGEST).to_pylist()
        labels = rows.column(LABEL).to_pylist()
        splits = rows.column(SPLIT).to_pylist()
        self.num_rows += rows.num_rows
        if self.sampler.limit:
            self.sampler.observe(labels, digests)
        self._labels.update(label for label in labels if label)
        if len(self._labels) > _MAX_LABELS:
            raise InputError(
                f"More than {_MAX_LABELS} different labels; is the label column an identifier?"
            )
        self._contents.update(b"".join(digests))
        self._label_names.update("\0".join([*labels, ""]).encode())
        dealt = [index for index, split in enumerate(splits) if not split]
        self.is_declared |= len(dealt) < len(splits)
        self.dealer.observe([labels[index] for index in dealt], [digests[index] for index in dealt])
        self._add_sample(rows, digests, kind)

    def _add_sample(self, rows: pa.RecordBatch, digests: list[bytes], kind: DatasetKind) -> None:
        places = heapq.nsmallest(_SAMPLE_SIZE, range(len(digests)), key=digests.__getitem__)
        known = dict(self._sample)
        for place in places:
            row = kind.describe_row(rows.slice(place, 1).to_pylist()[0])
            known.setdefault(int.from_bytes(digests[place]), row)
        self._sample = [(digest, known[digest]) for digest in sorted(known)[:_SAMPLE_SIZE]]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of their index."""
        return sort_labels(self._labels)

    @property
    def digest(self) -> str:
        """Hash over contents and labels, in the order of the source."""
        combined = self._contents.digest() + self._label_names.digest()
        return hashlib.sha256(combined).hexdigest()

    @property
    def sample(self) -> tuple[Mapping[str, Any], ...]:
        """The examples with the smallest digests."""
        return tuple({"digest": f"{digest:064x}", **row} for digest, row in self._sample)


class _Spool:
    """Scanned rows in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None  # Any: pyarrow has no types

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[_Spool]:
        """Keep rows for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="kubeloop-ingest-") as folder:
            yield cls(Path(folder) / "rows.arrow")

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        import pyarrow as pa

        if self._writer is None:
            self.schema = rows.schema
            self._writer = pa.ipc.new_stream(str(self._path), rows.schema)
        self._writer.write_batch(rows)

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in the order in which they were added."""
        import pyarrow as pa

        self._writer.close()
        with self._path.open("rb") as file, pa.ipc.open_stream(file) as reader:
            yield from reader


def _deal(rows: pa.RecordBatch, dealer: Dealer) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows of each split, in order."""
    import numpy as np

    columns = (rows.column(name).to_pylist() for name in (SPLIT, LABEL, DIGEST))
    splits = np.array(
        [split or dealer.deal(label, digest) for split, label, digest in zip(*columns, strict=True)]
    )
    for split in np.unique(splits):
        yield str(split), rows.take(np.flatnonzero(splits == split))


def _reject_unlabelled(rows: pa.RecordBatch, log: ScanLog) -> pa.RecordBatch:
    import pyarrow.compute as pc

    has_label = pc.not_equal(rows.column(LABEL), "")
    without = rows.filter(pc.invert(has_label))
    for row in without.to_pylist():
        content = str(row.get("path") or row.get("text"))[:80]
        log.reject(repr(content), "no label")
    return rows.filter(has_label) if without.num_rows else rows


def _current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for the user id, as in many containers
        return ""


def _render(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _refuse_too_many(log: ScanLog, *, config: IngestConfig) -> None:
    fraction = log.num_corrupt / max(log.num_seen, 1)
    if fraction <= config.max_corrupt_fraction:
        return
    named = "; ".join(f"{entry.path}: {entry.reason}" for entry in log.corrupt[:_MAX_NAMED])
    more = f"; and {log.num_corrupt - _MAX_NAMED} more" if log.num_corrupt > _MAX_NAMED else ""
    raise InputError(
        f"{log.num_corrupt} of {log.num_seen} examples in {config.source!r} cannot be read"
        f" ({named}{more}); repair or remove them, or allow max_corrupt_fraction {fraction:.4f}."
    )
