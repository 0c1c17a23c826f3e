"""Checks of image files that need no decoding."""

from __future__ import annotations

import struct
import zlib

from kubeloop.errors import InputError


def check_png(data: bytes) -> None:
    """Check that a PNG file is whole, by the checksums of its chunks.

    Raises:
        InputError: It is not.
    """
    offset, total, view = 8, len(data), memoryview(data)
    while offset + 12 <= total:
        length, name = struct.unpack_from(">I4s", data, offset)
        end = offset + 8 + length
        if end + 4 > total:
            break
        checksum = zlib.crc32(view[offset + 4 : end])
        if checksum != int.from_bytes(data[end : end + 4]):
            raise InputError(f"damaged image: wrong checksum of a {name.decode('latin-1')} chunk")
        if name == b"IEND":
            return
        offset = end + 4
    raise InputError("damaged image: it ends before its last chunk")


def check_jpeg(data: bytes) -> None:
    """Check that a JPEG file has a whole header and an end.

    Raises:
        InputError: It has not.
    """
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:
            offset += 1
            continue
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
        if marker == 0xDA:
            # NB: a thumbnail in the header has an end mark too, so look behind the header only.
            if data.rfind(b"\xff\xd9", offset) < 0:
                raise InputError("damaged image: it ends before its end mark")
            return
    raise InputError("damaged image: its header is cut short or broken")


def check_webp(data: bytes) -> None:
    """Check that a WebP file is as long as it says.

    Raises:
        InputError: It is not.
    """
    if len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise InputError("damaged image: it is shorter than its header says")
