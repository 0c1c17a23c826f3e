"""Training: the shared loop beside a bare one, and two workers beside one on a core of its own.

Repeats alternate, and what counts is the median of the ratios of neighbours, so that a machine
whose speed drifts treats both alike. On a machine that is busy with other things,
`BENCH_CPU_TIME=1` compares the loops by the processor time that they take.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from kubeloop.training.distributed import World, joined, read_world
from kubeloop.training.loop import TrainingLoop
from kubeloop.training.loop_config import LoopConfig, Selection
from kubeloop.training.vision import DEFAULT_ARCHITECTURE, build_backbone

ARCHITECTURES = {DEFAULT_ARCHITECTURE: 1024, "resnet18": 256}
"""Name and examples in an epoch: a network of many small operations, and one of large ones."""
BATCH_SIZE = 64
NUM_CLASSES = 10
IMAGE_SIZE = 16
NUM_LOOP_ROUNDS, NUM_WORKER_ROUNDS = 9, 5
LOOP_BUDGET, WORKERS_BUDGET = 0.97, 1.7
CLOCK = time.process_time if os.environ.get("BENCH_CPU_TIME") else time.monotonic


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


def build_module(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(architecture, num_classes=NUM_CLASSES, image_size=IMAGE_SIZE)


def run_loop(architecture: str, world: World) -> float:
    """Examples a second of the shared loop, as its own metric line says."""
    lines: list[str] = []
    loop = TrainingLoop(
        build_module(architecture),
        LoopConfig(batch_size=BATCH_SIZE, epochs=1, selection=Selection.LAST),
        world=world,
        train=Images(ARCHITECTURES[architecture]),
        validation=Images(1),
        report=lines.append,
        clock=CLOCK,
    )
    loop.run()
    rates = [word for line in lines for word in line.split() if "examples_per_second=" in word]
    return float(rates[0].partition("=")[2]) if rates else 0.0


def run_bare(architecture: str) -> float:
    """Examples a second of a loop written by hand."""
    module, data = build_module(architecture), Images(ARCHITECTURES[architecture])
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, fused=True)
    module.train()
    started = CLOCK()
    for rows in torch.split(torch.randperm(len(data)), BATCH_SIZE):
        inputs, targets = data.fetch(rows, None)
        loss = functional.cross_entropy(module(inputs), targets, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        optimizer.step()
    return len(data) / (CLOCK() - started)


def compare_loops(architecture: str) -> float:
    """Print and return the shared loop's speed over the bare one's."""
    run_bare(architecture)  # the first run of a process allocates
    rounds = []
    for number in range(NUM_LOOP_ROUNDS):
        if number % 2:
            rounds.append((run_loop(architecture, World()), run_bare(architecture)))
        else:
            bare = run_bare(architecture)
            rounds.append((run_loop(architecture, World()), bare))
    ratio = statistics.median(ours / bare for ours, bare in rounds)
    ours, bare = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    print(f"{architecture}, {IMAGE_SIZE} x {IMAGE_SIZE} pixels, batches of {BATCH_SIZE}")
    print(f"  {'shared loop':30}{ours:9.0f} images/s")
    print(f"  {'bare loop':30}{bare:9.0f} images/s")
    print(f"  {'shared / bare':30}{ratio:9.3f} (budget {LOOP_BUDGET})", flush=True)
    return ratio


def compare_workers() -> float:
    """Print what the two workers measured; returns the smallest ratio."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    fixed = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), "worker"],
            env={**os.environ, **fixed, "WORLD_SIZE": "2", "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("A worker failed.")
    lines = outputs[0].splitlines()
    print("\n".join(lines[:-1]))
    return float(lines[-1])


def work() -> None:
    """Be one of two workers, each on a core of its own; rank 0 prints."""
    world = read_world(os.environ)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[world.rank]})
    torch.set_num_threads(1)
    ratios = []
    with joined(world):
        for architecture in ARCHITECTURES:
            rounds = [measure_round(architecture, world) for _ in range(NUM_WORKER_ROUNDS)]
            if not world.is_main:
                continue
            one, two, apart = (statistics.median(rates) for rates in zip(*rounds, strict=True))
            ratio = statistics.median(together / alone for alone, together, _ in rounds)
            ratios.append(ratio)
            print(architecture)
            print(f"  {'one worker on one core':30}{one:9.0f} images/s")
            print(f"  {'two workers on two cores':30}{two:9.0f} images/s")
            print(f"  {'two runs apart, of one each':30}{apart:9.0f} images/s (the limit)")
            print(f"  {'two / one':30}{ratio:9.2f} (budget {WORKERS_BUDGET})")
    if world.is_main:
        print(min(ratios))


def measure_round(architecture: str, world: World) -> tuple[float, float, float]:
    """Images a second of rank 0 alone, of both together, and of both apart at one time."""
    one = run_loop(architecture, World()) if world.is_main else 0.0
    distributed.barrier()
    two = run_loop(architecture, world)
    distributed.barrier()
    apart = torch.tensor(run_loop(architecture, World()))
    distributed.all_reduce(apart)
    return one, two, apart.item()


def main() -> int:
    """Print the ratios beside their budgets; returns 1 where one is missed."""
    torch.set_num_threads(1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    loop = min(compare_loops(architecture) for architecture in ARCHITECTURES)
    return int(compare_workers() < WORKERS_BUDGET or loop < LOOP_BUDGET)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
    else:
        sys.exit(main())
