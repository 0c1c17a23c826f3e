"""Experiments of trivial trials: overhead of a trial, 200 trials at 8 a time, memory.

The peer is Optuna, which drives the same program by subprocess from as many threads, in turns with
ours. Memory is taken after each experiment is deleted, so that what grows has no reason to.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from kubernetes import client, config

from kubeloop.cli.plane import running
from kubeloop.local.state import StateFolder

NUM_TRIALS, NUM_PARALLEL = 200, 8
NUM_SERIAL_TRIALS = 20
OVERHEAD_BUDGET_SECONDS, TOTAL_BUDGET_SECONDS = 0.20, 60
NUM_ROUNDS = 2
_TRIALS = ("kubeflow.org", "v1beta1", "default", "trials")
_EXPERIMENTS = ("kubeflow.org", "v1beta1", "default", "experiments")

PROGRAM = """
import sys, time
started = time.time()
rate = float(sys.argv[1])
print(f"accuracy={1 - (rate - 0.05) ** 2:.6f}", flush=True)
with open(sys.argv[2], "a") as file:
    file.write(f"{started} {time.time()}\\n")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What came of one search."""

    seconds: float
    spans: list[tuple[float, float]]
    """When each program started and ended."""

    @property
    def gaps(self) -> list[float]:
        """From the end of each program to the start of the next, one at a time."""
        return [
            later - ended
            for (_, ended), (later, _) in zip(self.spans, self.spans[1:], strict=False)
        ]


def build_experiment(name: str, times: Path, *, num_trials: int, num_parallel: int) -> Any:
    """An experiment whose trials run the program."""
    container = {
        "name": "main",
        "image": "trivial",
        "command": ["python", "-c", PROGRAM, "${trialParameters.rate}", str(times)],
    }
    job = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "accuracy"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": num_parallel,
            "maxTrialCount": num_trials,
            "parameters": [
                {
                    "name": "rate",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0.01", "max": "0.1"},
                }
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "rate", "reference": "rate"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": job},
                },
            },
        },
    }


def search(folder: Path, api: Any, name: str, *, num_trials: int, num_parallel: int) -> Search:
    """Run an experiment to its end."""
    times = folder / f"{name}.times"
    experiment = build_experiment(name, times, num_trials=num_trials, num_parallel=num_parallel)
    started = time.monotonic()
    api.create_namespaced_custom_object(*_EXPERIMENTS, experiment)
    while True:
        found = api.get_namespaced_custom_object(*_EXPERIMENTS, name)
        status = found.get("status") or {}
        last = (status.get("conditions") or [{}])[-1]
        if last.get("type") in ("Succeeded", "Failed"):
            break
        time.sleep(0.05)
    seconds = time.monotonic() - started
    assert status.get("trialsSucceeded") == num_trials, status
    return Search(seconds=seconds, spans=_read_times(times))


def search_with_optuna(folder: Path, *, num_trials: int, num_parallel: int) -> Search:
    """The same with Optuna and subprocesses."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    times = folder / f"optuna-{num_parallel}.times"
    times.unlink(missing_ok=True)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 0.01, 0.1)
        command = [sys.executable, "-c", PROGRAM, str(rate), str(times)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.partition("=")[2])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler())
    started = time.monotonic()
    study.optimize(objective, n_trials=num_trials, n_jobs=num_parallel)
    return Search(seconds=time.monotonic() - started, spans=_read_times(times))


def forget(api: Any, name: str) -> None:
    """Delete an experiment, and wait until its trials are gone."""
    api.delete_namespaced_custom_object(*_EXPERIMENTS, name)
    selector = f"katib.kubeflow.org/experiment={name}"
    while api.list_namespaced_custom_object(*_TRIALS, label_selector=selector)["items"]:
        time.sleep(0.05)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _read_times(path: Path) -> list[tuple[float, float]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return sorted((float(started), float(ended)) for started, ended in rows)


def main() -> None:
    """Print both, and the ratios."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = StateFolder(folder / "state")
        with running(state, (0, 0, 0)) as endpoints:
            api = client.CustomObjectsApi(
                config.new_client_from_config(config_file=str(state.kubeconfig))
            )
            plane = psutil.Process(endpoints.pid)
            search(folder, api, "warm-up", num_trials=3, num_parallel=1)
            serial = search(folder, api, "serial", num_trials=NUM_SERIAL_TRIALS, num_parallel=1)
            peer_serial = search_with_optuna(folder, num_trials=NUM_SERIAL_TRIALS, num_parallel=1)
            memory, cpu = [plane.memory_info().rss / 2**20], [_cpu_seconds(plane)]
            runs, peers = [], []
            for number in range(NUM_ROUNDS):
                name, size = f"parallel-{number}", {"num_trials": NUM_TRIALS}
                runs.append(search(folder, api, name, num_parallel=NUM_PARALLEL, **size))
                cpu.append(_cpu_seconds(plane))
                forget(api, name)
                memory.append(plane.memory_info().rss / 2**20)
                peers.append(search_with_optuna(folder, num_parallel=NUM_PARALLEL, **size))
    what = f"{NUM_TRIALS} trials, {NUM_PARALLEL} at a time"
    seconds, peer_seconds = (", ".join(f"{r.seconds:.1f}" for r in rs) for rs in (runs, peers))
    ratio = min(run.seconds for run in runs) / min(peer.seconds for peer in peers)
    cpu_milliseconds = (cpu[-1] - cpu[0]) / NUM_ROUNDS / NUM_TRIALS * 1e3
    budget = f"{OVERHEAD_BUDGET_SECONDS * 1e3:.0f}"
    for label, value in (
        (
            "end of a trial to start of the next, kubeloop",
            f"{_median(serial)} ms (budget {budget})",
        ),
        (f"  worst of {len(serial.gaps)}", f"{max(serial.gaps) * 1e3:.0f} ms"),
        ("end of a trial to start of the next, Optuna", f"{_median(peer_serial)} ms"),
        (f"{what}, kubeloop", f"{seconds} s (budget {TOTAL_BUDGET_SECONDS})"),
        (f"{what}, Optuna", f"{peer_seconds} s"),
        ("kubeloop / Optuna, best of each", f"{ratio:.2f}x"),
        ("CPU of the control plane, a trial", f"{cpu_milliseconds:.0f} ms"),
        ("memory of the control plane", f"{' → '.join(f'{m:.0f}' for m in memory)} MiB"),
    ):
        print(f"{label:<46} {value}")


def _median(found: Search) -> str:
    return f"{statistics.median(found.gaps) * 1e3:.0f}"


if __name__ == "__main__":
    main()
