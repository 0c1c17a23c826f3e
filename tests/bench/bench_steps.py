"""Overhead of a pipeline step: the same compiled files here and under kfp.local.

A chain of eight additions, compiled twice: as KFP compiles it by default, where every step makes
sure that kfp is installed, and without that. kfp.local runs steps in the user's environment, or
(its default) in a virtual environment a step, for which it needs a package registry.
"""

import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler, components, dsl, local

from kubeloop.cli.plane import running
from kubeloop.local.state import StateFolder
from kubeloop.pipelines.packages import read_package
from kubeloop.pipelines.runs import RunState, connect, submit, wait

NUM_STEPS = 8
NUM_RUNS = 5
NUM_PARALLEL = 100
BUDGET_SECONDS = 0.10
PARALLEL_BUDGET_SECONDS = 10

Runner = Callable[[Path], float]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def compile_chain(file: Path, *, install_kfp_package: bool) -> Path:
    """Compile the chain."""
    step = dsl.component(add, install_kfp_package=install_kfp_package)

    @dsl.pipeline(name="chain")
    def chain(start: int = 1) -> int:
        task = step(a=start, b=1)
        for _ in range(NUM_STEPS - 1):
            task = step(a=task.output, b=1)
        return task.output  # type: ignore[no-any-return]  # kfp reads the annotation

    compiler.Compiler().compile(chain, str(file))
    return file


def compile_parallel(file: Path) -> Path:
    """Compile tasks that need nothing of each other."""
    step = dsl.component(add, install_kfp_package=False)

    @dsl.pipeline(name="parallel")
    def parallel() -> None:
        with dsl.ParallelFor(items=list(range(NUM_PARALLEL))) as item:
            step(a=item, b=1)

    compiler.Compiler().compile(parallel, str(file))
    return file


def measure_run(client: Any, file: Path, **parameters: int) -> float:
    """Seconds from submission until the client sees that the run has succeeded."""
    started = time.monotonic()
    run_id = submit(client, read_package(file), parameters=parameters, enable_caching=False)
    run = wait(client, run_id, poll_seconds=0.02)
    assert run.state is RunState.SUCCEEDED, run
    return time.monotonic() - started


def measure_kfp_local(file: Path, *, use_venv: bool) -> float:
    """Seconds a step under kfp.local."""
    local.init(runner=local.SubprocessRunner(use_venv=use_venv), raise_on_error=True)
    pipeline: Any = components.load_component_from_file(str(file))
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        pipeline(start=1)
    return (time.monotonic() - started) / NUM_STEPS


def show(name: str, seconds: float, ours: float) -> None:
    """Print one line of the chain."""
    print(f"  {name:38}{seconds * 1e3:7.0f} ms a step  {seconds / ours:6.1f}x", flush=True)


def main() -> None:
    """Print the steps of each, and the ratios."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # kfp.local writes beside
        chains = {
            "as KFP compiles it by default": compile_chain(
                folder / "default.yaml", install_kfp_package=True
            ),
            "with install_kfp_package=False": compile_chain(
                folder / "lean.yaml", install_kfp_package=False
            ),
        }
        parallel = compile_parallel(folder / "parallel.yaml")
        started = time.monotonic()
        with running(StateFolder(folder / "state"), (0, 0, 0)) as endpoints:
            up = time.monotonic() - started
            print(f"kubeloop up until all APIs answer  {up:.2f} s (budget 3)")
            client = connect(host=endpoints.kfp_url, token=endpoints.token)
            measure_run(client, parallel)  # the first may wait for the warm parent
            ours = {
                title: statistics.median(
                    measure_run(client, file, start=number) / NUM_STEPS
                    for number in range(NUM_RUNS)
                )
                for title, file in chains.items()
            }
            at_once = measure_run(client, parallel)
        for title, file in chains.items():
            print(f"chain of {NUM_STEPS}, {title} (budget {BUDGET_SECONDS * 1e3:.0f} ms a step)")
            show("kubeloop", ours[title], ours[title])
            show("kfp.local, in the user's environment",
                 measure_kfp_local(file, use_venv=False), ours[title])  # fmt: skip
            if "default" in title:
                seconds = measure_kfp_local(file, use_venv=True)
                show("kfp.local, a venv a step (its default)", seconds, ours[title])
        budget = f"(budget {PARALLEL_BUDGET_SECONDS})"
        print(f"{NUM_PARALLEL} tasks at once, until the run has ended  {at_once:.1f} s {budget}")


if __name__ == "__main__":
    main()
