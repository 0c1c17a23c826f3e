"""Image classification: a folder a class, or a table that names files and their labels."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.images import IMAGE_EXTENSIONS, ImageFacts, check_image, inspect_image
from kubeloop.datasets.kinds.base import DatasetKind, ScanOptions
from kubeloop.datasets.kinds.rows import add_scan_columns
from kubeloop.datasets.shards.base import SCAN_COLUMNS, ShardFormat
from kubeloop.datasets.sources.base import Source, SourceFile
from kubeloop.datasets.statistics import Statistics
from kubeloop.datasets.tables import split_of_name
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 512


class ImageClassification(DatasetKind):
    """`<source>/<label>/…/<image>`, or `<source>/<split>/<label>/…/<image>`."""

    name = "image_classification"
    shard_format = ShardFormat.TAR
    described_columns = frozenset(
        {"version", "format", "width", "height", "is_grey", "num_bytes", "label"}
    )

    def scan(
        self, source: Source, *, options: ScanOptions, log: ScanLog
    ) -> Iterator[pa.RecordBatch]:
        """Yield a row for every image that can be read."""
        batch = _Batch()
        for file, label, split in find_images(source, log=log):
            log.num_seen += 1
            data = source.read(file.path, version=file.version)
            check = inspect_image if options.decode_images else check_image
            try:
                facts = check(data, max_pixels=options.max_pixels)
            except InputError as error:
                log.reject(file.path, str(error))
                continue
            batch.add(file, label=label, split=split, facts=facts, data=data)
            if len(batch.rows) >= _BATCH_ROWS:
                yield batch.close()
                batch = _Batch()
        if batch.rows:
            yield batch.close()

    def describe(self, rows: pa.RecordBatch, statistics: Statistics) -> None:
        """Summarize formats and sizes."""
        for name in ("width", "height", "num_bytes"):
            statistics.add_numbers(name, rows.column(name).to_pylist())
        statistics.add_categories("format", rows.column("format").to_pylist())
        statistics.add_categories(
            "color", ["grey" if grey else "color" for grey in rows.column("is_grey").to_pylist()]
        )
        sizes = zip(
            rows.column("width").to_pylist(), rows.column("height").to_pylist(), strict=True
        )
        statistics.add_categories("size", [f"{width}x{height}" for width, height in sizes])

    def describe_schema(self, schema: pa.Schema) -> dict[str, str]:
        """Name the features."""
        hidden = {*self.described_columns, *SCAN_COLUMNS, "path", "extension"}
        others = {field.name: str(field.type) for field in schema if field.name not in hidden}
        return {"image": "encoded image", "label": "class index"} | others

    def describe_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write a row for the sample."""
        shown = ("path", "label", "format", "width", "height")
        return {name: row[name] for name in shown}


class _Batch:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._digests: list[bytes] = []
        self._splits: list[str] = []

    def add(
        self, file: SourceFile, *, label: str, split: str, facts: ImageFacts, data: bytes
    ) -> None:
        self.rows.append(
            {
                "path": file.path,
                "label": label,
                "extension": PurePosixPath(file.path).suffix.lower(),
                "version": file.version,
                "format": facts.format,
                "width": facts.width,
                "height": facts.height,
                "is_grey": facts.is_grey,
                "num_bytes": len(data),
            }
        )
        self._digests.append(hashlib.sha256(data).digest())
        self._splits.append(split)

    def close(self) -> pa.RecordBatch:
        import pyarrow as pa

        rows = pa.RecordBatch.from_pylist(self.rows)
        return add_scan_columns(
            rows,
            digests=self._digests,
            sizes=rows.column("num_bytes").to_pylist(),
            labels=rows.column("label"),
            splits=pa.array(self._splits, pa.string()),
        )


def find_images(source: Source, *, log: ScanLog) -> Iterator[tuple[SourceFile, str, str]]:
    """Yield image files with their label and the split that their folder declares, or ''.

    Raises:
        InputError: The source has not the shape of one folder a class.
    """
    has_splits = _declares_splits(source)
    folders: dict[str, bool] = {}
    is_empty = True
    for file in source.list_files():
        is_empty = False
        first, slash, rest = file.path.partition("/")
        split = split_of_name(first) if has_splits and slash else ""
        if has_splits:
            first, slash, _ = rest.partition("/")
        if not slash:
            log.ignore(file.path, "not in the folder of a class")
            continue
        folders.setdefault(first, False)
        extension = PurePosixPath(file.path).suffix.lower()
        if extension not in IMAGE_EXTENSIONS:
            log.ignore(file.path, f"not an image ({extension or 'no'} extension)")
            continue
        folders[first] = True
        yield file, first, split
    _check_shape(source, folders=folders, is_empty=is_empty)


def _declares_splits(source: Source) -> bool:
    """Tell whether all folders at the top are named as splits are."""
    top: set[str] = set()
    for file in source.list_files():
        first, slash, _ = file.path.partition("/")
        if slash:
            top.add(first)
            if not split_of_name(first):
                return False
    return len(top) > 1


def _check_shape(source: Source, *, folders: Mapping[str, bool], is_empty: bool) -> None:
    if is_empty:
        raise InputError(f"The source {source.uri!r} is empty; put images in one folder a class.")
    if not folders:
        raise InputError(
            f"The source {source.uri!r} has no class folders; put images in one folder a class."
        )
    if without := sorted(label for label, has_images in folders.items() if not has_images):
        raise InputError(
            f"Class folder {without[0]!r} in {source.uri!r} holds no image;"
            " add images or remove it."
        )


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort labels as people do: '10' after '9'."""
    return tuple(sorted(labels, key=_natural_order))


def _natural_order(label: str) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"[0-9]+|[^0-9]+", label)
    key = [
        (int(part), "") if part.isascii() and part.isdigit() else (sys.maxsize, part)
        for part in parts
    ]
    return key, label
