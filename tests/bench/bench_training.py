"""Training: the shared loop beside a bare one, and two workers beside one on a core of its own.

Repeats alternate, so that a machine whose speed drifts treats both alike; the best of each counts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from kubeloop.training.distributed import World, joined, read_world
from kubeloop.training.loop import TrainingLoop
from kubeloop.training.loop_config import LoopConfig, Selection
from kubeloop.training.vision import build_backbone

NUM_EXAMPLES = 2048
BATCH_SIZE = 64
NUM_CLASSES = 10
IMAGE_SIZE = 16
NUM_REPEATS = 5
LOOP_BUDGET = 0.97
WORKERS_BUDGET = 1.7


class Images:
    """Random images in memory."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        self.labels = torch.randint(NUM_CLASSES, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def count_classes(self) -> Tensor:
        return torch.bincount(self.labels)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        del generator
        images = self.images[rows].contiguous(memory_format=torch.channels_last)
        return images, self.labels[rows]


def build_module() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("resnet18", num_classes=NUM_CLASSES, image_size=IMAGE_SIZE)


def run_loop(data: Images, world: World) -> float:
    """Examples a second of the shared loop, as its own metric line says."""
    lines: list[str] = []
    config = LoopConfig(batch_size=BATCH_SIZE, epochs=1, selection=Selection.LAST)
    loop = TrainingLoop(
        build_module(),
        config,
        world=world,
        train=data,
        validation=Images(1),
        report=lines.append,
    )
    loop.run()
    rates = [word for line in lines for word in line.split() if "examples_per_second=" in word]
    return float(rates[0].partition("=")[2]) if rates else 0.0


def run_bare(data: Images) -> float:
    """Examples a second of a loop written by hand."""
    module = build_module()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, fused=True)
    module.train()
    order = torch.randperm(len(data))
    started = time.monotonic()
    for rows in torch.split(order, BATCH_SIZE):
        inputs, targets = data.fetch(rows, None)
        loss = functional.cross_entropy(module(inputs), targets, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        optimizer.step()
    return len(data) / (time.monotonic() - started)


def alternate(*runs: Callable[[], float]) -> list[float]:
    """The best of some repeats of each, taken in turn."""
    results = [[run() for run in runs] for _ in range(NUM_REPEATS)]
    return [max(column) for column in zip(*results, strict=True)]


def run_workers(count: int) -> float:
    """Examples a second of some workers, each on a core of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), "worker"],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    return float(outputs[0])


def work() -> None:
    """One of several workers; rank 0 prints the examples a second of all of them."""
    world = read_world(os.environ)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[world.rank]})
    torch.set_num_threads(1)
    with joined(world):
        rate = run_loop(Images(NUM_EXAMPLES), world)
    if world.is_main:
        print(rate)


def main() -> int:
    """Print both ratios beside their budgets; returns 1 where one is missed."""
    torch.set_num_threads(1)
    data = Images(NUM_EXAMPLES)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    loop, bare = alternate(lambda: run_loop(data, World()), lambda: run_bare(data))
    print(f"{'shared loop':32}{loop:9.0f} images/s")
    print(f"{'bare loop':32}{bare:9.0f} images/s")
    print(f"{'ratio':32}{loop / bare:9.3f} (budget {LOOP_BUDGET})")
    one, two = alternate(lambda: run_workers(1), lambda: run_workers(2))
    print(f"{'one worker on one core':32}{one:9.0f} images/s")
    print(f"{'two workers on two cores':32}{two:9.0f} images/s")
    print(f"{'ratio':32}{two / one:9.2f} (budget {WORKERS_BUDGET})")
    return int(loop / bare < LOOP_BUDGET or two / one < WORKERS_BUDGET)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
    else:
        sys.exit(main())
