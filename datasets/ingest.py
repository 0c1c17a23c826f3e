"""Turn raw data into a commit.

The source is scanned once, in batches: every example is checked, hashed and noted in a file on this
machine (rows of tables whole, images by their path). Then, knowing all classes, the noted examples
are dealt out to splits and packed into shards. Memory stays flat. A source that changes in between
is noticed and refused. Nothing is visible to readers before the manifest, which is written last.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from kubeloop.datasets.commits import Commit, Manifest, Record, Shard, open_folder, publish
from kubeloop.datasets.findings import MAX_LISTED, Finding, ScanLog, Severity
from kubeloop.datasets.history import mark_latest, read_head, read_latest, recall, remember
from kubeloop.datasets.ingest_config import IngestConfig, Progress, ProgressCallback
from kubeloop.datasets.joining import join
from kubeloop.datasets.kinds import KINDS, DatasetKind
from kubeloop.datasets.leases import ingesting, taking_turns
from kubeloop.datasets.packing import Packing, disk_errors, packers
from kubeloop.datasets.scanning import Scan, Spool, deal, reject_unlabelled
from kubeloop.datasets.shards.base import LABEL, list_digests
from kubeloop.datasets.sources import Source, open_source
from kubeloop.datasets.statistics import add_up
from kubeloop.datasets.stores import ObjectStore
from kubeloop.datasets.validation import Validation
from kubeloop.errors import InputError

_MAX_NAMED = 10


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
    dataset = open_folder(config.store, config.name)
    with open_source(config.source, config.limits) as source:
        if f"{dataset.uri}/".startswith(f"{source.uri}/"):
            raise InputError(
                f"The store {config.store!r} lies inside of the source {source.uri!r}; put it"
                " elsewhere."
            )
        ingestion = Ingestion(
            config=config,
            kind=kind,
            source=source,
            dataset=dataset,
            report=on_progress or (lambda _: None),
        )
        return ingestion.run(clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingestion:
    """One source on its way into one dataset."""

    config: IngestConfig
    kind: DatasetKind
    source: Source
    dataset: ObjectStore
    report: ProgressCallback

    def run(self, clock: Callable[[], datetime]) -> Commit:
        started_at = clock()
        fingerprint = self.source.fingerprint()
        with ingesting(self.dataset):
            known = None if self.config.full else self._return_to_known(fingerprint)
            if known is not None:
                return known
            manifest, record = self.produce(started_at)
            self.check_unchanged(fingerprint)
            with taking_turns(self.dataset), self._disk_errors():
                base = self._read_base()
                if base is not None:
                    label_column = self.config.scan.label_column
                    both = [base.manifest, manifest]
                    manifest = join(self.dataset, both, label_column=label_column)
                check_classes(self.kind, manifest.labels, source_uri=self.source.uri)
                record = replace(record, parent=read_head(self.dataset))
                commit = publish(self.dataset, manifest, record)
                if fingerprint:
                    remember(self.dataset, self._recognition_key(fingerprint, base), commit)
                return mark_latest(self.dataset, commit, source_uri=self.source.uri)

    def _return_to_known(self, fingerprint: str) -> Commit | None:
        """Make the commit of the source's very state the newest, if there is one."""
        if not fingerprint:
            return None
        with taking_turns(self.dataset):
            known = recall(self.dataset, self._recognition_key(fingerprint, self._read_base()))
            if known is None:
                return None
            return mark_latest(self.dataset, known, source_uri=self.source.uri)

    def produce(self, started_at: datetime) -> tuple[Manifest, Record]:
        """Scan, validate and pack the source.

        Returns:
            What a commit of it is, and what is to be recorded of it.

        Raises:
            InputError: The source cannot be used.
            PermanentError: There is no room for files on this machine or in the store.
        """
        log = ScanLog()
        with self._disk_errors(), Spool.temporary() as spool, Spool.temporary() as chosen:
            scan = self._scan(spool, log)
            if not scan.num_rows:
                return self._nothing(), self._record(scan, log, created_at=started_at, findings=())
            if self.config.max_examples_per_class and self.kind.is_labelled:
                scan, spool = self._sample(spool, scan, into=chosen), chosen
            with Validation.opened(self.kind, severities=self.config.severities) as validation:
                shards = self._pack(spool, scan, validation)
                findings = validation.conclude(
                    labels=scan.labels,
                    statistics=add_up(
                        shard.statistics for parts in shards.values() for shard in parts
                    ),
                    log=log,
                    read=spool.read,
                )
        _refuse_errors(findings, source=self.config.source)
        manifest = Manifest(
            kind=self.kind.name,
            schema=self.kind.describe_schema(spool.schema),
            labels=scan.labels,
            splits=shards,
            sample=scan.sample,
        )
        return manifest, self._record(scan, log, created_at=started_at, findings=findings)

    def _nothing(self) -> Manifest:
        """Return the manifest of a part without examples, of which no schema is known."""
        return Manifest(kind=self.kind.name, schema={}, labels=(), splits={})

    def _disk_errors(self) -> AbstractContextManager[None]:
        return disk_errors(f"ingest {self.config.source!r}", store=self.config.store)

    def check_unchanged(self, fingerprint: str) -> None:
        """Refuse a source whose fingerprint is another one now."""
        if self.source.fingerprint() != fingerprint:
            raise InputError(
                f"The source {self.source.uri!r} changed while it was ingested; ingest again when"
                " nothing writes to it."
            )

    def _read_base(self) -> Commit | None:
        """Return the commit to extend, if one is to be and is there."""
        return read_latest(self.dataset) if self.config.extend else None

    def _recognition_key(self, fingerprint: str, base: Commit | None) -> str:
        state = {
            "fingerprint": fingerprint,
            "settings": self.config.render_settings(),
            "base": base.version_hash if base is not None else "",
        }
        name = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        return f"sources/{name}.json"

    def _scan(self, spool: Spool, log: ScanLog) -> Scan:
        scan = Scan(self.config)
        for found in self.kind.scan(self.source, options=self.config.scan, log=log):
            rows = reject_unlabelled(found, log) if self.kind.is_labelled else found
            scan.add(rows, self.kind)
            spool.add(rows)
            self.report(Progress(stage="scan", done=scan.num_rows, total=0))
        _refuse_too_many(log, config=self.config)
        if not scan.num_rows and not self.source.is_part:
            raise InputError(f"The source {self.source.uri!r} has no examples.")
        if not (self.config.extend or self.source.is_part):
            check_classes(self.kind, scan.labels, source_uri=self.source.uri)
        return scan

    def _sample(self, spool: Spool, scan: Scan, *, into: Spool) -> Scan:
        """Copy the rows of the chosen examples; what is known is known of them alone."""
        chosen = Scan(self.config)
        for rows in spool.read():
            pairs = zip(rows.column(LABEL).to_pylist(), list_digests(rows), strict=True)
            mask = [scan.sampler.chooses(*pair) for pair in pairs]
            if any(mask):
                part = rows.filter(mask)
                chosen.add(part, self.kind)
                into.add(part)
        return chosen

    def _pack(
        self, spool: Spool, scan: Scan, validation: Validation
    ) -> dict[str, tuple[Shard, ...]]:
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
                for split, part in deal(rows, scan.dealer):
                    by_split[split].add(part)
                    validation.observe(part, split=split)
                done += rows.num_rows
                self.report(Progress(stage="pack", done=done, total=scan.num_rows))
        names = [*self.config.splits.fractions(), *sorted(by_split)]
        return {
            split: tuple(by_split[split].shards)
            for split in dict.fromkeys(names)
            if split in by_split or not scan.is_declared
        }

    def _record(
        self, scan: Scan, log: ScanLog, *, created_at: datetime, findings: tuple[Finding, ...]
    ) -> Record:
        return Record(
            name=self.config.name,
            source_uri=self.source.uri,
            source_digest=scan.digest,
            message=self.config.message,
            author=self.config.author or _current_user(),
            created_at=created_at.isoformat(timespec="seconds"),
            settings=self.config.render_settings(),
            notes=tuple(log.notes),
            findings=findings,
            num_rejected=log.num_corrupt + log.num_ignored,
            rejected=(*log.corrupt, *log.ignored)[:MAX_LISTED],
        )


def check_classes(kind: DatasetKind, labels: Sequence[str], *, source_uri: str) -> None:
    """Refuse data with one class, where there should be classes.

    Raises:
        InputError: It has one.
    """
    if kind.is_labelled and len(labels) < 2:
        raise InputError(
            f"The source {source_uri!r} has one class, {labels[0]!r}; classification needs two."
        )


def _current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for the user id, as in many containers
        return ""


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


def _refuse_errors(findings: tuple[Finding, ...], *, source: str) -> None:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        sentences = " ".join(finding.message for finding in errors)
        examples = "".join(f"\n  {example}" for f in errors for example in f.examples)
        raise InputError(f"Validation refuses {source!r}: {sentences}{examples}")
