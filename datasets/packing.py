"""Cuts the rows of a split into shards by their content.

A shard ends where the digest of a row says so, not after a number of rows, so that rows added to a
source change the shards that they fall into and no others: those are found in the store and not
written again. Shards are small at the start of a split and grow with it, up to the size asked for:
adding to a small dataset rewrites little, and a big one has few files.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kubeloop.datasets.commits import Shard
from kubeloop.datasets.example_keys import list_keys, write_keys
from kubeloop.datasets.kinds.base import DatasetKind
from kubeloop.datasets.shards.base import LABEL, SIZE, ShardFormat, ShardWriter, list_digests
from kubeloop.datasets.sources.base import Source
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import PermanentError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_SMALLEST_TARGET = 64 << 10
_SMALLEST_CUT_AT_LABEL = 16 << 10
_SHARE_OF_SPLIT = 16
_SPREAD = 4
_TAR_ROW_BYTES = 1536

OpenWriter = Callable[[BinaryIO], ShardWriter]


@dataclass(slots=True)
class Cutter:
    """Decides where shards end.

    Args:
        shard_bytes: Size that shards of a big split have about; none has twice as much.
        at_labels: Whether a shard also ends where the label changes, as it pays where the source
            is ordered by label.
        row_bytes: What the format adds to each row.
    """

    shard_bytes: int
    at_labels: bool
    row_bytes: int = 0
    position: int = 0
    in_shard: int = 0
    label: str = ""

    def find_cuts(
        self, digests: Sequence[bytes], sizes: Sequence[int], labels: Sequence[str]
    ) -> list[int]:
        """Return the rows before which a shard ends; the number of rows stands for the last."""
        import numpy as np

        places = np.frombuffer(b"".join(digests), ">u8")[::4]
        num_bytes = np.asarray(sizes, np.int64) + self.row_bytes
        changes = self._find_label_changes(labels)
        cuts: list[int] = []
        row = 0
        while row < len(digests):
            target = self._target()
            added, held = num_bytes[row:], np.cumsum(num_bytes[row:]) + self.in_shard
            is_full = held + added >= 2 * target
            # NB: floats find all the marked rows and a few more; integers decide.
            is_marked = (held * _SPREAD >= target) & (
                places[row:].astype(float) * target <= added * (2.0**64 * (1 + 1e-9))
            )
            ends_label = changes[row:] & (held - added >= _SMALLEST_CUT_AT_LABEL)
            for stop in np.flatnonzero(is_full | is_marked | ends_label).tolist():
                place, size = int(places[row + stop]), int(added[stop])
                if ends_label[stop]:
                    self.in_shard, row = int(held[stop]) - size, row + stop
                    break
                if is_full[stop] or place * target < size << 64:
                    self.in_shard, row = int(held[stop]), row + stop + 1
                    break
            else:
                self.in_shard = int(held[-1])
                break
            cuts.append(row)
            self._start_shard()
        return cuts

    def _find_label_changes(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        import numpy as np

        if not self.at_labels or not labels:
            return np.zeros(len(labels), bool)
        before = [self.label, *labels[:-1]]
        self.label = labels[-1]
        return np.array([one != other for one, other in zip(before, labels, strict=True)])

    def _start_shard(self) -> None:
        self.position += self.in_shard
        self.in_shard = 0

    def _target(self) -> int:
        # Powers of two, so that an insertion moves few of the later targets.
        grown = 1 << max(self.position // _SHARE_OF_SPLIT, 1).bit_length() - 1
        return min(max(grown, _SMALLEST_TARGET), self.shard_bytes)


class SplitPacker:
    """Writes the rows of one split as shards.

    Args:
        dataset: The dataset's folder in the store.
        kind: The kind that scanned the rows.
        cutter: Decides where the shards end.
        open_writer: Opens a writer of the kind's format on a file.
    """

    def __init__(
        self,
        dataset: ObjectStore,
        *,
        kind: DatasetKind,
        cutter: Cutter,
        open_writer: OpenWriter,
    ) -> None:
        self.shards: list[Shard] = []
        self._dataset = dataset
        self._kind = kind
        self._cutter = cutter
        self._open_writer = open_writer
        self._staged: _StagedShard | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows in the order of the source."""
        cuts = self._cutter.find_cuts(
            list_digests(rows),
            rows.column(SIZE).to_pylist(),
            rows.column(LABEL).to_pylist(),
        )
        start = 0
        for cut in cuts:
            self._write(rows.slice(start, cut - start))
            self._end_shard()
            start = cut
        self._write(rows.slice(start))

    def _write(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        if self._staged is None:
            self._staged = _StagedShard(self._dataset.staging_folder(), self._open_writer)
        self._staged.add(rows, list_keys(self._kind, rows))

    def _end_shard(self) -> None:
        if self._staged is not None:
            self.shards.append(self._staged.store(self._dataset, self._kind.shard_format))
            self._staged = None

    def close(self) -> None:
        """Write the last shard."""
        self._end_shard()

    def discard(self) -> None:
        """Remove what is not stored yet."""
        if self._staged is not None:
            self._staged.discard()


class _StagedShard:
    """A shard that is being written to a local file."""

    def __init__(self, folder: Path, open_writer: OpenWriter) -> None:
        # NB: closed by `store` or `discard`; the packer owns it.
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=folder, prefix=".staging-", suffix=".shard", delete=False, buffering=1 << 20
        )
        self._hashing = _HashingFile(self._file)
        self._writer = open_writer(self._hashing)  # type: ignore[arg-type]  # it is what is needed
        self._keys = bytearray()

    def add(self, rows: pa.RecordBatch, keys: bytes) -> None:
        self._writer.add(rows)
        self._keys += keys

    def store(self, dataset: ObjectStore, shard_format: ShardFormat) -> Shard:
        self._writer.close()
        self._file.close()
        path = Path(self._file.name)
        shard = Shard(
            sha256=self._hashing.digest.hexdigest(),
            num_bytes=self._hashing.tell(),
            format=shard_format,
            statistics=self._writer.statistics,
        )
        if dataset.exists(shard.key):
            path.unlink()
        else:
            write_keys(dataset, shard, bytes(self._keys))
            dataset.adopt(shard.key, path)
        return shard

    def discard(self) -> None:
        with suppress(OSError):  # closing writes what is left, which a full disk refuses
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


