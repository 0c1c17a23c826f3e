"""Reading a commit's examples.

Shards are fetched when they are first needed, verified against the manifest, and unpacked; nobody
above this module knows that there are shards. The items are numpy arrays: this package does not
load torch.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from kubeloop.datasets.commits import Commit, Shard, dataset_of, read_commit
from kubeloop.datasets.images import Channels, decode_image
from kubeloop.datasets.shards import ShardRow, unpack_shard
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError, IntegrityError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUM_CACHED_SHARDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageExample:
    """One image with its label."""

    image: NDArray[np.uint8]
    """Pixels, height x width x channels."""
    class_index: int
    """Index of the label in the dataset's labels."""
    label: str
    """The label."""
    path: str
    """Where the image lay in the source."""


class Split(Sequence[ShardRow]):
    """The examples of one split, by index; the order is the same in every process."""

    def __init__(self, dataset: ObjectStore, shards: Sequence[Shard]) -> None:
        self._dataset = dataset
        self._shards = tuple(shards)
        self._ends = list(accumulate(shard.num_rows for shard in shards))
        # NB: a cached method would keep the split alive; the cache belongs to the object.
        self._rows = lru_cache(maxsize=_NUM_CACHED_SHARDS)(self._load)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> ShardRow:  # type: ignore[override]  # no slices
        """Return an encoded example.

        Raises:
            IndexError: There are fewer examples.
            IntegrityError: The shard's bytes differ from its recorded digest.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"Example {index} of {len(self)} does not exist.")
        index %= len(self)
        number = bisect.bisect_right(self._ends, index)
        start = self._ends[number - 1] if number else 0
        return self._rows(number)[index - start]

    def image(self, index: int, *, channels: Channels = 3) -> ImageExample:
        """Return a decoded example."""
        row = self[index]
        return ImageExample(
            image=decode_image(row.data, channels=channels),
            class_index=row.class_index,
            label=row.label,
            path=row.path,
        )

    def images(self, *, channels: Channels = 3) -> Iterator[ImageExample]:
        """Yield all examples decoded, in order."""
        for index in range(len(self)):
            yield self.image(index, channels=channels)

    def _load(self, number: int) -> list[ShardRow]:
        shard = self._shards[number]
        data = self._dataset.read(shard.key)
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise IntegrityError(
                f"Dataset shard {self._dataset.uri_of(shard.key)} differs from its recorded sha256:"
                " it was changed or damaged after it was written; ingest the source again into a"
                " new store."
            )
        rows = unpack_shard(data)
        if len(rows) != shard.num_rows:
            raise IntegrityError(
                f"Dataset shard {self._dataset.uri_of(shard.key)} holds {len(rows)} examples, not"
                f" the recorded {shard.num_rows}."
            )
        return rows


class Dataset:
    """A commit, opened for reading."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self._dataset = dataset_of(commit.uri)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of their index."""
        return self.commit.labels

    @property
    def channels(self) -> Channels:
        """1 where all images are grey, else 3."""
        summary = self.commit.statistics[self.commit.manifest.kind]
        return 1 if summary["num_grey"] == self.commit.num_examples else 3

    def split(self, name: str) -> Split:
        """Return a split: `train`, `validation` or `test`.

        Raises:
            InputError: The commit has no such split.
        """
        splits = self.commit.manifest.splits
        if name not in splits:
            raise InputError(f"No split {name!r}; the commit has {', '.join(splits)}.")
        return Split(self._dataset, splits[name])


def open_dataset(uri: str) -> Dataset:
    """Open a commit by its URI.

    Raises:
        InputError: There is none.
        IntegrityError: Its manifest differs from the hash that names it.
    """
    return Dataset(read_commit(uri))
