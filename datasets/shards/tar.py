"""Tar shards in WebDataset form, for images.

An example is two members of one key: the original encoded file (`<key>.png`) and `<key>.json` with
its label, its path in the source and what else is known of it. Class indices are a commit's matter:
a new label must not change the shards of the others. Every header field that could differ between
machines is fixed. Shards are verified by digest before they are read, so the reader parses headers
directly, which is several times faster than `tarfile`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from kubeloop.datasets.shards.base import LABEL, SCAN_COLUMNS, ShardWriter
from kubeloop.datasets.statistics import Statistics
from kubeloop.errors import IntegrityError

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 512
_NAME_BYTES = 100
_KEY_BYTES = 9
_FACTS = b".json\0"
_SIZE_FIELD = slice(124, 136)
_CHECKSUM_FIELD = slice(148, 156)
_MAX_SIZE = 8**11 - 1
_TEMPLATE = tarfile.TarInfo("x")
_TEMPLATE.mode = 0o644
_HEADER = bytearray(_TEMPLATE.tobuf(tarfile.USTAR_FORMAT))
_HEADER[0] = 0
_HEADER[_SIZE_FIELD] = bytes(12)
_HEADER[_CHECKSUM_FIELD] = b" " * 8
_HEADER_SUM = sum(_HEADER)

_DECODER = json.JSONDecoder()

Place = tuple[int, int, str, int, int]
"""Start and end of an example's file, its extension, start and end of its facts."""
Describe = Callable[["pa.RecordBatch", Statistics], None]
ReadExample = Callable[[Mapping[str, Any]], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One example as it lies in a shard."""

    data: bytes
    """The original encoded file."""
    extension: str
    """Its extension, with the dot."""
    label: str
    """Its label."""
    path: str
    """Its path in the source."""
    metadata: Mapping[str, Any]
    """What else the source says of it."""


class TarShardWriter(ShardWriter):
    """Writes examples as tar members.

    Args:
        file: Where the shard goes.
        describe: Adds a batch to the statistics.
        read: Gives the encoded example of a scanned row.
        described: Columns that describe the encoded example and are not stored beside it.
    """

    def __init__(
        self, file: BinaryIO, *, describe: Describe, read: ReadExample, described: frozenset[str]
    ) -> None:
        super().__init__(file)
        self._describe = describe
        self._read = read
        self._hidden = described | {*SCAN_COLUMNS, "path", "extension"}
        self._count = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Append scanned rows."""
        for row in rows.to_pylist():
            metadata = {
                name: value
                for name, value in row.items()
                if name not in self._hidden and value is not None
            }
            member = TarMember(
                data=self._read(row),
                extension=row["extension"],
                label=row[LABEL],
                path=row["path"],
                metadata=metadata,
            )
            for block in render_member(member, self._count):
                self._file.write(block)
            self._count += 1
            self.statistics.num_bytes += len(member.data)
            self.statistics.labels[member.label] += 1
        self.statistics.num_rows += rows.num_rows
        self._describe(rows, self.statistics)

    def close(self) -> None:
        """Write the end mark."""
        self._file.write(bytes(2 * _BLOCK))


def render_member(member: TarMember, index: int) -> Iterator[bytes]:
    """Yield the bytes of an example."""
    facts: dict[str, Any] = {"label": member.label, "path": member.path}
    if member.metadata:
        facts["metadata"] = dict(member.metadata)
    key = f"{index:0{_KEY_BYTES}d}"
    yield _render_header(f"{key}{member.extension}", len(member.data))
    yield member.data
    text = json.dumps(facts, sort_keys=True, default=str).encode()
    yield b"".join(
        (
            bytes(-len(member.data) % _BLOCK),
            _render_header(f"{key}.json", len(text)),
            text,
            bytes(-len(text) % _BLOCK),
        )
    )


def _render_header(name: str, size: int) -> bytes:
    encoded = name.encode("ascii")
    assert len(encoded) <= _NAME_BYTES
    assert size <= _MAX_SIZE
    digits = b"%011o" % size
    header = _HEADER.copy()
    header[: len(encoded)] = encoded
    header[_SIZE_FIELD] = digits + b"\0"
    header[_CHECKSUM_FIELD] = b"%06o\0 " % (_HEADER_SUM + sum(encoded) + sum(digits))
    return bytes(header)


def find_members(shard: memoryview) -> list[Place]:
    """Locate all examples of a shard.

    Raises:
        IntegrityError: It is not a shard of this form.
    """
    found: list[Place] = []
    extensions: dict[bytes, str] = {}
    members = _walk(shard)
    for header, start, end in members:
        facts_header, facts_start, facts_end = next(members, (0, 0, 0))
        key_end = header + _KEY_BYTES
        tail = bytes(shard[key_end : header + _NAME_BYTES])
        extension = extensions.get(tail)
        if extension is None:
            extension = extensions[tail] = tail.rstrip(b"\0").decode()
        facts_name = shard[facts_header : facts_header + _KEY_BYTES + len(_FACTS)]
        if facts_name != bytes(shard[header:key_end]) + _FACTS:
            raise IntegrityError(f"A member of the shard at byte {header} has no facts behind it.")
        found.append((start, end, extension, facts_start, facts_end))
    return found


def read_facts(shard: memoryview, place: Place) -> Mapping[str, Any]:
    """Read what is known of an example."""
    facts: Mapping[str, Any] = _DECODER.raw_decode(str(shard[place[3] : place[4]], "utf-8"))[0]
    return facts


def read_member(shard: memoryview, place: Place) -> TarMember:
    """Read one example."""
    facts = read_facts(shard, place)
    return TarMember(
        data=bytes(shard[place[0] : place[1]]),
        extension=place[2],
        label=facts["label"],
        path=facts["path"],
        metadata=facts.get("metadata", {}),
    )


def _walk(shard: memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield where the header, the start and the end of each member are."""
    offset, last = 0, len(shard) - _BLOCK
    while offset <= last:
        if not shard[offset]:
            return
        size = int(bytes(shard[offset + 124 : offset + 135]), 8)
        start = offset + _BLOCK
        yield offset, start, start + size
        offset = start + size + -size % _BLOCK
    raise IntegrityError("The shard ends without a tar file's end mark.")
