"""The commits of a dataset: which there are, what they are called, which is the newest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from kubeloop.datasets.commits import (
    COMMITS,
    KEYS,
    PARTS,
    SHARDS,
    SNAPSHOTS,
    Commit,
    Record,
    VersionHash,
    open_folder,
    read_commit,
    read_record,
)
from kubeloop.datasets.stores import ObjectStore, open_store
from kubeloop.errors import InputError, IntegrityError

LATEST = "latest"
HEAD = "head.json"
_TAG = re.compile(r"[A-Za-z0-9]([-._=A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_SHORTEST_HASH = 4
_NUM_READERS = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A commit in a dataset's log, without its manifest."""

    version_hash: VersionHash
    uri: str
    record: Record
    tags: tuple[str, ...]
    is_latest: bool


def open_named(store: str, name: str) -> ObjectStore:
    """Open the folder of a dataset, also of one that has no version left but their shards.

    Raises:
        InputError: There is none of that name; the message lists those there are.
    """
    names = list_datasets(store)
    if name not in names and not _has_remains(store, name):
        raise InputError(
            f"No dataset {name!r} in {store!r}; there are: {', '.join(names) or 'none'}."
        )
    return open_folder(store, name)


def _has_remains(store: str, name: str) -> bool:
    root = open_store(store)
    if name not in root.list_folders():
        return False
    return not {COMMITS, SNAPSHOTS, SHARDS, KEYS, PARTS}.isdisjoint(root.list_folders(name))


def list_datasets(store: str) -> list[str]:
    """Return the names of the datasets in a store."""
    root = open_store(store)
    return [name for name in root.list_folders() if root.exists(f"{name}/{HEAD}")]


def read_head(dataset: ObjectStore) -> str:
    """Return the version hash of the newest commit, or '' where there is none."""
    try:
        return read_version_hash(dataset, HEAD)
    except InputError:
        return ""


