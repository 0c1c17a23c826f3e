"""Decoding images, within bounds and the same way everywhere.

Ingestion, training, evaluation and serving must see the same pixels in the same file, so all of
them decode here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kubeloop.datasets.fast_images import decode_fast
from kubeloop.datasets.image_structure import check_jpeg, check_png, check_webp
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

IMAGE_EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
DEFAULT_MAX_PIXELS = 64_000_000
Channels = Literal[1, 3]
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GREY_MODES = frozenset({"1", "L", "I", "F", "I;16", "I;16B", "I;16L"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image without its pixels."""

    format: str
    width: int
    height: int
    is_grey: bool


def inspect_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageFacts:
    """Decode an image completely and describe it.

    Raises:
        InputError: It is no image, is damaged, or has more than `max_pixels` pixels.
    """
    with _opened(data, max_pixels=max_pixels) as image:
        image.load()
        return ImageFacts(
            format=str(image.format),
            width=image.width,
            height=image.height,
            is_grey=image.mode in _GREY_MODES,
        )


def check_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageFacts:
    """Check an image's structure without decoding its pixels, and describe it.

    Notices what is no image, is cut short, or fails a checksum of its format; fifty times as fast
    as decoding.

    Raises:
        InputError: It is no image, is damaged, or has more than `max_pixels` pixels.
    """
    with _opened(data, max_pixels=max_pixels) as image:
        facts = ImageFacts(
            format=str(image.format),
            width=image.width,
            height=image.height,
            is_grey=image.mode in _GREY_MODES,
        )
        check = _STRUCTURE_CHECKS.get(facts.format)
        if check is None:
            image.load()
        else:
            check(data)
    return facts


_STRUCTURE_CHECKS = {
    "PNG": check_png,
    "JPEG": check_jpeg,
    "MPO": check_jpeg,
    "WEBP": check_webp,
}
"""Formats that show damage without being decoded; the others are decoded."""


def decode_image(
    data: bytes,
    *,
    channels: Channels = 3,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    min_side: int = 0,
) -> NDArray[np.uint8]:
    """Decode an image upright.

    Args:
        data: An encoded image: PNG, JPEG, WebP, GIF (first frame), BMP, TIFF or PNM.
        channels: 3 for RGB, 1 for grey.
        max_pixels: Images with more are refused before they are decoded.
        min_side: JPEG files are decoded at a half, a quarter or an eighth of their size as long as
            no side falls below this, which saves time where they are shrunk anyway; 0: never.

    Returns:
        Pixels, height x width x channels.

    Raises:
        InputError: It is no image, is damaged, or is too big.
    """
    fast = decode_fast(data, channels=channels, max_pixels=max_pixels, min_side=min_side)
    if fast is not None:
        return fast
    import numpy as np
    from PIL import Image, ImageOps

    with _opened(data, max_pixels=max_pixels) as opened:
        if min_side:
            opened.draft(None, (min_side, min_side))  # does nothing but to JPEG
        image = opened if opened.format != "JPEG" else ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            # NB: Pillow clips 16-bit pixels at 255 instead of scaling them.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[:, :, np.newaxis] if channels == 1 else pixels


@contextmanager
def _opened(data: bytes, *, max_pixels: int) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise InputError(
                    f"{image.width} x {image.height} pixels are more than the {max_pixels} allowed"
                )
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"not an image in one of the formats {', '.join(_FORMATS)}") from error
    except (
        *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
        *(ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError),
        *(Image.DecompressionBombError, Warning),
    ) as error:
        # What Pillow's decoders raise for damaged files is not one family.
        raise InputError(f"damaged image: {error}") from error
