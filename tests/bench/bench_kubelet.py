"""How long pods take beyond what runs in them, beside the plain interpreter.

Run as `python tests/bench/bench_kubelet.py`. Everything is timed from the creation of a Pod in the
Kubernetes API (in memory) to the moment a watch shows that it has succeeded.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubeloop.local.kubelet.kubelet import KubeletConfig
from kubeloop.testing.kubelet import Cluster, phase, start_cluster

NUM_ROUNDS = 15
_numbers = itertools.count()
IMPORT_TORCH = "import torch; torch.ones(1)"


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        asyncio.run(measure_pods(Path(folder)))
        measure_peers()


async def measure_pods(state: Path) -> None:
    """What takes how long on the embedded control plane."""
    started = time.perf_counter()
    async with start_cluster(state, config=KubeletConfig()) as cluster:
        for depth in range(3):
            await cluster.kubelet.processes.wait_until_warm(depth=depth)
            show(f"warm parent, layer {depth} ready", [time.perf_counter() - started])
        show("pod `true`", await repeat(lambda name: run(cluster, name, "true")))
        show(
            "pod `python -c pass`, warm",
            await repeat(lambda name: run(cluster, name, "python", "-c", "pass")),
        )
        show(
            "pod `python -c 'import torch; …'`, warm",
            await repeat(lambda name: run(cluster, name, "python", "-c", IMPORT_TORCH)),
        )
        began = time.perf_counter()
        await asyncio.gather(*(run(cluster, f"many-{index}", "true") for index in range(100)))
        show("100 pods `true` at once", [time.perf_counter() - began])
        python = ("python", "-c", "pass")
        began = time.perf_counter()
        await asyncio.gather(*(run(cluster, f"warm-{index}", *python) for index in range(100)))
        show("100 pods `python -c pass` at once, warm", [time.perf_counter() - began])


def measure_peers() -> None:
    """The same programs without us."""
    for name, arguments in (
        ("plain `python -c pass`", ("-c", "pass")),
        ("plain `python -c 'import torch; …'`", ("-c", IMPORT_TORCH)),
    ):
        seconds: list[float] = []
        for _ in range(3):
            with timing(seconds):
                subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        show(name, seconds)


async def run(cluster: Cluster, name: str, *command: str, **spec: Any) -> None:  # fields of a spec
    """Run a pod to its end."""
    pod = await cluster.run(name, *command, **spec)
    if phase(pod) != "Succeeded":
        raise RuntimeError(await cluster.log(name))


async def repeat(
    work: Callable[[str], Awaitable[None]], *, num_rounds: int = NUM_ROUNDS
) -> list[float]:
    """Seconds of each round, the first left out."""
    seconds: list[float] = []
    for _ in range(num_rounds + 1):
        with timing(seconds):
            await work(f"pod-{next(_numbers)}")
    return seconds[1:]


@contextmanager
def timing(seconds: list[float]) -> Iterator[None]:
    """Append how long the block took."""
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def show(name: str, seconds: list[float]) -> None:
    """Print one line."""
    median = statistics.median(seconds) * 1e3
    spread = f"  ({min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f})" if len(seconds) > 1 else ""
    print(f"{name:48} {median:8.0f} ms{spread}", flush=True)


if __name__ == "__main__":
    main()
