"""Shards: tar files in WebDataset form, with bytes that depend on their content alone.

An example is two members of one key: the original encoded file (`<key>.png`) and `<key>.json` with
its class index (`cls`), label and path in the source. Every header field that could differ between
machines is fixed. Shards are written by us and verified by digest before they are read, so the
reader parses headers directly, which is several times faster than `tarfile`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kubeloop.errors import IntegrityError

_BLOCK = 512
_NAME_BYTES = 100
_SIZE_FIELD = slice(124, 136)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow:
    """One example as it lies in a shard."""

    data: bytes
    """The original encoded file."""
    extension: str
    """Its extension, with the dot."""
    class_index: int
    """Index of its label in the commit's labels."""
    label: str
    """Its label."""
    path: str
    """Its path in the source."""


def pack_shards(rows: Iterable[ShardRow], *, max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Pack rows into tar files of about `max_bytes` bytes.

    Yields:
        A shard's bytes and its number of rows.
    """
    buffer, num_rows = io.BytesIO(), 0
    for row in rows:
        members = _encode_row(row, num_rows)
        if num_rows and buffer.tell() + len(members) > max_bytes:
            yield _close(buffer), num_rows
            buffer, num_rows = io.BytesIO(), 0
            members = _encode_row(row, 0)
        buffer.write(members)
        num_rows += 1
    if num_rows:
        yield _close(buffer), num_rows


def _encode_row(row: ShardRow, index: int) -> bytes:
    facts = {"cls": row.class_index, "label": row.label, "path": row.path}
    key = f"{index:09d}"
    return _encode_member(f"{key}{row.extension}", row.data) + _encode_member(
        f"{key}.json", json.dumps(facts, sort_keys=True).encode()
    )


def _encode_member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK)


def _close(buffer: io.BytesIO) -> bytes:
    buffer.write(bytes(2 * _BLOCK))
    return buffer.getvalue()


def unpack_shard(shard: bytes) -> list[ShardRow]:
    """Read all rows of a shard, in order.

    Raises:
        IntegrityError: It is not a shard of this form.
    """
    members = list(_walk(memoryview(shard)))
    rows: list[ShardRow] = []
    for (name, data), (facts_name, facts_data) in zip(members[::2], members[1::2], strict=True):
        key, dot, extension = name.partition(".")
        if facts_name != f"{key}.json":
            raise IntegrityError(f"Shard member {name!r} is not followed by its {key}.json.")
        facts = json.loads(bytes(facts_data))
        rows.append(
            ShardRow(
                data=bytes(data),
                extension=dot + extension,
                class_index=facts["cls"],
                label=facts["label"],
                path=facts["path"],
            )
        )
    return rows


def _walk(shard: memoryview) -> Iterator[tuple[str, memoryview]]:
    offset = 0
    while offset + _BLOCK <= len(shard):
        header = bytes(shard[offset : offset + _BLOCK])
        if not header[0]:
            return
        name = header[:_NAME_BYTES].rstrip(b"\0").decode()
        size = int(header[_SIZE_FIELD].rstrip(b"\0 "), 8)
        offset += _BLOCK
        yield name, shard[offset : offset + size]
        offset += size + -size % _BLOCK
    raise IntegrityError("The shard ends without a tar file's end mark.")
