"""Ingestion against plain copy and sha256.

`make bench` measures 2 GB of images of 100 KB and a small table; `make bench-large` 10 GB, and
a table of 1 GB, for the peak of memory. Environment: BENCH_DATASETS_GB.
"""

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubeloop.datasets import IngestConfig, ingest
from kubeloop.testing.image_folders import PHOTO_BYTES, write_photos

NUM_ROUNDS = 3
INGEST_BUDGET, AGAIN_BUDGET, MEMORY_BUDGET_MB = 0.6, 0.05, 500


def copy_and_hash(source: Path, target: Path) -> float:
    """Seconds for `cp -r` and `sha256sum` of the copies."""
    started = time.monotonic()
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(
        f"find {target} -type f -print0 | xargs -0 sha256sum > {target}.sums",
        shell=True, check=True,
    )  # fmt: skip
    return time.monotonic() - started


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure_ingest(source: str, store: str, kind: str) -> dict[str, float]:
    """Seconds of an ingestion and of the next, and the peak of memory in MiB."""
    config = IngestConfig(name="bench", source=source, store=store, kind=kind)
    started = time.monotonic()
    ingest(config)
    first = time.monotonic() - started
    started = time.monotonic()
    assert not ingest(config).is_new
    again = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": first, "again": again, "peak": peak}


def bench_ingest(folder: Path, gigabytes: float) -> None:
    """Print the ratios to copy and sha256; the best of a few rounds, for others use the machine."""
    source = folder / "images"
    write_photos(source, count=int(gigabytes * 1e9 / PHOTO_BYTES))
    rounds = []
    for _ in range(NUM_ROUNDS if gigabytes <= 2 else 1):
        peer = copy_and_hash(source, folder / "copy")
        shutil.rmtree(folder / "copy")
        ours = run_apart(measure_ingest, str(source), str(folder / "store"), "image_classification")
        shutil.rmtree(folder / "store")
        rounds.append((peer / ours["first"], peer, ours))
    ratio, peer, ours = max(rounds, key=lambda entry: entry[0])
    speed = gigabytes * 1000 / ours["first"]
    print(f"ingest {gigabytes:g} GB of files of 100 KB    {ours['first']:.1f} s, {speed:.0f} MB/s")
    print(f"cp + sha256sum                       {peer:.1f} s")
    print(f"ingest / (cp + sha256sum)            {ratio:.2f}x of its MB/s (budget {INGEST_BUDGET})")
    share = ours["again"] / ours["first"]
    print(
        f"again, unchanged                     {share:.1%} of the time (budget {AGAIN_BUDGET:.0%})"
    )
    print(
        f"peak of memory                       {ours['peak']:.0f} MiB (budget {MEMORY_BUDGET_MB})"
    )


def bench_table(folder: Path, gigabytes: float) -> None:
    """Print speed and peak of memory for one big CSV file."""
    path = folder / "rows.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        number = 0
        while file.tell() < gigabytes * 1e9:
            file.writelines(
                f"this is text number {n} of a table that is read in blocks,label {n % 50}\n"
                for n in range(number, number + 100_000)
            )
            number += 100_000
    ours = run_apart(measure_ingest, str(path), str(folder / "rows"), "text_classification")
    speed = gigabytes * 1000 / ours["first"]
    print(
        f"ingest {gigabytes:g} GB of CSV, {number:,} rows  {ours['first']:.0f} s, {speed:.1f} MB/s"
    )
    print(
        f"peak of memory                       {ours['peak']:.0f} MiB (budget {MEMORY_BUDGET_MB})"
    )


def main() -> None:
    """Print all of it."""
    is_large = "--large" in sys.argv
    gigabytes = float(os.environ.get("BENCH_DATASETS_GB", "10" if is_large else "2"))
    load = json.dumps([round(value, 1) for value in os.getloadavg()])
    print(f"load of the machine before           {load}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="bench-datasets-") as name:
        bench_ingest(Path(name), gigabytes)
        bench_table(Path(name), 1.0 if is_large else 0.05)


if __name__ == "__main__":
    main()
