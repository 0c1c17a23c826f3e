"""Reading a commit's examples.

Shards are fetched when they are first needed and verified against the manifest; nobody above this
module knows that there are shards. Items are numpy arrays and texts: this module does not load
torch.
"""

from __future__ import annotations

import bisect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from kubeloop.datasets.cache import CacheConfig, ShardCache
from kubeloop.datasets.commits import Commit, Manifest, Shard, dataset_of, read_commit
from kubeloop.datasets.images import Channels, decode_image
from kubeloop.datasets.kinds import KINDS
from kubeloop.datasets.shards.base import ShardFormat
from kubeloop.datasets.shards.tar import TarMember, find_members, read_facts, read_member
from kubeloop.errors import InputError, IntegrityError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from kubeloop.datasets.streaming import StreamConfig, StreamingDataset

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """One image as it was ingested, with its label."""

    data: bytes
    """The original encoded file."""
    extension: str
    """Its extension, with the dot."""
    class_index: int
    """Index of the label in the dataset's labels."""
    label: str
    """The label."""
    path: str
    """Where the image lay in the source."""
    metadata: Mapping[str, Any]
    """What else the source says of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageExample:
    """One decoded image with its label."""

    image: NDArray[np.uint8]
    """Pixels, height x width x channels."""
    class_index: int
    """Index of the label in the dataset's labels."""
    label: str
    """The label."""
    path: str
    """Where the image lay in the source."""


class TextExample(NamedTuple):
    """One text with its label."""

    text: str
    class_index: int
    """Index of the label in the dataset's labels."""


class Split(Sequence[Item], Generic[Item]):
    """The examples of one split, by index; the order is the same in every process."""

    num_open_shards: int
    """How many shards are kept ready."""

    def __init__(
        self, cache: ShardCache, shards: Sequence[Shard], *, labels: Sequence[str]
    ) -> None:
        self.cache = cache
        self.shards = tuple(shards)
        self.labels = tuple(labels)
        self._class_index = {label: index for index, label in enumerate(labels)}
        self._ends = list(accumulate(shard.num_rows for shard in shards))
        self._length = self._ends[-1] if self._ends else 0
        # NB: a cached method would keep the split alive; the cache belongs to the object.
        self._open = lru_cache(maxsize=self.num_open_shards)(self._open_verified)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open: workers that are spawned open it themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = lru_cache(maxsize=self.num_open_shards)(self._open_verified)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]  # no slices
        """Return an example.

        Raises:
            IndexError: There are fewer examples.
            IntegrityError: The shard's bytes differ from its recorded digest.
        """
        number, row = self._locate(index)
        return self._read(number, row)

    def metadata(self, index: int) -> Mapping[str, Any]:
        """Return what the source says of an example beside its content and label."""
        number, row = self._locate(index)
        return self._read_metadata(number, row)

    @abstractmethod
    def _read(self, shard: int, row: int) -> Item:
        """Return an example of a shard."""

    @abstractmethod
    def _read_metadata(self, shard: int, row: int) -> Mapping[str, Any]:
        """Return the metadata of an example of a shard."""

    @abstractmethod
    def _open_shard(self, data: memoryview) -> Any:  # Any: each format has its own
        """Prepare a shard's bytes for reading rows; the result has a length."""

    def _locate(self, index: int) -> tuple[int, int]:
        if not -self._length <= index < self._length:
            raise IndexError(f"Example {index} of {self._length} does not exist.")
        index %= self._length
        number = bisect.bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _open_verified(self, number: int) -> Any:
        shard = self.shards[number]
        opened = self._open_shard(self.cache.open(shard))
        if len(opened) != shard.num_rows:
            raise IntegrityError(
                f"Dataset shard {shard.key} holds {len(opened)} examples, not the recorded"
                f" {shard.num_rows}."
            )
        return opened


class _TarRows:
    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.places = find_members(view)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> TarMember:
        return read_member(self.view, self.places[row])


class ImageSplit(Split[EncodedImage]):
    """Images of one split."""

    num_open_shards = 256

    def image(self, index: int, *, channels: Channels = 3) -> ImageExample:
        """Return a decoded example."""
        shard, row = self._locate(index)
        return self._decode(self._open(shard), row, channels)

    def images(self, *, channels: Channels = 3) -> Iterator[ImageExample]:
        """Yield all examples decoded, in order."""
        for shard in range(len(self.shards)):
            rows: _TarRows = self._open(shard)
            for row in range(len(rows)):
                yield self._decode(rows, row, channels)

    def _decode(self, rows: _TarRows, row: int, channels: Channels) -> ImageExample:
        place = rows.places[row]
        facts = read_facts(rows.view, place)
        return ImageExample(
            image=decode_image(bytes(rows.view[place[0] : place[1]]), channels=channels),
            class_index=self._class_index[facts["label"]],
            label=facts["label"],
            path=facts["path"],
        )

    def _read(self, shard: int, row: int) -> EncodedImage:
        member: TarMember = self._open(shard)[row]
        return EncodedImage(
            data=member.data,
            extension=member.extension,
            class_index=self._class_index[member.label],
            label=member.label,
            path=member.path,
            metadata=member.metadata,
        )

    def _read_metadata(self, shard: int, row: int) -> Mapping[str, Any]:
        member: TarMember = self._open(shard)[row]
        return member.metadata

    def _open_shard(self, data: memoryview) -> _TarRows:
        return _TarRows(data)


