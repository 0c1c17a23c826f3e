"""What the formats of shards have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO

from kubeloop.datasets.statistics import Statistics

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST = "_digest"
"""Column of a scanned batch: sha256 of what makes an example the same example."""
LABEL = "_label"
"""Column of a scanned batch: the label; empty where the kind has none."""
SPLIT = "_split"
"""Column of a scanned batch: the split that the source declares; empty where it declares none."""
SIZE = "_size"
"""Column of a scanned batch: bytes of the encoded example."""
SCAN_COLUMNS = (DIGEST, LABEL, SPLIT, SIZE)


def list_digests(rows: pa.RecordBatch) -> list[bytes]:
    """Return the digests of scanned rows; NB: twenty times as fast as `to_pylist`."""
    digests: list[bytes] = rows.column(DIGEST).to_numpy(zero_copy_only=False).tolist()
    return digests


class ShardFormat(StrEnum):
    """Format of a shard; the value is the extension of its file."""

    TAR = "tar"
    PARQUET = "parquet"


class ShardWriter(ABC):
    """Writes one shard.

    Rows come in the order of the source and in portions of any size; what is written must not
    depend on the portions. `statistics` describes all rows once the writer is closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.statistics = Statistics()

    @abstractmethod
    def add(self, rows: pa.RecordBatch) -> None:
        """Append scanned rows."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left; the file stays open."""
