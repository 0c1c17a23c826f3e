"""`kubeloop demo` from nothing: seconds by step, and the memory of all its processes together."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

BUDGET_SECONDS = 120
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


def main() -> int:
    """Run the demo once and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        state, report = Path(name) / "state", Path(name) / "report.json"
        command = [sys.executable, "-m", "kubeloop.cli.main", "demo"]
        command += ["--state", str(state), "--report", str(report)]
        started, peak = time.monotonic(), 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as demo:
            while demo.poll() is None:
                peak = max(peak, measure_memory(state))
                time.sleep(SAMPLE_SECONDS)
        seconds = time.monotonic() - started
        if demo.returncode:
            return demo.returncode
        results = json.loads(report.read_text())
    for step, value in results["seconds"].items():
        print(f"{step:24}{value:7.1f} s")
    print(f"{'with start and report':24}{seconds:7.1f} s (budget {BUDGET_SECONDS})")
    print(f"{'peak memory (PSS)':24}{peak / 2**30:7.2f} GiB (budget {BUDGET_GIB:.0f})")
    print(f"{'test accuracy':24}{results['test_accuracy']:7.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
