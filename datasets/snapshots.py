"""Snapshots: commits put together, filtered by label or split.

A snapshot is a manifest like a commit's. It lists the shards that its commits have, each once;
those that hold labels it leaves out are written again without them. It depends on the content
chosen alone: not on when it is taken, nor on the order in which the commits are named. A selection
that is just one whole commit is that commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from kubeloop.datasets.commits import (
    COMMITS,
    SNAPSHOTS,
    Commit,
    Manifest,
    Record,
    Shard,
    dataset_of,
    publish,
)
from kubeloop.datasets.joining import join, order_shards
from kubeloop.datasets.leases import ingesting
from kubeloop.datasets.packing import disk_errors
from kubeloop.datasets.rewriting import rewrite
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError


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
    first = _check_one_dataset(commits)
    known = {label for commit in commits for label in commit.labels}
    _check_known(labels, known, what="label")
    _check_known(splits, {s for commit in commits for s in commit.manifest.splits}, what="split")
    dataset = dataset_of(first.uri)
    kept = frozenset(labels or known)
    # Shards that it writes, and that nothing names yet, are no garbage meanwhile.
    with ingesting(dataset), disk_errors("take a snapshot", store=dataset.uri):
        there = {*dataset.list(COMMITS), *dataset.list(SNAPSHOTS)}
        if gone := {"/".join(commit.uri.rsplit("/", 2)[1:]) for commit in commits} - there:
            raise InputError(f"The dataset {dataset.uri} has no {min(gone)}; was it deleted?")
        manifest = join(
            dataset,
            [_filter(commit, labels=kept, splits=splits, dataset=dataset) for commit in commits],
            label_column=first.label_column,
        )
        if not any(manifest.splits.values()):
            raise InputError("The snapshot would be empty; choose other labels or splits.")
        for commit in commits:
            if manifest is commit.manifest:
                return commit
        record = Record(
            name=first.name,
            source_uri=", ".join(commit.uri for commit in commits),
            message=message,
            created_at=created_at,
            settings={
                "labels": sorted(labels),
                "splits": sorted(splits),
                "scan": {"label_column": first.label_column},
            },
        )
        return publish(dataset, manifest, record, folder=SNAPSHOTS)


def _check_one_dataset(commits: Sequence[Commit]) -> Commit:
    if not commits:
        raise InputError("A snapshot needs at least one commit.")
    for other in commits[1:]:
        if other.name != commits[0].name:
            raise InputError(f"{commits[0].name!r} and {other.name!r} are two datasets.")
    return commits[0]


def _check_known(wanted: Collection[str], known: Collection[str], *, what: str) -> None:
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(
            f"The commits have no {what} {unknown[0]!r}; they have {', '.join(sorted(known))}."
        )


def _filter(
    commit: Commit, *, labels: frozenset[str], splits: Collection[str], dataset: ObjectStore
) -> Manifest:
    """Return a commit's manifest without other labels and splits."""
    manifest = commit.manifest
    if labels.issuperset(manifest.labels) and (not splits or set(manifest.splits) <= set(splits)):
        return manifest
    chosen: dict[str, dict[str, Shard]] = {}
    for split, shards in manifest.splits.items():
        if not splits or split in splits:
            kept = _keep_labels(commit, shards, labels=labels, dataset=dataset)
            chosen[split] = {shard.sha256: shard for shard in kept}
    return Manifest(
        kind=manifest.kind,
        schema=manifest.schema,
        labels=tuple(label for label in manifest.labels if label in labels),
        splits=order_shards(chosen),
        sample=tuple(row for row in manifest.sample if not labels or row.get("label") in labels),
    )


def _keep_labels(
    commit: Commit, shards: Sequence[Shard], *, labels: frozenset[str], dataset: ObjectStore
) -> Iterator[Shard]:
    """Yield shards that hold no other labels, written again where need be."""
    for shard in shards:
        held = shard.statistics.labels.keys()
        if held <= labels:
            yield shard
        elif held & labels:
            yield from rewrite(
                dataset,
                commit.manifest,
                [shard],
                keep=lambda label, _: label in labels,
                label_column=commit.label_column,
            )