class _ParquetRows:
    def __init__(self, data: memoryview) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.table: pa.Table = pq.read_table(pa.BufferReader(data), use_threads=False)
        self._columns = {name: self.table.column(name) for name in self.table.column_names}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def get(self, row: int, *names: str) -> tuple[Any, ...]:
        return tuple(self._columns[name][row].as_py() for name in names)


class _TableSplit(Split[Item]):
    """Rows of Parquet shards."""

    num_open_shards = 16
    own_columns: tuple[str, ...] = ()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows as Arrow batches, in order."""
        for number in range(len(self.shards)):
            yield from self._open(number).table.to_batches()

    def _read_metadata(self, shard: int, row: int) -> Mapping[str, Any]:
        rows = self._open(shard)
        names = [name for name in rows.table.column_names if name not in self.own_columns]
        return dict(zip(names, rows.get(row, *names), strict=True))

    def _open_shard(self, data: memoryview) -> _ParquetRows:
        return _ParquetRows(data)


class TableSplit(_TableSplit[Mapping[str, Any]]):
    """Rows of one split of a table; an item is a row by column."""

    def _read(self, shard: int, row: int) -> Mapping[str, Any]:
        return self._read_metadata(shard, row)


class TextSplit(_TableSplit[TextExample]):
    """Texts of one split."""

    own_columns = ("text", "label")

    def texts(self) -> Iterator[TextExample]:
        """Yield all examples, in order."""
        for batch in self.batches():
            texts, labels = (batch.column(name).to_pylist() for name in ("text", "label"))
            for text, label in zip(texts, labels, strict=True):
                yield TextExample(text, self._class_index[label])

    def __iter__(self) -> Iterator[TextExample]:
        return self.texts()

    def _read(self, shard: int, row: int) -> TextExample:
        text, label = self._open(shard).get(row, "text", "label")
        return TextExample(text, self._class_index[label])


class Dataset:
    """A commit, opened for reading."""

    def __init__(self, commit: Commit, *, cache: CacheConfig | None = None) -> None:
        self.commit = commit
        self._cache = ShardCache(dataset_of(commit.uri), cache)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of their index."""
        return self.commit.labels

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.commit.manifest.splits)

    @property
    def channels(self) -> Channels:
        """1 where all images are grey, else 3."""
        colors = self.commit.statistics[self.commit.manifest.kind]["color"]["most_common"]
        return 1 if colors.get("grey", 0) == self.commit.num_examples else 3

    def split(self, name: str) -> Any:  # Any: a Split, as the kind has it
        """Return a split: `train`, `validation` or `test`.

        Raises:
            InputError: The commit has no such split.
        """
        splits = self.commit.manifest.splits
        if name not in splits:
            raise InputError(f"No split {name!r}; the commit has {', '.join(splits)}.")
        return self.read_shards(splits[name])

    def read_shards(self, shards: Sequence[Shard]) -> Any:  # Any: as for `split`
        """Return some of the commit's shards as if they were a split."""
        return read_shards(self._cache, self.commit.manifest, shards)

    def stream(self, split: str, config: StreamConfig | None = None) -> StreamingDataset:
        """Return a split for a `DataLoader` that reads front to back; see `StreamingDataset`."""
        from kubeloop.datasets.streaming import StreamConfig, StreamingDataset

        return StreamingDataset(self.split(split), config or StreamConfig())


def read_shards(
    cache: ShardCache, manifest: Manifest, shards: Sequence[Shard]
) -> Any:  # Any: a Split, as the kind has it
    """Return some shards of a manifest as a split."""
    read: type[Split[Any]] = TableSplit
    if KINDS[manifest.kind].shard_format is ShardFormat.TAR:
        read = ImageSplit
    elif KINDS[manifest.kind].is_labelled:
        read = TextSplit
    return read(cache, shards, labels=manifest.labels)


def open_dataset(uri: str, *, cache: CacheConfig | None = None) -> Dataset:
    """Open a commit or snapshot by its URI.

    Args:
        uri: Its manifest's URI.
        cache: Where shards of a remote store are kept on this machine.

    Raises:
        InputError: There is none.
        IntegrityError: Its manifest differs from the hash that names it.
    """
    return Dataset(read_commit(uri), cache=cache)
