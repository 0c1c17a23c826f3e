"""Reads scalars out of TensorFlow event files, without TensorFlow.

A file is a row of records, each framed by its length and by checksums (TFRecord); a record is an
`Event` message, of which only time, tags and scalar values are read. A record that is still being
written is left for the next look; a broken one ends the reading of its file, as in TensorBoard.

Source: tensorflow `core/lib/io/record_writer.h`, `core/util/event.proto`,
`core/framework/{summary,tensor}.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_MAX_RECORD_BYTES = 1 << 30

_Field = tuple[int, int | bytes]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_FLOAT, _DOUBLE, _INT32, _INT64 = 1, 2, 3, 9
_FORMATS = {_FLOAT: "<f", _DOUBLE: "<d", _INT32: "<i", _INT64: "<q"}
_VALUE_FIELDS = {_FLOAT: 5, _DOUBLE: 6, _INT32: 7, _INT64: 10}


class BrokenRecordError(ValueError):
    """The file is no event file, or is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value of a tag."""

    wall_time: float
    """Seconds since the epoch."""
    tag: str
    value: str


def split_records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The whole records at the start of `data`, each with where it ends.

    Raises:
        BrokenRecordError: A checksum does not fit; the records before it have been given.
    """
    position = 0
    while position + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, position)
        if _checksum(data[position : position + 8]) != checksum or length > _MAX_RECORD_BYTES:
            raise BrokenRecordError(f"no record starts at byte {position}")
        start = position + _HEADER.size
        end = start + length
        if end + _CHECKSUM.size > len(data):
            return
        record = data[start:end]
        if _checksum(record) != _CHECKSUM.unpack_from(data, end)[0]:
            raise BrokenRecordError(f"the record at byte {position} is damaged")
        position = end + _CHECKSUM.size
        yield record, position


def read_scalars(record: bytes) -> Iterator[Scalar]:
    """The scalars in one event."""
    try:
        wall_time, summaries = 0.0, []
        for number, value in _split(record):
            if number == 1 and isinstance(value, bytes):
                wall_time = struct.unpack("<d", value)[0]
            elif number == 5 and isinstance(value, bytes):
                summaries.append(value)
        for summary in summaries:
            for number, value in _split(summary):
                if number == 1 and isinstance(value, bytes):
                    yield from _read_value(value, wall_time)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise BrokenRecordError("a record holds no event") from error


def _read_value(raw: bytes, wall_time: float) -> Iterator[Scalar]:
    tag, text = "", None
    for number, value in _split(raw):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            tag = value.decode()
        elif number == 2:
            text = repr(struct.unpack("<f", value)[0])
        elif number == 8:
            text = _read_tensor(value)
    if tag and text is not None:
        yield Scalar(wall_time=wall_time, tag=tag, value=text)


def _read_tensor(raw: bytes) -> str | None:
    """A tensor's only element; None for other tensors."""
    fields = dict(_split(raw))
    kind = fields.get(1)
    if not isinstance(kind, int) or kind not in _FORMATS:
        return None
    format_ = _FORMATS[kind]
    value = fields.get(4) or fields.get(_VALUE_FIELDS[kind])
    if isinstance(value, int):
        return str(value - (1 << 64) * (value >> 63))
    if value is None or len(value) != struct.calcsize(format_):
        return None
    number = struct.unpack(format_, value)[0]
    return _shorten(number) if kind == _FLOAT else repr(number)


def _shorten(value: float) -> str:
    """The shortest text of a single-precision number, as NumPy prints it."""
    texts = (f"{value:.{digits}g}" for digits in range(1, 9))
    packed = struct.pack("<f", value)
    shortest = next((t for t in texts if struct.pack("<f", float(t)) == packed), f"{value:.9g}")
    return repr(float(shortest))


def _split(raw: bytes) -> Iterator[_Field]:
    """Field numbers and values of a message; fixed ones as bytes."""
    position = 0
    while position < len(raw):
        tag, position = _read_varint(raw, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _read_varint(raw, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, position = _read_varint(raw, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise IndexError(f"wire type {kind}")
        if position + length > len(raw):
            raise IndexError("a field is longer than its message")
        yield tag >> 3, raw[position : position + length]
        position += length


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _checksum(data: bytes) -> int:
    """CRC-32C, rotated and shifted, so that it may itself be part of checksummed data."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
