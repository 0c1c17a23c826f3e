import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kubeloop.datasets.images import Channels, decode_image, inspect_image
from kubeloop.errors import InputError


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(width: int = 4, height: int = 2) -> Image.Image:
    return Image.fromarray(np.arange(width * height, dtype=np.uint8).reshape(height, width))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG"])
def test_formats_decode_to_height_width_channels(kind: str) -> None:
    data = encode(grey().convert("RGB"), kind)

    assert inspect_image(data).format == kind
    assert decode_image(data).shape == (2, 4, 3)
    assert decode_image(data, channels=1).shape == (2, 4, 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_decode_to_bytes(mode: str, channels: Channels) -> None:
    data = encode(grey().convert("RGB").convert(mode), "TIFF")

    pixels = decode_image(data, channels=channels)

    assert (pixels.shape, pixels.dtype) == ((2, 4, channels), np.dtype(np.uint8))


def test_lossless_pixels_come_back_unchanged() -> None:
    pixels = decode_image(encode(grey()), channels=1)

    assert pixels[:, :, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_sixteen_bit_images_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16))

    pixels = decode_image(encode(image), channels=1)

    assert pixels[0, :, 0].tolist() == [0, 0x12, 0xFF]


def test_photographs_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(grey(40, 20), "JPEG", exif=exif)

    assert decode_image(data).shape == (40, 20, 3)


def test_grey_images_are_known_as_such() -> None:
    assert inspect_image(encode(grey())).is_grey
    assert not inspect_image(encode(grey().convert("RGB"))).is_grey


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = encode(grey(100, 100))

    with pytest.raises(InputError, match="100 x 100 pixels are more than the 9999 allowed"):
        decode_image(data, max_pixels=9999)
    assert decode_image(data, max_pixels=10_000).shape == (100, 100, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_damaged_images_are_refused_and_never_crash(kind: str) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    whole = encode(image, kind)
    refused = 0
    for number in range(60):
        data = bytearray(whole)
        if number % 2:
            data = data[: int(rng.integers(0, len(data)))]
        else:
            data[int(rng.integers(0, len(data)))] ^= int(rng.integers(1, 255))
        try:
            decode_image(bytes(data))
        except InputError:
            refused += 1

    assert refused > 10


@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x04\x95.", b"%PDF-1.4"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not an image"):
        inspect_image(data)


def test_formats_that_run_programs_are_not_tried() -> None:
    with pytest.raises(InputError, match="not an image"):
        inspect_image(encode(grey().convert("RGB"), "EPS"))
