"""Snapshots: commits put together, filtered by label or split.

A snapshot is a manifest like a commit's. It lists the shards that its commits have, each once;
those that hold labels it leaves out are written again without them. It depends on the content
chosen alone: not on when it is taken, nor on the order in which the commits are named. A selection
that is just one whole commit is that commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.commits import (
    SNAPSHOTS,
    Commit,
    Manifest,
    Record,
    Shard,
    dataset_of,
    merge_samples,
    publish,
)
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.kinds import KINDS, ScanOptions, sort_labels
from kubeloop.datasets.packing import Packing, packers
from kubeloop.datasets.reading import Dataset, EncodedImage, ImageSplit
from kubeloop.datasets.shards.base import LABEL
from kubeloop.datasets.sources.base import Source, SourceFile
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 16 << 20


def take_snapshot(
    commits: Sequence[Commit],
    *,
    labels: Collection[str] = (),
    splits: Collection[str] = (),
    message: str = "",
    created_at: str = "",
) -> Commit:
    """Put commits of one dataset together.

    Args:
        commits: At least one; all of one dataset, kind and schema.
        labels: Labels to keep; empty: all.
        splits: Splits to keep; empty: all.
        message: Why the snapshot is taken.
        created_at: When.

    Raises:
        InputError: The commits do not go together, or nothing is left of them.
    """
    commits = sorted(commits, key=lambda commit: commit.version_hash)
    first = _check_alike(commits)
    known = {label for commit in commits for label in commit.labels}
    _check_known(labels, known, what="label")
    _check_known(splits, {s for commit in commits for s in commit.manifest.splits}, what="split")
    if len({commit.version_hash for commit in commits}) == 1 and not labels and not splits:
        return first
    dataset = dataset_of(first.uri)
    kept = frozenset(labels or known)
    chosen: dict[str, dict[str, Shard]] = {}
    for commit in commits:
        for split, shards in commit.manifest.splits.items():
            if not splits or split in splits:
                parts = chosen.setdefault(split, {})
                for shard in _filter(commit, shards, labels=kept, dataset=dataset):
                    parts[shard.sha256] = shard
    manifest = Manifest(
        kind=first.manifest.kind,
        schema=first.manifest.schema,
        labels=sort_labels(kept),
        splits={split: tuple(parts.values()) for split, parts in sorted(chosen.items())},
        sample=merge_samples(
            [
                [row for row in commit.manifest.sample if row.get("label", "") in (kept or {""})]
                for commit in commits
            ]
        ),
    )
    if not any(manifest.splits.values()):
        raise InputError("The snapshot would be empty; choose other labels or splits.")
    record = Record(
        name=first.name,
        source_uri=", ".join(commit.uri for commit in commits),
        message=message,
        created_at=created_at,
        settings={"labels": sorted(labels), "splits": sorted(splits)},
    )
    return publish(dataset, manifest, record, folder=SNAPSHOTS)


def _check_alike(commits: Sequence[Commit]) -> Commit:
    if not commits:
        raise InputError("A snapshot needs at least one commit.")
    first = commits[0]
    for other in commits[1:]:
        if other.name != first.name:
            raise InputError(f"Commits of {first.name!r} and {other.name!r} are two datasets.")
        if (other.manifest.kind, dict(other.manifest.schema)) != (
            first.manifest.kind,
            dict(first.manifest.schema),
        ):
            raise InputError(
                f"The commits differ in kind or schema: {first.manifest.kind}"
                f" {dict(first.manifest.schema)} and {other.manifest.kind}"
                f" {dict(other.manifest.schema)}."
            )
    return first


def _check_known(wanted: Collection[str], known: Collection[str], *, what: str) -> None:
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(
            f"The commits have no {what} {unknown[0]!r}; they have {', '.join(sorted(known))}."
        )


def _filter(
    commit: Commit, shards: Sequence[Shard], *, labels: frozenset[str], dataset: ObjectStore
) -> Iterator[Shard]:
    """Yield shards that hold no other labels, written again where need be."""
    mixed: list[Shard] = []
    for shard in shards:
        held = shard.statistics.labels.keys()
        if held <= labels:
            yield shard
        elif held & labels:
            mixed.append(shard)
    for shard in mixed:
        yield from _rewrite(commit, shard, labels=labels, dataset=dataset)


def _rewrite(
    commit: Commit, shard: Shard, *, labels: frozenset[str], dataset: ObjectStore
) -> Sequence[Shard]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = KINDS[commit.manifest.kind]
    source = ShardRows(Dataset(commit), [shard])
    packing = Packing(dataset, kind=kind, source=source, shard_bytes=2 * shard.num_bytes + 1)
    wanted = pa.array(sorted(labels), pa.string())
    with packers(packing.open_packer) as by_split:
        for rows in kind.scan(source, options=ScanOptions(), log=ScanLog()):
            by_split[""].add(rows.filter(pc.is_in(rows.column(LABEL), value_set=wanted)))
    return by_split[""].shards


class ShardRows(Source):
    """The rows of a commit's shards, as a source to scan again."""

    has_rows = True

    def __init__(self, dataset: Dataset, shards: Sequence[Shard]) -> None:
        self.uri = dataset.commit.uri
        self._split = dataset.read_shards(shards)

    def read_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, with images in a column."""
        if not isinstance(self._split, ImageSplit):
            yield from self._split.batches()
            return
        images: list[EncodedImage] = []
        num_bytes = 0
        names = sorted(
            {name for index in range(len(self._split)) for name in self._split.metadata(index)}
        )
        for image in self._split:
            images.append(image)
            num_bytes += len(image.data)
            if num_bytes >= _BATCH_BYTES:
                yield _to_batch(images, names)
                images, num_bytes = [], 0
        if images:
            yield _to_batch(images, names)

    def list_files(self) -> Iterator[SourceFile]:
        """Yield nothing: there are rows."""
        return iter(())

    def read(self, path: str, *, version: str = "") -> bytes:  # noqa: ARG002 - there are none
        """Refuse: there are no files."""
        raise InputError(f"{self.uri!r} has rows and no file {path!r}.")

    def local_path(self, path: str) -> Path:
        """Refuse: there are no files."""
        raise InputError(f"{self.uri!r} has rows and no file {path!r}.")


def _to_batch(images: Sequence[EncodedImage], names: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {
        "image": [{"bytes": image.data, "path": image.path} for image in images],
        "label": [image.label for image in images],
    }
    for name in names:
        columns[name] = [image.metadata.get(name) for image in images]
    return pa.RecordBatch.from_pydict(columns)
