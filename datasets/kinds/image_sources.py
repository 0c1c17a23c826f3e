"""The forms in which labelled images come.

<source>/<label>/…/<image>            a folder a class
<source>/<split>/<label>/…/<image>    the same, for each split
a table with columns path and label   a manifest; its paths are relative to it
a table with images in a column       as Hugging Face's library writes them
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.columns import (
    LABEL_NAMES,
    PATH_NAMES,
    choose_column,
    choose_split,
    guess_label,
)
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.images import IMAGE_EXTENSIONS
from kubeloop.datasets.kinds.base import ScanOptions
from kubeloop.datasets.kinds.rows import label_texts, read_split, read_tables
from kubeloop.datasets.sources.base import Source, SourceFile, extension_of
from kubeloop.datasets.table_files import TableOptions, split_of_name
from kubeloop.datasets.tables import is_table
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = {
    "path": "string",
    "label": "string",
    "extension": "string",
    "version": "string",
    "format": "string",
    "width": "int64",
    "height": "int64",
    "is_grey": "bool",
    "num_bytes": "int64",
}
"""What the scanned row of any image has, and Arrow's names of the types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """An image and what the source says of it."""

    path: str
    """Its path in the source, or its table and row."""
    label: str
    split: str
    """The split that the source declares, or ''."""
    version: str = ""
    """The file's version."""
    data: bytes | None = None
    """The image, where a table holds it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Other columns of its row."""
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    """Types of what a table may say of it: the metadata, and `data` where it holds images."""


def find_images(source: Source, *, options: ScanOptions, log: ScanLog) -> Iterator[FoundImage]:
    """Yield the images of a source.

    Raises:
        InputError: It has none of the forms above.
    """
    if source.has_rows or _has_tables(source):
        yield from _find_in_tables(source, options=options, log=log)
    else:
        yield from _find_in_folders(source, log=log)


def _has_tables(source: Source) -> bool:
    """Tell whether tables name the images: one lies beside or above them."""
    for file in source.list_all_files():
        if is_table(file) and ("/" not in file.path or split_of_name(file.path.split("/")[0])):
            return True
        if posixpath.basename(file.path) == "state.json":
            return True
    return False


def _find_in_tables(source: Source, *, options: ScanOptions, log: ScanLog) -> Iterator[FoundImage]:
    table_options = TableOptions(
        as_text=True,
        encoding=options.encoding,
        header=options.header,
        delimiter=options.delimiter,
    )
    files = {file.path: file for file in source.list_all_files()}
    # A part of a source reads all its tables, and takes what they say of the part's files.
    others = files.keys() - {file.path for file in source.list_files()}
    columns: _Columns | None = None
    place = 0
    # NB: the images beside a manifest are no tables; that is not worth a note.
    unsaid = ScanLog(notes=log.notes)
    for table, rows in read_tables(
        source, options=table_options, log=unsaid, files=list(files.values())
    ):
        if columns is None:
            split = choose_split(rows, wanted=options.split_column, source=source)
            columns = _Columns.choose(rows, split=split, options=options, log=log)
        labels = label_texts(rows, columns.label).to_pylist()
        for label, row in zip(labels, rows.to_pylist(), strict=True):
            place += 1
            split = read_split(row[columns.split]) if columns.split else table.split
            metadata = {name: row[column] for column, name in columns.others.items()}
            image = row[columns.image]
            if isinstance(image, Mapping) and image.get("bytes") is not None:
                if table.path in others:
                    continue
                yield FoundImage(
                    path=image.get("path") or f"{table.path}/{place}",
                    label=label,
                    split=split,
                    data=image["bytes"],
                    metadata=metadata,
                    types=columns.types,
                )
                continue
            named = image.get("path") if isinstance(image, Mapping) else image
            path = posixpath.normpath(posixpath.join(posixpath.dirname(table.path), named or ""))
            if path in others or (path not in files and table.path in others):
                continue
            if path not in files:
                log.num_seen += 1
                log.reject(
                    f"{table.path}, row {place}", f"there is no file {named!r} in the source"
                )
                continue
            yield FoundImage(
                path=path,
                label=label,
                split=split,
                version=files[path].version,
                metadata=metadata,
                types=columns.types,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    image: str
    label: str
    split: str | None
    others: Mapping[str, str]
    """What the other columns become of an image."""
    types: Mapping[str, pa.DataType]
    """Of what becomes of an image's row."""

    @classmethod
    def choose(
        cls, rows: pa.RecordBatch, *, split: str | None, options: ScanOptions, log: ScanLog
    ) -> _Columns:
        import pyarrow as pa

        holding = [field.name for field in rows.schema if _holds_images(field.type)]
        wanted = options.path_column or next(iter(holding), "")
        image = choose_column(rows, wanted=wanted, role="path", known=PATH_NAMES)
        if image is None:
            image = _guess_path(rows, log=log)
        label = choose_column(rows, wanted=options.label_column, role="label", known=LABEL_NAMES)
        label = label or guess_label(rows, taken=(split, image), log=log)
        others = {
            name: f"original_{name}" if name in FACTS or name == "data" else name
            for name in rows.schema.names
            if name not in (split, image, label)
        }
        types = {name: _plain(rows.schema.field(column).type) for column, name in others.items()}
        if pa.types.is_struct(rows.schema.field(image).type):
            types["data"] = pa.binary()
        return cls(image=image, label=label, split=split, others=others, types=types)


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _plain(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _guess_path(rows: pa.RecordBatch, *, log: ScanLog) -> str:
    for name in rows.schema.names:
        value = rows.column(name)[0].as_py() if rows.num_rows else None
        if isinstance(value, str) and extension_of(value) in IMAGE_EXTENSIONS:
            log.note(f"Path column: {name!r}, guessed from its first value {value!r}.")
            return str(name)
    raise InputError(
        f"No column of image files among {', '.join(rows.schema.names)}; name it with path_column,"
        " or give another kind than image_classification."
    )


def _find_in_folders(source: Source, *, log: ScanLog) -> Iterator[FoundImage]:
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
        if reason := _not_an_image(file):
            log.ignore(file.path, reason)
            continue
        folders[first] = True
        yield FoundImage(path=file.path, label=first, split=split, version=file.version)
    if not source.is_part:
        _check_shape(source, folders=folders, is_empty=is_empty)


def _not_an_image(file: SourceFile) -> str:
    extension = extension_of(file.path)
    return "" if extension in IMAGE_EXTENSIONS else f"not an image ({extension or 'no'} extension)"


def _declares_splits(source: Source) -> bool:
    """Tell whether all folders at the top are named as splits are."""
    top: set[str] = set()
    for file in source.list_all_files():
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
    without = sorted(label for label, has_images in folders.items() if not has_images)
    if without:
        raise InputError(
            f"Class folder {without[0]!r} in {source.uri!r} holds no image;"
            " add images or remove it."
        )
