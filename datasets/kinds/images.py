"""Image classification: a folder a class, or a table that names files and their labels."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.images import (
    IMAGE_EXTENSIONS,
    ImageFacts,
    check_image,
    inspect_image,
)
from kubeloop.datasets.kinds.base import DatasetKind, ScanOptions
from kubeloop.datasets.kinds.image_sources import FACTS, FoundImage, find_images
from kubeloop.datasets.kinds.rows import add_scan_columns
from kubeloop.datasets.shards.base import SCAN_COLUMNS, ShardFormat
from kubeloop.datasets.sources.base import Source, extension_of
from kubeloop.datasets.statistics import Statistics
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 512
_BATCH_BYTES = 16 << 20


class ImageClassification(DatasetKind):
    """Images with one label each; `image_sources` says in which forms they come."""

    name = "image_classification"
    shard_format = ShardFormat.TAR
    described_columns = frozenset(
        {"version", "format", "width", "height", "is_grey", "num_bytes", "label", "data"}
    )

    def scan(
        self, source: Source, *, options: ScanOptions, log: ScanLog
    ) -> Iterator[pa.RecordBatch]:
        """Yield a row for every image that can be read."""
        check = inspect_image if options.decode_images else check_image
        batch = _Batch()
        for image in find_images(source, options=options, log=log):
            log.num_seen += 1
            data = image.data
            if data is None:
                data = source.read(image.path, version=image.version)
            try:
                facts = check(data, max_pixels=options.max_pixels)
            except InputError as error:
                log.reject(image.path, str(error))
                continue
            batch.add(image, facts=facts, data=data)
            if batch.is_full:
                yield batch.close()
                batch = _Batch()
        if batch.rows:
            yield batch.close()

    def read_example(self, source: Source, row: Mapping[str, Any]) -> bytes:
        """Return an image that its table holds, or else its file."""
        kept: bytes | None = row.get("data")
        return source.read(row["path"], version=row["version"]) if kept is None else kept

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
        self._types: Mapping[str, pa.DataType | str] = {}
        self._kept_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= _BATCH_ROWS or self._kept_bytes >= _BATCH_BYTES

    def add(self, image: FoundImage, *, facts: ImageFacts, data: bytes) -> None:
        self.rows.append(
            {
                "path": image.path,
                "label": image.label,
                "extension": _choose_extension(image.path, format_=facts.format),
                "version": image.version,
                "format": facts.format,
                "width": facts.width,
                "height": facts.height,
                "is_grey": facts.is_grey,
                "num_bytes": len(data),
                **({"data": image.data} if "data" in image.types else {}),
                **image.metadata,
            }
        )
        self._types = {**FACTS, **image.types}
        self._kept_bytes += len(image.data or b"")
        self._digests.append(hashlib.sha256(data).digest())
        self._splits.append(image.split)

    def close(self) -> pa.RecordBatch:
        import pyarrow as pa

        schema = pa.schema([(name, self._types[name]) for name in self.rows[0]])
        rows = pa.RecordBatch.from_pylist(self.rows, schema=schema)
        return add_scan_columns(
            rows,
            digests=self._digests,
            sizes=rows.column("num_bytes").to_pylist(),
            labels=rows.column("label"),
            splits=pa.array(self._splits, pa.string()),
        )


_EXTENSIONS = {"JPEG": ".jpg", "TIFF": ".tif", "MPO": ".jpg", "PPM": ".ppm"} | {
    name: f".{name.lower()}" for name in ("BMP", "GIF", "PNG", "WEBP")
}


def _choose_extension(path: str, *, format_: str) -> str:
    """Return the extension by which other tools know an image in a shard."""
    extension = extension_of(path)
    return extension if extension in IMAGE_EXTENSIONS else _EXTENSIONS[format_]


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
