"""The union of manifests: of a dataset and what is added to it, of commits, of parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kubeloop.datasets.commits import Manifest, Shard
from kubeloop.datasets.example_keys import (
    KeyFiles,
    key_of,
    list_keys,
    read_keys,
    split_keys,
    write_keys,
)
from kubeloop.datasets.kinds import KINDS, sort_labels
from kubeloop.datasets.rewriting import rescan, rewrite
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

_SAMPLE_SIZE = 10


def join(
    dataset: ObjectStore, manifests: Sequence[Manifest], *, label_column: str = ""
) -> Manifest:
    """Return the union of manifests of one kind and schema.

    What several have counts once: shards that are the same, and in others every example, so that a
    dataset and its later state do not double what they share. The result is the first manifest
    that already holds all.

    Args:
        dataset: The dataset's folder in the store; shards are read and written only where two
            manifests share examples but not shards.
        manifests: At least one; the order matters where shards have to be written again.
        label_column: Column that the user named as the labels of a table; empty: by its name.

    Raises:
        InputError: They differ in kind or schema.
    """
    first = manifests[0]
    for other in manifests[1:]:
        _check_alike(first, other)
    union = unite(manifests)
    chosen: dict[str, dict[str, Shard]] = {}
    for manifest in manifests:
        own = {shard.sha256 for shard in manifest.shards}
        others = {d: s for known in chosen.values() for d, s in known.items() if d not in own}
        earlier = {digest for known in chosen.values() for digest in known}
        new = [shard for shard in manifest.shards if shard.sha256 not in earlier]
        repeated = _find_repeated(dataset, union, new, known=list(others.values()))
        for split, shards in manifest.splits.items():
            known = chosen.setdefault(split, {})
            for shard in shards:
                kept = (
                    [shard]
                    if shard.sha256 in earlier or not repeated
                    else _drop(dataset, union, shard, repeated, label_column=label_column)
                )
                known.update({part.sha256: part for part in kept})
    for manifest in manifests:
        held = {split: {shard.sha256 for shard in s} for split, s in manifest.splits.items()}
        if all(held.get(split, set()) == shards.keys() for split, shards in chosen.items()):
            return manifest
    return replace(union, splits=order_shards(chosen))


def unite(manifests: Sequence[Manifest]) -> Manifest:
    """Return what is the union of manifests of one kind and schema, but for its shards."""
    return Manifest(
        kind=manifests[0].kind,
        schema=manifests[0].schema,
        labels=sort_labels({label for manifest in manifests for label in manifest.labels}),
        splits={},
        sample=_merge_samples([manifest.sample for manifest in manifests]),
    )


def _find_repeated(
    dataset: ObjectStore, manifest: Manifest, shards: Sequence[Shard], *, known: Sequence[Shard]
) -> Counter[bytes]:
    """Count the examples of `shards` that `known` has too, in whichever split, by their key.

    Memory grows with the number of those alone.
    """
    import numpy as np

    found: Counter[bytes] = Counter()
    if not shards or not known:
        return found
    num_keys = sum(shard.num_rows for shard in (*shards, *known))
    with (
        KeyFiles.temporary(num_keys=num_keys) as new,
        KeyFiles.temporary(num_keys=num_keys) as old,
    ):
        new.add(_read_keys(dataset, manifest, shard) for shard in shards)
        old.add(_read_keys(dataset, manifest, shard) for shard in known)
        for mine, theirs in zip(new.read(), old.read(), strict=True):
            keys, counts = np.unique(mine, return_counts=True)
            others, their_counts = np.unique(theirs, return_counts=True)
            common, places, their_places = np.intersect1d(
                keys, others, assume_unique=True, return_indices=True
            )
            repeated = np.minimum(counts[places], their_counts[their_places])
            found.update(dict(zip(common.tolist(), repeated.tolist(), strict=True)))
    return found


def _read_keys(dataset: ObjectStore, manifest: Manifest, shard: Shard) -> bytes:
    """Return the keys of a shard's examples, and keep them where nobody did."""
    keys = read_keys(dataset, shard)
    if keys is None:
        kind = KINDS[manifest.kind]
        keys = b"".join(list_keys(kind, rows) for rows in rescan(dataset, manifest, [shard]))
        write_keys(dataset, shard, keys)
    return keys


def _drop(
    dataset: ObjectStore,
    manifest: Manifest,
    shard: Shard,
    repeated: Counter[bytes],
    *,
    label_column: str,
) -> Sequence[Shard]:
    """Return shards with the examples of one but for the repeated, which are counted down."""
    if not any(repeated[key] for key in split_keys(_read_keys(dataset, manifest, shard))):
        return [shard]

    def is_new(label: str, digest: bytes) -> bool:
        key = key_of(KINDS[manifest.kind], label, digest)
        if repeated[key] < 1:
            return True
        repeated[key] -= 1
        return False

    return rewrite(dataset, manifest, [shard], keep=is_new, label_column=label_column)


def order_shards(chosen: Mapping[str, Mapping[str, Shard]]) -> dict[str, tuple[Shard, ...]]:
    """Put shards in an order that depends on them alone."""
    return {
        split: tuple(shards[digest] for digest in sorted(shards))
        for split, shards in sorted(chosen.items())
    }


def _merge_samples(
    samples: Sequence[Sequence[Mapping[str, object]]],
) -> tuple[Mapping[str, object], ...]:
    """Choose the sample of a union: the rows with the smallest digests, which content decides."""
    rows = {str(row["digest"]): row for sample in samples for row in sample}
    return tuple(rows[digest] for digest in sorted(rows)[:_SAMPLE_SIZE])


def _check_alike(first: Manifest, other: Manifest) -> None:
    if (other.kind, dict(other.schema)) != (first.kind, dict(first.schema)):
        raise InputError(
            f"The data differ in kind or schema: {first.kind} {dict(first.schema)} and"
            f" {other.kind} {dict(other.schema)}."
        )
