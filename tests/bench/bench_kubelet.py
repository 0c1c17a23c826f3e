"""How long pods take beyond what runs in them, beside the plain interpreter and torchrun.

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
RANK = """
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group('gloo')
model = DistributedDataParallel(torch.nn.Linear(16, 16))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(20):
    optimizer.zero_grad()
    model(torch.randn(8, 16)).pow(2).mean().backward()
    optimizer.step()
dist.destroy_process_group()
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        asyncio.run(measure_pods(Path(folder)))
        measure_peers(Path(folder))


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
        show(
            "two pods, DDP over Gloo, 20 steps, warm",
            await repeat(lambda name: train(cluster, name), num_rounds=5),
        )
        began = time.perf_counter()
        await asyncio.gather(*(run(cluster, f"many-{index}", "true") for index in range(100)))
        show("100 pods `true` at once", [time.perf_counter() - began])
        python = ("python", "-c", "pass")
        began = time.perf_counter()
        await asyncio.gather(*(run(cluster, f"warm-{index}", *python) for index in range(100)))
        show("100 pods `python -c pass` at once, warm", [time.perf_counter() - began])


def measure_peers(folder: Path) -> None:
    """The same programs without us."""
    program = folder / "rank.py"
    program.write_text(RANK)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program))
    for name, arguments in (
        ("plain `python -c pass`", ("-c", "pass")),
        ("plain `python -c 'import torch; …'`", ("-c", IMPORT_TORCH)),
        ("torchrun, two ranks, DDP over Gloo, 20 steps", torchrun),
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


async def train(cluster: Cluster, name: str) -> None:
    """Run two ranks that find each other as a PyTorchJob's replicas do."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-0", "namespace": "default"},
        "spec": {"clusterIP": "None", "ports": [{"name": "pytorchjob-port", "port": 23456}]},
    }
    await cluster.client.create(service)

    def build(rank: int) -> list[dict[str, Any]]:
        env = {
            "MASTER_ADDR": f"{name}-0",
            "MASTER_PORT": "23456",
            "WORLD_SIZE": "2",
            "RANK": str(rank),
        }
        container = {
            "name": "pytorch",
            "image": "x",
            "command": ["python", "-c", RANK],
            "ports": [{"containerPort": 23456}],
            "env": [{"name": key, "value": value} for key, value in env.items()],
            "resources": {"limits": {"cpu": "1"}},
        }
        return [container]

    await asyncio.gather(
        *(run(cluster, f"{name}-{rank}", containers=build(rank)) for rank in range(2))
    )


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
