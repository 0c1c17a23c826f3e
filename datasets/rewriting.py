"""Rows of shards, scanned and packed again without some of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.cache import ShardCache
from kubeloop.datasets.commits import Manifest, Shard
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.kinds import KINDS, ScanOptions
from kubeloop.datasets.packing import Packing, packers
from kubeloop.datasets.reading import EncodedImage, ImageSplit, read_shards
from kubeloop.datasets.shards.base import DIGEST, LABEL
from kubeloop.datasets.sources.base import Source, SourceFile
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 16 << 20


def rescan(
    dataset: ObjectStore, manifest: Manifest, shards: Sequence[Shard], *, label_column: str = ""
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of shards as their kind scans them.

    Args:
        dataset: The dataset's folder in the store.
        manifest: What the shards belong to.
        shards: The shards.
        label_column: Column that the user named as the labels of a table; empty: by its name.
    """
    kind = KINDS[manifest.kind]
    options = ScanOptions(
        # What was taken stays, also where its ingestion took bigger images than others do.
        max_pixels=sys.maxsize,
        # Where every example has a label, its column has one name in all shards.
        label_column="" if kind.is_labelled else label_column,
    )
    yield from kind.scan(ShardRows(dataset, manifest, shards), options=options, log=ScanLog())


def rewrite(
    dataset: ObjectStore,
    manifest: Manifest,
    shards: Sequence[Shard],
    *,
    keep: Callable[[str, bytes], bool],
    label_column: str,
) -> list[Shard]:
    """Write the rows of shards into new ones, but for those that `keep` refuses.

    Args:
        dataset: The dataset's folder in the store.
        manifest: What the shards belong to.
        shards: Shards of one split.
        keep: From a row's label and digest to whether it stays.
        label_column: Column that the user named as the labels of a table; empty: by its name.
    """
    packing = Packing(
        dataset,
        kind=KINDS[manifest.kind],
        source=ShardRows(dataset, manifest, shards),
        shard_bytes=2 * max(shard.num_bytes for shard in shards),
    )
    with packers(packing.open_packer) as by_split:
        for rows in rescan(dataset, manifest, shards, label_column=label_column):
            columns = (rows.column(name).to_pylist() for name in (LABEL, DIGEST))
            by_split[""].add(rows.filter([keep(*pair) for pair in zip(*columns, strict=True)]))
    return by_split[""].shards


class ShardRows(Source):
    """The rows of a commit's shards, as a source to scan again."""

    has_rows = True
    declares_splits = False

    def __init__(self, dataset: ObjectStore, manifest: Manifest, shards: Sequence[Shard]) -> None:
        self.uri = dataset.uri
        self._split = read_shards(ShardCache(dataset), manifest, shards)

    def read_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, with images in a column."""
        if not isinstance(self._split, ImageSplit):
            yield from self._split.batches()
            return
        images: list[EncodedImage] = []
        num_bytes = 0
        types = _find_types(self._split)
        for image in self._split:
            images.append(image)
            num_bytes += len(image.data)
            if num_bytes >= _BATCH_BYTES:
                yield _to_batch(images, types)
                images, num_bytes = [], 0
        if images:
            yield _to_batch(images, types)

    def list_files(self) -> Iterator[SourceFile]:
        """Yield nothing: there are rows."""
        return iter(())

    def read(self, path: str, *, version: str = "") -> bytes:  # noqa: ARG002 - there are none
        """Refuse: there are no files."""
        raise InputError(f"{self.uri!r} has rows and no file {path!r}.")

    def local_path(self, path: str) -> Path:
        """Refuse: there are no files."""
        raise InputError(f"{self.uri!r} has rows and no file {path!r}.")


def _find_types(split: ImageSplit) -> dict[str, pa.DataType]:
    """Return the types of the images' metadata, by name."""
    import pyarrow as pa

    values: dict[str, dict[type, Any]] = {}
    for index in range(len(split)):
        for name, value in split.metadata(index).items():
            values.setdefault(name, {})[type(value)] = value
    return {name: pa.infer_type(list(values[name].values())) for name in sorted(values)}


def _to_batch(images: Sequence[EncodedImage], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {
        "image": pa.array([{"bytes": image.data, "path": image.path} for image in images]),
        "label": pa.array([image.label for image in images]),
    }
    for name, kind in types.items():
        columns[name] = pa.array([image.metadata.get(name) for image in images], kind)
    return pa.RecordBatch.from_pydict(columns)
