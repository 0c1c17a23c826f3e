"""Comparing and removing commits, and freeing what none of them uses."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from kubeloop.datasets.commits import (
    COMMITS,
    KEYS,
    PARTS,
    SHARDS,
    SNAPSHOTS,
    Commit,
    Shard,
    dataset_of,
    read_manifest,
)
from kubeloop.datasets.history import (
    HEAD,
    list_versions,
    read_head,
    read_log,
    read_tags,
    read_version_hash,
    write_head,
)
from kubeloop.datasets.leases import collecting, taking_turns
from kubeloop.datasets.parts import list_shards
from kubeloop.datasets.reading import Dataset, EncodedImage
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError, IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDiff:
    """How one split changed."""

    added: dict[str, int]
    """Examples that only the newer commit has, by label."""
    removed: dict[str, int]
    """Examples that only the older one has, by label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitDiff:
    """What is different between two commits."""

    added_labels: tuple[str, ...]
    removed_labels: tuple[str, ...]
    splits: dict[str, SplitDiff]
    """By split; only those that changed."""
    num_shared_bytes: int
    """Bytes of the shards that both have."""
    num_new_bytes: int
    """Bytes of the shards that only the newer one has."""


def diff(old: Commit, new: Commit) -> CommitDiff:
    """Compare two commits example by example; shards that both have are not read."""
    old_shards = {shard.sha256 for shard in old.manifest.shards}
    names = dict.fromkeys([*old.manifest.splits, *new.manifest.splits])
    splits: dict[str, SplitDiff] = {}
    for split in names:
        before, after = old.manifest.splits.get(split, ()), new.manifest.splits.get(split, ())
        common = {shard.sha256 for shard in before} & {shard.sha256 for shard in after}
        gone = _count_examples(old, [shard for shard in before if shard.sha256 not in common])
        come = _count_examples(new, [shard for shard in after if shard.sha256 not in common])
        added, removed = _by_label(come - gone), _by_label(gone - come)
        if added or removed:
            splits[split] = SplitDiff(added=added, removed=removed)
    shards = {shard.sha256: shard.num_bytes for shard in new.manifest.shards}
    return CommitDiff(
        added_labels=tuple(label for label in new.labels if label not in old.labels),
        removed_labels=tuple(label for label in old.labels if label not in new.labels),
        splits=splits,
        num_shared_bytes=sum(size for sha, size in shards.items() if sha in old_shards),
        num_new_bytes=sum(size for sha, size in shards.items() if sha not in old_shards),
    )


def _count_examples(commit: Commit, shards: list[Shard]) -> Counter[tuple[str, bytes]]:
    counts: Counter[tuple[str, bytes]] = Counter()
    split = Dataset(commit).read_shards(shards)
    for item in split:
        if isinstance(item, EncodedImage):
            counts[item.label, hashlib.sha256(item.data).digest()] += 1
        elif isinstance(item, tuple):
            text, index = item
            counts[commit.labels[index], hashlib.sha256(text.encode()).digest()] += 1
        else:
            counts["", hashlib.sha256(repr(sorted(item.items())).encode()).digest()] += 1
    return counts


def _by_label(examples: Counter[tuple[str, bytes]]) -> dict[str, int]:
    labels: Counter[str] = Counter()
    for (label, _), count in examples.items():
        labels[label] += count
    return dict(sorted(labels.items()))


def delete_commit(commit: Commit) -> None:
    """Remove a commit or snapshot; `collect_garbage` frees what nothing else uses.

    Its manifest goes first, so that nobody sees part of it. Where it was the newest, its parent
    becomes that, or the newest that is left.
    """
    dataset = dataset_of(commit.uri)
    folder = commit.uri.rsplit("/", 2)[1]
    version_hash = commit.version_hash
    dataset.delete(f"{folder}/{version_hash}.json")
    for tag, hashes in read_tags(dataset).items():
        if version_hash in hashes:
            dataset.delete(f"tags/{tag}/{version_hash}")
    # NB: after the manifest, so that there is room for a lease on a disk that was full.
    with taking_turns(dataset):
        if version_hash not in list_versions(dataset).values():
            dataset.delete(f"records/{version_hash}.json")
        if folder == COMMITS and read_head(dataset) == version_hash:
            _choose_head(dataset, preferred=commit.record.parent)


def _choose_head(dataset: ObjectStore, *, preferred: str) -> None:
    left = read_log(dataset)
    if not left:
        dataset.delete(HEAD)
    elif any(entry.version_hash == preferred for entry in left):
        write_head(dataset, preferred)
    else:
        write_head(dataset, left[0].version_hash)


@dataclass(slots=True, kw_only=True)
class Garbage:
    """What no commit or snapshot uses."""

    keys: list[str] = field(default_factory=list)
    num_shards: int = 0
    num_bytes: int = 0


def collect_garbage(
    dataset: ObjectStore, *, dry_run: bool = False, now: Callable[[], float] = time.time
) -> Garbage:
    """Remove what no commit or snapshot of a dataset uses.

    Safe beside ingestions: it gives up where one is running, and one that starts waits.

    Raises:
        TransientError: An ingestion is running.
        InputError: A manifest cannot be read, so that what it uses is not known.
    """
    with collecting(dataset, now=now):
        garbage = Garbage()
        for key in _find_garbage(dataset, now=now()):
            garbage.keys.append(key)
            if key.startswith(f"{SHARDS}/"):
                garbage.num_shards += 1
                garbage.num_bytes += dataset.size(key)
            if not dry_run:
                dataset.delete(key)
        if not dry_run:
            dataset.remove_stale_staging()
    return garbage


def _find_garbage(dataset: ObjectStore, *, now: float) -> Iterator[str]:
    manifests = [*dataset.list(COMMITS), *dataset.list(SNAPSHOTS)]
    known = {_read_version(dataset, key) for key in manifests}
    used = {shard.sha256 for key in manifests for shard in read_manifest(dataset, key).shards}
    for key in list(dataset.list(PARTS)):
        waiting = list_shards(dataset, key, now=now)
        if waiting is None:
            yield key
        else:
            used |= waiting
    for folder in (SHARDS, KEYS):
        yield from (key for key in list(dataset.list(folder)) if PurePath(key).stem not in used)
    for folder in ("records", "tags", "sources"):
        yield from (
            key for key in list(dataset.list(folder)) if _read_version(dataset, key) not in known
        )


def _read_version(dataset: ObjectStore, key: str) -> str:
    """Return the version hash of the commit that a manifest, record, tag or source is about."""
    if not key.startswith("sources/"):
        return key.rpartition("/")[2].removesuffix(".json")
    try:
        return read_version_hash(dataset, key)
    except IntegrityError:  # it would recognise nothing
        return ""


def delete_dataset(dataset: ObjectStore) -> Garbage:
    """Remove a dataset with all its commits, snapshots and waiting parts.

    Raises:
        TransientError: An ingestion is running.
    """
    with collecting(dataset):
        dataset.delete(HEAD)
        for folder in (COMMITS, SNAPSHOTS, PARTS):
            for key in list(dataset.list(folder)):
                dataset.delete(key)
    garbage = collect_garbage(dataset)
    if any(dataset.list()):
        raise InputError(f"{dataset.uri!r} still holds objects that are no dataset's.")
    return garbage
