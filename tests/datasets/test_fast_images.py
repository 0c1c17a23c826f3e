import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kubeloop.datasets import fast_images
from kubeloop.datasets.fast_images import decode_fast
from kubeloop.datasets.images import decode_image
from kubeloop.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8)


def encode(format: str, mode: str = "RGB", **options: Any) -> bytes:  # noqa: A002 - Pillow's name
    buffer = io.BytesIO()
    smooth = Image.fromarray(PIXELS).resize((211, 97)).convert(mode)
    smooth.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("min_side", [0, 40, 20, 10])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"quality": 60, "subsampling": 2}),
        ("JPEG", "RGB", {"quality": 75, "progressive": True}),
        ("JPEG", "RGB", {"quality": 95, "subsampling": 0}),
        ("JPEG", "L", {"quality": 80}),
    ],
)
def test_it_gives_the_pixels_of_pillow(
    format: str,  # noqa: A002 - Pillow's name
    mode: str,
    options: dict[str, Any],
    channels: Any,
    min_side: int,
    monkeypatch: Any,
) -> None:
    data = encode(format, mode, **options)
    fast = decode_fast(data, channels=channels, max_pixels=10**6, min_side=min_side)
    ours = decode_image(data, channels=channels, min_side=min_side)
    monkeypatch.setattr(fast_images, "_import_opencv", lambda: None)
    slow = decode_image(data, channels=channels, min_side=min_side)

    assert (fast is None) == (mode == "RGB" and channels == 1)
    assert np.array_equal(ours, slow)


@pytest.mark.parametrize(
    ("min_side", "height"), [(0, 97), (49, 97), (48, 49), (24, 25), (12, 13), (1, 13)]
)
def test_a_reduced_jpeg_keeps_the_sides_asked_for(min_side: int, height: int) -> None:
    assert decode_image(encode("JPEG"), min_side=min_side).shape[0] == height
    assert decode_image(encode("PNG"), min_side=min_side).shape[0] == 97


@pytest.mark.parametrize(
    "data",
    [
        encode("PNG", "P"),
        encode("PNG", "RGBA"),
        encode("PNG", "I;16"),
        encode("JPEG", "CMYK"),
        encode("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        encode("WEBP"),
        encode("GIF"),
        b"",
        b"\xff\xd8\xff",
    ],
)
def test_what_is_unusual_is_left_to_pillow(data: bytes) -> None:
    assert decode_fast(data, channels=3, max_pixels=10**6) is None


def test_an_image_beyond_the_limit_is_left_to_pillow_to_refuse() -> None:
    data = encode("PNG")

    assert decode_fast(data, channels=3, max_pixels=1000) is None
    with pytest.raises(InputError, match="more than the 1000 allowed"):
        decode_image(data, max_pixels=1000)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_file_cut_short_is_refused(format: str) -> None:  # noqa: A002 - Pillow's name
    data = encode(format)

    with pytest.raises(InputError, match="damaged image"):
        decode_image(data[: len(data) // 2])
