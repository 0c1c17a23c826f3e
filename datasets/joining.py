"""The union of manifests: of a dataset and what is added to it, of commits, of parts."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kubeloop.datasets.commits import Manifest, Shard
from kubeloop.datasets.kinds import sort_labels
from kubeloop.datasets.rewriting import rescan, rewrite
from kubeloop.datasets.shards.base import DIGEST, LABEL
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAMPLE_SIZE = 10
_NUM_FILES = 64
_KEY_BYTES = 16


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
) -> Counter[bytes]:
    """Count the examples of `shards` that `known` has too, in whichever split, by their key.

    Memory grows with the number of those alone.
    """
    import numpy as np

    found: Counter[bytes] = Counter()
    if not shards or not known:
        return found
    with KeyFiles.temporary() as new, KeyFiles.temporary() as old:
        new.add(_read_keys(dataset, manifest, shards))
        old.add(_read_keys(dataset, manifest, known))
        for mine, theirs in zip(new.read(), old.read(), strict=True):
            keys, counts = np.unique(mine, return_counts=True)
            others, their_counts = np.unique(theirs, return_counts=True)
            common, places, their_places = np.intersect1d(
                keys, others, assume_unique=True, return_indices=True
            )
            repeated = np.minimum(counts[places], their_counts[their_places])
            found.update(dict(zip(common.tolist(), repeated.tolist(), strict=True)))
    return found


def _read_keys(
    dataset: ObjectStore, manifest: Manifest, shards: Sequence[Shard]
) -> Iterator[list[bytes]]:
    for rows in rescan(dataset, manifest, shards):
        columns = (rows.column(name).to_pylist() for name in (LABEL, DIGEST))
        yield [_key_of(label, digest) for label, digest in zip(*columns, strict=True)]


def _key_of(label: str, digest: bytes) -> bytes:
    """Return what is the same for examples that are the same; it ends in no zero byte."""
    return hashlib.sha256(digest + label.encode()).digest()[: _KEY_BYTES - 1] + b"\1"


class KeyFiles:
    """Keys of examples, noted in files so that equal ones meet in one."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{number:02d}" for number in range(_NUM_FILES)]

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[KeyFiles]:
        """Keep the files for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="kubeloop-join-") as folder:
            yield cls(Path(folder))

    def add(self, batches: Iterable[Sequence[bytes]]) -> None:
        """Note keys."""
        import numpy as np

        with ExitStack() as stack:
            files = [stack.enter_context(path.open("ab")) for path in self._paths]
            for keys in batches:
                records = np.frombuffer(b"".join(keys), f"S{_KEY_BYTES}")
                places = np.frombuffer(b"".join(keys), np.uint8)[::_KEY_BYTES] % _NUM_FILES
                for place in np.unique(places).tolist():
                    files[place].write(records[places == place].tobytes())

    def read(self) -> Iterator[NDArray[np.bytes_]]:
        """Yield the keys of each file."""
        import numpy as np

        for path in self._paths:
            yield np.fromfile(path, f"S{_KEY_BYTES}")


def _drop(
    dataset: ObjectStore, manifest: Manifest, shard: Shard, repeated: Counter[bytes]
) -> Sequence[Shard]:
    """Return shards with the examples of one but for the repeated, which are counted down."""

    def is_new(label: str, digest: bytes) -> bool:
        key = _key_of(label, digest)
        if repeated[key] < 1:
            return True
        repeated[key] -= 1
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
