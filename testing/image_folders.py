"""Image folders for tests and benchmarks: every image is different."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

PHOTO_BYTES = 100_000
"""Size of a photo, within a few percent."""
_NUM_PHOTO_CLASSES = 10


def write_image_folder(
    root: Path,
    counts: Mapping[str, int],
    *,
    size: tuple[int, int] = (8, 8),
    grey: bool = True,
    suffix: str = ".png",
) -> Path:
    """Write `<root>/<label>/<number>.png`; a class is a bright stripe at a place of its own."""
    width, height = size
    random = np.random.default_rng(0)
    for index, (label, count) in enumerate(counts.items()):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
            stripe = index * height // len(counts)
            pixels[stripe : stripe + max(1, height // len(counts))] += 180
            image = Image.fromarray(pixels)
            (image.convert("L") if grey else image).save(folder / f"{number:03d}{suffix}")
    return root


def write_photos(root: Path, *, count: int) -> None:
    """Write JPEG files of 640 x 480 pixels, of ten classes in turn.

    Twenty pictures are encoded; a comment in the file makes each of their copies different.
    """
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(20):
        smooth = Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8))
        pixels = np.asarray(smooth.resize((640, 480))).astype(int)
        pixels += random.integers(-22, 22, (480, 640, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
        pictures.append(buffer.getvalue())
    for number in range(count):
        folder = root / f"class-{number % _NUM_PHOTO_CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8)
        picture = pictures[number % len(pictures)]
        (folder / f"{number:07d}.jpg").write_bytes(picture[:2] + comment + picture[2:])
