"""A PyTorchJob of two ranks that trains 20 tiny DDP steps, beside torchrun with the same program.

Timed from the creation of the job by the official client to the moment a watch shows that it has
succeeded.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubeflow.training import TrainingClient
from kubernetes import watch

from kubeloop.cli.plane import running
from kubeloop.local.state import StateFolder
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

NUM_ROUNDS = 7
BUDGET_SECONDS = 1.0
PROGRAM = """
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
_numbers = itertools.count()


def run_job(client: Any) -> None:  # Any: TrainingClient has no types
    """Run one job to its end."""
    config = TrainingJobConfig(
        name=f"ranks-{next(_numbers)}", command=("python", "-c", PROGRAM), num_workers=2
    )
    client.create_job(PyTorchJobBuilder().build(config), namespace="default")
    events = watch.Watch().stream(
        client.custom_api.list_namespaced_custom_object,
        *("kubeflow.org", "v1", "default", "pytorchjobs"),
        field_selector=f"metadata.name={config.name}",
        timeout_seconds=60,
    )
    for event in events:
        conditions = event["object"].get("status", {}).get("conditions", [])
        if any(c["type"] == "Succeeded" and c["status"] == "True" for c in conditions):
            return
        assert not any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)
    raise TimeoutError(config.name)


def run_torchrun(program: Path) -> None:
    """Run the same program under torchrun."""
    arguments = ("--standalone", "--nproc-per-node=2", str(program))
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def measure(work: Callable[[], None], *, num_rounds: int) -> list[float]:
    """Seconds of each round; one more goes before them."""
    seconds = []
    for _ in range(num_rounds + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main() -> None:
    """Print both, and the ratio."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = StateFolder(Path(name) / "state")
        with running(folder, (0, 0, 0)):
            client = TrainingClient(config_file=str(folder.kubeconfig))
            ours = measure(lambda: run_job(client), num_rounds=NUM_ROUNDS)
        program = Path(name) / "rank.py"
        program.write_text(PROGRAM)
        peer = measure(lambda: run_torchrun(program), num_rounds=2)
    for title, seconds, note in (
        ("PyTorchJob, two ranks, 20 DDP steps", ours, f" (budget {BUDGET_SECONDS:.0f})"),
        ("torchrun, the same program", peer, ""),
    ):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{title:38}{statistics.median(seconds):7.2f} s{note}  ({spread})")
    print(f"torchrun / kubeloop {statistics.median(peer) / statistics.median(ours):25.1f}x")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