class _HashingFile(RawIOBase):
    """Passes bytes on to a file and hashes them."""

    def __init__(self, file: Any) -> None:  # Any: the private type of NamedTemporaryFile
        self._file = file
        self._num_bytes = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._num_bytes

    def write(self, data: Any) -> int:  # Any: the buffers of the base class
        self.digest.update(data)
        count = len(memoryview(data).cast("B"))
        self._num_bytes += count
        self._file.write(data)
        return count


class Packing:
    """How the scanned rows of a kind become shards of a dataset.

    Args:
        dataset: The dataset's folder in the store.
        kind: The kind that scanned them.
        source: Where the examples that are files are read from.
        shard_bytes: Size that the shards of a big split have about.
    """

    def __init__(
        self, dataset: ObjectStore, *, kind: DatasetKind, source: Source, shard_bytes: int
    ) -> None:
        self._dataset = dataset
        self._kind = kind
        self._source = source
        self._shard_bytes = shard_bytes

    def open_packer(self) -> SplitPacker:
        """Open a packer for one split."""
        is_tar = self._kind.shard_format is ShardFormat.TAR
        return SplitPacker(
            self._dataset,
            kind=self._kind,
            cutter=Cutter(
                shard_bytes=self._shard_bytes,
                at_labels=is_tar,
                row_bytes=_TAR_ROW_BYTES if is_tar else 0,
            ),
            open_writer=self._open_writer,
        )

    def _open_writer(self, file: BinaryIO) -> ShardWriter:
        if self._kind.shard_format is ShardFormat.TAR:
            from kubeloop.datasets.shards.tar import TarShardWriter

            return TarShardWriter(
                file,
                describe=self._kind.describe,
                read=lambda row: self._kind.read_example(self._source, row),
                described=self._kind.described_columns,
            )
        from kubeloop.datasets.shards.parquet import ParquetShardWriter

        return ParquetShardWriter(file, describe=self._kind.describe)


@contextmanager
def disk_errors(what: str, *, store: str) -> Iterator[None]:
    """Translate what goes wrong with files of this machine, such as a disk that is full.

    Args:
        what: What fails then, as in "Failed to …".
        store: Where shards go.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise PermanentError(
            f"Failed to {what}: {reason}; rows are noted below {tempfile.gettempdir()!r} (set"
            f" TMPDIR for another place) and shards are written to {store!r}."
        ) from error


@contextmanager
def packers(make: Callable[[], SplitPacker]) -> Iterator[dict[str, SplitPacker]]:
    """Give a packer to each split on demand, close them, and remove what a failure left."""
    by_split = _Packers(make)
    try:
        yield by_split
        for packer in by_split.values():
            packer.close()
    finally:
        for packer in by_split.values():
            packer.discard()


class _Packers(dict[str, SplitPacker]):
    def __init__(self, make: Callable[[], SplitPacker]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, split: str) -> SplitPacker:
        self[split] = self._make()
        return self[split]
