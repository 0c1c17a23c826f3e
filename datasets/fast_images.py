"""JPEG and PNG through OpenCV, where it gives the very pixels that Pillow gives.

It decodes three to six times as fast. It forgives JPEG files that are cut short, so their structure
is checked first, and everything unusual is left to Pillow: palettes, 16 bits, CMYK, damage, colour
made grey.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from kubeloop.datasets.image_structure import check_jpeg
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_COLOR = 0, 2
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_EXIF = b"Exif\0\0"
_REDUCTIONS = {1: 0, 2: 16, 4: 32, 8: 64}
"""Divisor of both sides → OpenCV's flag."""


def decode_fast(
    data: bytes, *, channels: Literal[1, 3], max_pixels: int, min_side: int = 0
) -> NDArray[np.uint8] | None:
    """Decode an ordinary JPEG or PNG file; None for others, or without OpenCV."""
    try:
        shape = _read_png(data) if data.startswith(_PNG) else _read_jpeg(data)
    except (InputError, struct.error, IndexError):
        return None
    if shape is None or shape[0] * shape[1] > max_pixels:
        return None
    width, height, num_channels = shape
    if num_channels > channels or (cv2 := _import_opencv()) is None:
        return None
    import numpy as np

    divisor = 1 if data.startswith(_PNG) else choose_divisor(width, height, min_side)
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    flags |= _REDUCTIONS[divisor]
    try:
        pixels: NDArray[np.uint8] | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    if pixels is None or pixels.shape[:2] != (-(-height // divisor), -(-width // divisor)):
        return None
    return pixels[:, :, np.newaxis] if channels == 1 and pixels.ndim == 2 else pixels


def choose_divisor(width: int, height: int, min_side: int) -> int:
    """Return by what libjpeg can divide both sides so that none falls below `min_side`; 0: by 1."""
    room = min(width, height) // min_side if min_side else 1
    return max(divisor for divisor in _REDUCTIONS if divisor <= max(room, 1))


@cache
def _import_opencv() -> Any:  # Any: the module, or None
    try:
        import cv2
    except ImportError:
        return None
    return cv2 if hasattr(cv2, "IMREAD_COLOR_RGB") else None


def _read_png(data: bytes) -> tuple[int, int, int] | None:
    """Return width, height and channels of an ordinary PNG file; libpng checks the rest."""
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    if depth != 8 or color not in (_PNG_GREY, _PNG_COLOR) or b"tRNS" in data[:1024]:
        return None
    return width, height, 1 if color == _PNG_GREY else 3


def _read_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """Return width, height and channels of a JPEG file that is whole and stands upright."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    offset, shape = 2, None
    while data[offset] == 0xFF and data[offset + 1] != 0xDA:
        marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4])
        if marker == 0xFF:
            offset += 1
            continue
        if marker == 0xE1 and data.startswith(_EXIF, offset + 4):
            return None  # it may say which way is up
        if marker in _JPEG_FRAMES:
            depth, height, width, num_channels = struct.unpack_from(">BHHB", data, offset + 4)
            if depth != 8 or num_channels not in (1, 3):
                return None
            shape = width, height, num_channels
        offset += 2 + length
    check_jpeg(data)
    return shape
