"""Reading images from shards against torchvision's ImageFolder, each side as its users read.

Small images are read as they are. Photos are read as training reads them, at the size of the model:
ImageFolder with torchvision's `Resize`, and shards through the preprocessing of training and
serving. At full size both sides do little but wait for libjpeg, so no budget holds there.

Both sides go through a `DataLoader` with the same workers, in turn; what counts is the median of
the ratios of neighbours. On a machine that is busy with other things, `BENCH_CPU_TIME=1` compares
processor time, without workers.
"""

import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from kubeloop.datasets import IngestConfig, SplitConfig, ingest, open_dataset
from kubeloop.datasets.reading import EncodedImage
from kubeloop.datasets.streaming import StreamConfig, StreamingDataset
from kubeloop.testing.image_folders import write_photos
from kubeloop.training.preprocessing import REDUCTION_MARGIN, ImagePreprocessing

NUM_SMALL, NUM_PHOTOS = 6000, 600
SMALL, PHOTOS = "png-32x32", "jpeg-640x480"
BATCH_SIZE = 50
NUM_ROUNDS = 5
BUDGET = 2.0
FULL_SIZE = 640
"""Photos are no larger, so nothing is resized."""
IS_BUSY = bool(os.environ.get("BENCH_CPU_TIME"))
CLOCK = time.process_time if IS_BUSY else time.monotonic
NUM_WORKERS = 0 if IS_BUSY else 2


def make_small_images(root: Path, count: int) -> None:
    """Write small PNG files, as in CIFAR."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = root / f"class-{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")


def decode(example: EncodedImage, *, preprocessing: ImagePreprocessing) -> tuple[Any, int]:
    """Return pixels and class, as training does."""
    return preprocessing.decode(example.data), example.class_index


def open_shards(uri: str, size: int) -> Any:
    """Return the shards as a data set of pixels."""
    preprocessing = ImagePreprocessing(
        channels=3, image_size=size, reduction_margin=REDUCTION_MARGIN
    )
    return StreamingDataset(
        open_dataset(uri).split("train"),
        StreamConfig(batch_size=BATCH_SIZE),
        transform=partial(decode, preprocessing=preprocessing),
    )


def open_folder(source: str, size: int) -> Any:
    """Return the files as a data set of pixels."""
    importlib.import_module("kubeloop.training.vision")  # lets torchvision load
    transforms = importlib.import_module("torchvision.transforms")
    steps = [transforms.PILToTensor()]
    if size < FULL_SIZE:
        steps.insert(0, transforms.Resize((size, size)))
    folder = importlib.import_module("torchvision.datasets").ImageFolder
    return folder(source, transform=transforms.Compose(steps))


def measure(data: Any) -> float:
    """Images a second in a second epoch; the first one starts the workers."""
    shuffle = None if isinstance(data, StreamingDataset) else True
    loader = DataLoader(
        data,
        batch_size=BATCH_SIZE,
        shuffle=shuffle,
        num_workers=NUM_WORKERS,
        persistent_workers=NUM_WORKERS > 0,
    )
    for _ in range(2):
        started = CLOCK()
        count = sum(len(images) for images, _ in loader)
    return count / (CLOCK() - started)


def compare(what: str, ours: Callable[[], Any], peer: Callable[[], Any], *, budget: float) -> bool:
    """Print both speeds, and tell whether their ratio meets its budget."""
    rounds = [(measure(ours()), measure(peer())) for _ in range(NUM_ROUNDS)]
    ratio = statistics.median(mine / other for mine, other in rounds)
    mine, other = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    print(f"{what}, {NUM_WORKERS} workers")
    print(f"  shards                             {mine:.0f} images/s")
    print(f"  torchvision ImageFolder            {other:.0f} images/s")
    aim = f"budget {budget}" if budget else "no budget: libjpeg's limit"
    print(f"  shards / ImageFolder               {ratio:.2f}x ({aim})", flush=True)
    return ratio >= budget


def bench(folder: Path, kind: str, sizes: Sequence[int]) -> list[bool]:
    """Compare at some sizes; tells which meet their budgets."""
    source, store = str(folder / kind), str(folder / "store")
    splits = SplitConfig(train=1.0, validation=0.0, test=0.0)
    uri = ingest(IngestConfig(name=kind, source=source, store=store, splits=splits)).uri
    return [
        compare(
            f"{kind} at {'full size' if size == FULL_SIZE else f'{size} x {size}'}",
            partial(open_shards, uri, size),
            partial(open_folder, source, size),
            budget=BUDGET if size < FULL_SIZE else 0.0,
        )
        for size in sizes
    ]


def main() -> int:
    """Print images a second; returns 1 where a ratio misses its budget."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-reading-") as name:
        folder = Path(name)
        make_small_images(folder / SMALL, NUM_SMALL)
        write_photos(folder / PHOTOS, count=NUM_PHOTOS)
        small = bench(folder, SMALL, [32])
        photos = bench(folder, PHOTOS, [64, 128, 224, FULL_SIZE])
    return int(not all(small + photos))


if __name__ == "__main__":
    sys.exit(main())
