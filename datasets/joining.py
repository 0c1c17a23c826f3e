"""The union of manifests: of a dataset and what is added to it, of commits, of parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kubeloop.datasets.commits import Manifest, Shard
from kubeloop.datasets.kinds import sort_labels
from kubeloop.datasets.rewriting import rescan, rewrite
from kubeloop.datasets.shards.base import DIGEST, LABEL
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

_SAMPLE_SIZE = 10


def join(dataset: ObjectStore, manifests: Sequence[Manifest]) -> Manifest:
    """Return the union of manifests of one kind and schema.

    What several have counts once: shards that are the same, and in others every example, so that a
    dataset and its later state do not double what they share. The result is the first manifest
    that already holds all.

    Args:
        dataset: The dataset's folder in the store; shards are read and written only where two
            manifests share examples but not shards.
        manifests: At least one; the order matters where shards have to be written again.

    Raises:
        InputError: They differ in kind or schema.
    """
    first = manifests[0]
    for other in manifests[1:]:
        _check_alike(first, other)
    union = Manifest(
        kind=first.kind,
        schema=first.schema,
        labels=sort_labels({label for manifest in manifests for label in manifest.labels}),
        splits={},
        sample=merge_samples([manifest.sample for manifest in manifests]),
    )
    chosen: dict[str, dict[str, Shard]] = {}
    for manifest in manifests:
        own = {shard.sha256 for shards in manifest.splits.values() for shard in shards}
        others = {d: s for known in chosen.values() for d, s in known.items() if d not in own}
        earlier = {digest for known in chosen.values() for digest in known}
        new = [s for shards in manifest.splits.values() for s in shards if s.sha256 not in earlier]
        repeated = _find_repeated(dataset, union, new, known=list(others.values()))
        for split, shards in manifest.splits.items():
            known = chosen.setdefault(split, {})
            for shard in shards:
                kept = (
                    [shard]
                    if shard.sha256 in earlier or not repeated
                    else _drop(dataset, union, shard, repeated)
                )
                known.update({part.sha256: part for part in kept})
    for manifest in manifests:
        held = {split: {shard.sha256 for shard in s} for split, s in manifest.splits.items()}
        if all(held.get(split, set()) == shards.keys() for split, shards in chosen.items()):
            return manifest
    return replace(union, splits=order_shards(chosen))


def _find_repeated(
    dataset: ObjectStore, manifest: Manifest, shards: Sequence[Shard], *, known: Sequence[Shard]
) -> Counter[tuple[str, bytes]]:
    """Count the examples of `shards` that `known` has too, in whichever split.

    Memory grows with the number of examples in `shards`, not with those in `known`.
    """
    if not shards or not known:
        return Counter()
    counts = Counter(_read_keys(dataset, manifest, shards))
    found: Counter[tuple[str, bytes]] = Counter()
    for key in _read_keys(dataset, manifest, known):
        if found.get(key, 0) < counts.get(key, 0):
            found[key] += 1
    return +found


def _read_keys(
    dataset: ObjectStore, manifest: Manifest, shards: Sequence[Shard]
) -> Iterator[tuple[str, bytes]]:
    for rows in rescan(dataset, manifest, shards):
        yield from zip(*(rows.column(name).to_pylist() for name in (LABEL, DIGEST)), strict=True)


def _drop(
    dataset: ObjectStore, manifest: Manifest, shard: Shard, repeated: Counter[tuple[str, bytes]]
) -> Sequence[Shard]:
    """Return shards with the examples of one but for the repeated, which are counted down."""

    def is_new(label: str, digest: bytes) -> bool:
        if repeated[label, digest] < 1:
            return True
        repeated[label, digest] -= 1
        return False

    kept = rewrite(dataset, manifest, [shard], keep=is_new)
    return [shard] if sum(part.num_rows for part in kept) == shard.num_rows else kept


def order_shards(chosen: Mapping[str, Mapping[str, Shard]]) -> dict[str, tuple[Shard, ...]]:
    """Put shards in an order that depends on them alone."""
    return {
        split: tuple(shards[digest] for digest in sorted(shards))
        for split, shards in sorted(chosen.items())
    }


def merge_samples(
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
