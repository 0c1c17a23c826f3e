"""Overhead of a pipeline step: a chain of eight additions, here and under kfp.local."""

import contextlib
import io
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from kfp import compiler, dsl, local

from kubeloop.cli.plane import running
from kubeloop.local.state import StateFolder
from kubeloop.pipelines.packages import read_package
from kubeloop.pipelines.runs import RunState, connect, submit, wait

NUM_STEPS = 8
NUM_RUNS = 5
BUDGET_SECONDS = 0.10


@dsl.component(install_kfp_package=False)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@dsl.pipeline(name="chain")
def chain(start: int = 1) -> int:
    """Add eight times."""
    task = add(a=start, b=1)
    for _ in range(NUM_STEPS - 1):
        task = add(a=task.output, b=1)
    return task.output  # type: ignore[no-any-return]  # kfp reads the annotation


def measure_kubeloop(folder: Path) -> tuple[float, float]:
    """Seconds until all APIs answer, and median seconds a step."""
    file = folder / "chain.yaml"
    compiler.Compiler().compile(chain, str(file))
    started = time.monotonic()
    with running(StateFolder(folder / "state"), (0, 0, 0)) as endpoints:
        up = time.monotonic() - started
        client = connect(host=endpoints.kfp_url, token=endpoints.token)
        package = read_package(file)
        seconds = []
        for number in range(NUM_RUNS + 1):
            started = time.monotonic()
            run_id = submit(client, package, parameters={"start": number}, enable_caching=False)
            run = wait(client, run_id, poll_seconds=0.02)
            assert run.state is RunState.SUCCEEDED, run
            seconds.append((time.monotonic() - started) / NUM_STEPS)
    # The first run may wait for the warm parent.
    return up, statistics.median(seconds[1:])


def measure_kfp_local(folder: Path) -> float:
    """Seconds a step under kfp.local, without a virtual environment a step."""
    os.chdir(folder)
    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        chain(start=1)
    return (time.monotonic() - started) / NUM_STEPS


def main() -> None:
    """Print both, and the ratio."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        up, ours = measure_kubeloop(Path(name))
        peer = measure_kfp_local(Path(name))
    print(f"kubeloop up until all APIs answer  {up:.2f} s (budget 3)")
    budget = BUDGET_SECONDS * 1e3
    print(f"step, kubeloop                     {ours * 1e3:.0f} ms (budget {budget:.0f})")
    print(f"step, kfp.local                    {peer * 1e3:.0f} ms")
    print(f"kfp.local / kubeloop               {peer / ours:.1f}x")


if __name__ == "__main__":
    main()
