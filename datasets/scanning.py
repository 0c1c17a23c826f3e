"""The first pass over a source: what is known of its examples, and where they are noted."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.ingest_config import IngestConfig
from kubeloop.datasets.kinds import DatasetKind, sort_labels
from kubeloop.datasets.sampling import ClassSampler
from kubeloop.datasets.shards.base import LABEL, SPLIT, list_digests
from kubeloop.datasets.splits import Dealer
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_LABELS = 100_000
_SAMPLE_SIZE = 10


class Scan:
    """What is known of the examples after the first pass; bounded however many there are."""

    def __init__(self, config: IngestConfig) -> None:
        self.dealer = Dealer(config.splits, is_whole=not config.extend)
        self.sampler = ClassSampler(config.max_examples_per_class, seed=config.splits.seed)
        self.num_rows = 0
        self.is_declared = False
        self._labels: set[str] = set()
        self._contents = hashlib.sha256()
        self._label_names = hashlib.sha256()
        self._sample: list[tuple[int, dict[str, Any]]] = []

    def add(self, rows: pa.RecordBatch, kind: DatasetKind) -> None:
        """Take note of a batch."""
        digests = list_digests(rows)
        labels = rows.column(LABEL).to_pylist()
        splits = rows.column(SPLIT).to_pylist()
        self.num_rows += rows.num_rows
        if self.sampler.limit:
            self.sampler.observe(labels, digests)
        self._labels |= {*labels} - {""}
        if len(self._labels) > _MAX_LABELS:
            raise InputError(
                f"More than {_MAX_LABELS} different labels; is the label column an identifier?"
            )
        joined = b"".join(digests)
        self._contents.update(joined)
        self._label_names.update("\0".join([*labels, ""]).encode())
        if any(splits):
            self.is_declared = True
            dealt = [index for index, split in enumerate(splits) if not split]
            labels, digests = [labels[i] for i in dealt], [digests[i] for i in dealt]
        self.dealer.observe(labels, digests)
        self._add_sample(rows, joined, kind)

    def _add_sample(self, rows: pa.RecordBatch, joined: bytes, kind: DatasetKind) -> None:
        import numpy as np

        starts = np.frombuffer(joined, ">u8")[::4]
        known = dict(self._sample)
        for place in np.argsort(starts, kind="stable")[:_SAMPLE_SIZE].tolist():
            row = kind.describe_row(rows.slice(place, 1).to_pylist()[0])
            known.setdefault(int.from_bytes(joined[32 * place : 32 * (place + 1)]), row)
        self._sample = [(digest, known[digest]) for digest in sorted(known)[:_SAMPLE_SIZE]]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of their index."""
        return sort_labels(self._labels)

    @property
    def digest(self) -> str:
        """Hash over contents and labels, in the order of the source."""
        combined = self._contents.digest() + self._label_names.digest()
        return hashlib.sha256(combined).hexdigest()

    @property
    def sample(self) -> tuple[Mapping[str, Any], ...]:
        """The examples with the smallest digests."""
        return tuple({"digest": f"{digest:064x}", **row} for digest, row in self._sample)


class Spool:
    """Scanned rows in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None  # Any: pyarrow has no types

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Spool]:
        """Keep rows for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="kubeloop-ingest-") as folder:
            yield cls(Path(folder) / "rows.arrow")

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        import pyarrow as pa

        if self._writer is None:
            self.schema = rows.schema
            self._writer = pa.ipc.new_stream(str(self._path), rows.schema)
        self._writer.write_batch(rows)

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in the order in which they were added."""
        import pyarrow as pa

        self._writer.close()
        with self._path.open("rb") as file, pa.ipc.open_stream(file) as reader:
            yield from reader


def deal(rows: pa.RecordBatch, dealer: Dealer) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows of each split, in order."""
    import numpy as np

    declared, labels = (rows.column(name).to_pylist() for name in (SPLIT, LABEL))
    digests = list_digests(rows)
    if any(declared):
        dealt = [index for index, split in enumerate(declared) if not split]
        found = dealer.deal([labels[i] for i in dealt], [digests[i] for i in dealt])
        for index, split in zip(dealt, found, strict=True):
            declared[index] = split
    else:
        declared = dealer.deal(labels, digests)
    names = sorted({*declared})
    numbers = {split: number for number, split in enumerate(names)}
    places = np.array([numbers[split] for split in declared])
    for split, number in numbers.items():
        yield split, rows.take(np.flatnonzero(places == number))


def reject_unlabelled(rows: pa.RecordBatch, log: ScanLog) -> pa.RecordBatch:
    import pyarrow.compute as pc

    has_label = pc.not_equal(rows.column(LABEL), "")
    without = rows.filter(pc.invert(has_label))
    for row in without.to_pylist():
        content = str(row.get("path") or row.get("text"))[:80]
        log.reject(repr(content), "no label")
    return rows.filter(has_label) if without.num_rows else rows
