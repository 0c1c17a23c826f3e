"""`kubeloop demo` from nothing: seconds by step, and the memory of all its processes together.

Then once more on a control plane that runs: all that is cached is taken from the cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psutil

BUDGET_SECONDS = 60
CACHED_BUDGET_SECONDS = 2
NUM_CACHED = 3
BUDGET_GIB = 4.0
SAMPLE_SECONDS = 0.5


def measure_memory(state: Path) -> int:
    """Bytes of all processes of the state folder; shared pages count once (PSS)."""
    total = 0
    for process in psutil.process_iter():
        try:
            if str(state) in " ".join((*process.cmdline(), *process.environ().values())):
                total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def run(*arguments: str, state: Path) -> dict[str, Any]:
    """Run a command of kubeloop to its end; returns the report it wrote, if any."""
    report = state.with_name("report.json")
    command = [sys.executable, "-m", "kubeloop.cli.main", *arguments, "--state", str(state)]
    if arguments[0] == "demo":
        command += ["--report", str(report)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return json.loads(report.read_text()) if arguments[0] == "demo" else {}


def measure_cached(state: Path) -> list[float]:
    """Seconds of the demo's run when nothing has changed."""
    run("up", "--api-port", "0", "--kfp-port", "0", "--gateway-port", "0", state=state)
    try:
        run("demo", state=state)  # the first waits for the endpoint, which starts again
        return [run("demo", state=state)["seconds"]["total"] for _ in range(NUM_CACHED)]
    finally:
        run("down", state=state)


def main() -> None:
    """Run the demo and print what it took."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as pool:
        state = Path(name) / "state"
        started, peak = time.monotonic(), 0
        demo = pool.submit(run, "demo", state=state)
        while not demo.done():
            peak = max(peak, measure_memory(state))
            time.sleep(SAMPLE_SECONDS)
        seconds, results = time.monotonic() - started, demo.result()
        cached = measure_cached(state)
    for step, value in results["seconds"].items():
        print(f"{step:24}{value:7.1f} s")
    print(f"{'with start and report':24}{seconds:7.1f} s (budget {BUDGET_SECONDS})")
    print(f"{'again, cached':24}{median(cached):7.1f} s (budget {CACHED_BUDGET_SECONDS})")
    print(f"{'peak memory (PSS)':24}{peak / 2**30:7.2f} GiB (budget {BUDGET_GIB:.0f})")
    print(f"{'test accuracy':24}{results['test_accuracy']:7.4f}")


if __name__ == "__main__":
    main()