def read_version_hash(dataset: ObjectStore, key: str) -> str:
    """Return the version hash that an object names.

    Raises:
        IntegrityError: The object is damaged.
    """
    data = dataset.read(key)
    try:
        return str(json.loads(data)["version_hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{dataset.uri_of(key)} is damaged: {error!r}.") from error


def read_latest(dataset: ObjectStore) -> Commit | None:
    """Return the newest commit, or None where there is none."""
    head = read_head(dataset)
    return read_commit(dataset.uri_of(f"{COMMITS}/{head}.json")) if head else None


def write_head(dataset: ObjectStore, version_hash: str) -> None:
    """Make a commit the newest, without writing what is there already."""
    if read_head(dataset) != version_hash:
        _write_version_hash(dataset, HEAD, version_hash)


def _write_version_hash(dataset: ObjectStore, key: str, version_hash: str) -> None:
    dataset.write(key, (json.dumps({"version_hash": version_hash}) + "\n").encode())


def list_hashes(dataset: ObjectStore, folder: str = COMMITS) -> list[VersionHash]:
    """Return the version hashes of all commits or snapshots."""
    names = (key.rpartition("/")[2] for key in dataset.list(folder))
    return [VersionHash(name.removesuffix(".json")) for name in names]


def list_versions(dataset: ObjectStore) -> dict[str, VersionHash]:
    """Return the version hashes of all commits and snapshots, by their URI."""
    return {
        dataset.uri_of(f"{folder}/{version_hash}.json"): version_hash
        for folder in (COMMITS, SNAPSHOTS)
        for version_hash in list_hashes(dataset, folder)
    }


def read_log(dataset: ObjectStore) -> list[LogEntry]:
    """Return all commits, the newest first."""
    head, tags = read_head(dataset), read_tags(dataset)
    hashes = list_hashes(dataset)
    records = _read_all(lambda version_hash: read_record(dataset, version_hash), hashes)
    entries = [
        LogEntry(
            version_hash=version_hash,
            uri=dataset.uri_of(f"{COMMITS}/{version_hash}.json"),
            record=record or Record(),
            tags=tuple(tag for tag, tagged in tags.items() if version_hash in tagged),
            is_latest=version_hash == head,
        )
        for version_hash, record in zip(hashes, records, strict=True)
    ]
    return sorted(
        entries, key=lambda entry: (entry.record.created_at, entry.is_latest), reverse=True
    )


def _read_all(read: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """Read many objects side by side: a store far away takes long to answer, not to send."""
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(read, names))


def read_tags(dataset: ObjectStore) -> dict[str, list[str]]:
    """Return the version hashes of the commits that have each tag."""
    tags: dict[str, list[str]] = {}
    for key in dataset.list("tags"):
        _, tag, version_hash = key.split("/")
        tags.setdefault(tag, []).append(version_hash)
    return tags


def check_tag(tag: str) -> str:
    """Return the tag, or refuse one that cannot be told from a version hash or a path.

    Raises:
        InputError: It is not of the form.
    """
    if not _TAG.fullmatch(tag) or tag == LATEST or re.fullmatch("[0-9a-f]{4,64}", tag):
        raise InputError(
            f"Tag {tag!r} must be at most 63 letters, digits, '-', '_', '.' and '=', and neither"
            f" {LATEST!r} nor a number like a version hash."
        )
    return tag


def add_tag(dataset: ObjectStore, version_hash: str, tag: str) -> None:
    """Give a commit a tag; several commits may have it."""
    dataset.write(f"tags/{check_tag(tag)}/{version_hash}", b"")


def remove_tag(dataset: ObjectStore, version_hash: str, tag: str) -> None:
    """Take a tag from a commit."""
    dataset.delete(f"tags/{check_tag(tag)}/{version_hash}")


def resolve(store: str, reference: str) -> Commit:
    """Find a commit or snapshot by what people write.

    Args:
        store: Root URI of all datasets.
        reference: `name` or `name@latest`, `name@<start of the version hash>`, `name@<tag>`, or the
            URI of a manifest.

    Raises:
        InputError: There is none, or more than one.
    """
    if "/" in reference:
        return read_commit(reference)
    name, _, version = reference.partition("@")
    dataset = open_named(store, name)
    found = list(_find(dataset, version or LATEST))
    if len(found) != 1:
        known = ", ".join(sorted(found)[:5]) if found else "see `kubeloop datasets log`"
        problem = "is not unique" if found else "does not exist"
        raise InputError(f"Version {version or LATEST!r} of dataset {name!r} {problem}: {known}.")
    return read_commit(dataset.uri_of(found[0]))


def _find(dataset: ObjectStore, version: str) -> Iterator[str]:
    if version == LATEST:
        if head := read_head(dataset):
            yield f"{COMMITS}/{head}.json"
        return
    hashes = read_tags(dataset).get(version)
    if hashes is not None:
        yield from (f"{COMMITS}/{version_hash}.json" for version_hash in hashes)
        return
    if len(version) < _SHORTEST_HASH:
        raise InputError(f"{version!r} is no tag, and too short for a version hash.")
    for folder in (COMMITS, SNAPSHOTS):
        for version_hash in list_hashes(dataset, folder):
            if version_hash.startswith(version):
                yield f"{folder}/{version_hash}.json"


def select(store: str, references: Sequence[str], *, tag: str = "") -> list[Commit]:
    """Return commits by reference; a bare name with a tag stands for all commits that have it.

    Raises:
        InputError: There is none.
    """
    if not tag:
        return [resolve(store, reference) for reference in references]
    chosen: list[Commit] = []
    for reference in references:
        dataset = open_named(store, reference.partition("@")[0])
        hashes = read_tags(dataset).get(tag, [])
        chosen += _read_all(read_commit, [dataset.uri_of(f"{COMMITS}/{h}.json") for h in hashes])
    if not chosen:
        raise InputError(f"No commit of {', '.join(references)} has the tag {tag!r}.")
    return chosen


def recall(dataset: ObjectStore, key: str) -> Commit | None:
    """Return the commit that was remembered under a key, if it is still there."""
    if not dataset.exists(key):
        return None
    version_hash = read_version_hash(dataset, key)
    manifest = f"{COMMITS}/{version_hash}.json"
    if not dataset.exists(manifest):
        return None
    return replace(read_commit(dataset.uri_of(manifest)), is_new=False)


def remember(dataset: ObjectStore, key: str, commit: Commit) -> None:
    """Note what commit was made of something, to recognise it again."""
    _write_version_hash(dataset, key, commit.version_hash)


def mark_latest(dataset: ObjectStore, commit: Commit, *, source_uri: str) -> Commit:
    """Make a commit the newest; the result says where its data came from this time."""
    write_head(dataset, commit.version_hash)
    return replace(commit, record=replace(commit.record, source_uri=source_uri))
