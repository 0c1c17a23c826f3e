"""Small image folders for tests: every image is different, and each class looks like itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


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
