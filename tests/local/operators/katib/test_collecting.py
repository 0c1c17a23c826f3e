"""Metrics of trials, by every kind of collector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.api.resources import PODS, PYTORCH_JOBS, TRIALS
from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.pod_files import COMPLETE_ANNOTATION
from kubeloop.local.operators.conditions import conditions_of
from kubeloop.local.operators.katib.metrics import MetricLog
from kubeloop.testing.katib_lab import (
    Exit,
    Lab,
    Printed,
    Program,
    build_experiment,
    play,
    print_accuracy,
)
from kubeloop.testing.tensorflow_events import TENSOR_EVENTS
from kubeloop.testing.waiting import wait_until

TIME = "2024-05-01T10:00:00Z"


def collect(collector: str, path: str = "", **place: str) -> dict[str, Any]:
    """The spec of a collector."""
    spec: dict[str, Any] = {"collector": {"kind": collector}}
    if path:
        spec["source"] = {"fileSystemPath": {"path": path, **place}}
    return {"metricsCollectorSpec": spec}


def run_one(program: Program, folder: Path, **spec: Any) -> Manifest:
    """The only trial of an experiment, after its end."""
    found: list[Manifest] = []

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1, **spec))

        async def is_over() -> bool:
            return (await lab.condition()).get("type") in ("Succeeded", "Failed")

        await wait_until(is_over)
        found.extend(await lab.list_all(TRIALS))

    play(program, scenario, folder=folder)
    return found[0]


def observed(trial: Manifest) -> Manifest:
    (metric,) = trial["status"]["observation"]["metrics"]
    return dict(metric)


def test_a_text_file_is_read(tmp_path: Path) -> None:
    def program(pod: Manifest) -> Exit:
        return Exit(log="accuracy=9\n", files={"metrics.log": b"accuracy=0.5\naccuracy=0.4\n"})

    trial = run_one(program, tmp_path, **collect("File"))

    assert observed(trial) == {"name": "accuracy", "min": "0.4", "max": "0.5", "latest": "0.4"}


def test_a_json_file_is_read(tmp_path: Path) -> None:
    lines = b'{"accuracy": "0.5", "timestamp": 2}\n{"accuracy": "0.4", "timestamp": 1}\n'

    trial = run_one(
        lambda _: Exit(files={"m.json": lines}),
        tmp_path,
        **collect("File", "/data/m.json", format="JSON"),
    )

    assert observed(trial) == {"name": "accuracy", "min": "0.4", "max": "0.5", "latest": "0.5"}


def test_tensorflows_events_are_read(tmp_path: Path) -> None:
    trial = run_one(
        lambda _: Exit(files={"train/events.out": TENSOR_EVENTS}),
        tmp_path,
        **collect("TensorFlowEvent", "/events", kind="Directory"),
    )

    assert observed(trial) == {"name": "accuracy", "min": "0.5", "max": "0.9", "latest": "0.9"}


def test_a_trial_whose_file_breaks_its_format_fails_and_says_why(tmp_path: Path) -> None:
    trial = run_one(
        lambda _: Exit(files={"m.json": b'{"accuracy": "0.5"}\naccuracy=0.5\n'}),
        tmp_path,
        **collect("File", "/data/m.json", format="JSON"),
    )

    last = conditions_of(trial)[-1]
    assert (last["type"], last["reason"]) == (
        "Failed",
        "TrialFailed. Job reason: MetricsCollectorFailed",
    )
    assert "failed to parse the json object 'accuracy=0.5'" in last["message"]


@pytest.mark.parametrize(
    "spec", [collect("File"), collect("TensorFlowEvent"), collect("Push"), collect("StdOut")]
)
def test_a_trial_that_reports_nothing_has_no_metrics(spec: dict[str, Any], tmp_path: Path) -> None:
    trial = run_one(lambda _: Exit(), tmp_path, **spec)

    assert conditions_of(trial)[-1]["type"] == "MetricsUnavailable"
    assert observed(trial)["latest"] == "unavailable"


def test_what_a_trial_pushes_is_observed(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1, **collect("Push")))
        await wait_until(lambda: bool(lab.kubelet.num_started))
        (trial,) = await lab.list_all(TRIALS)
        name = trial["metadata"]["name"]
        logs = [MetricLog(time_stamp=TIME, name="accuracy", value=v) for v in ("0.5", "0.7")]
        lab.observations.report(name, logs)
        finished.append(True)
        await lab.kubelet.rerun()

        trial = await lab.wait_for("Succeeded", resource=TRIALS, name=name)

        assert observed(trial)["latest"] == "0.7"

    finished: list[bool] = []
    play(lambda _: Exit() if finished else None, scenario, folder=tmp_path)


def test_metrics_can_be_read_while_a_trial_runs(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1))
        await wait_until(lambda: bool(lab.kubelet.num_started))
        (trial,) = await lab.list_all(TRIALS)
        name = trial["metadata"]["name"]

        for value in ("0.1", "0.2"):
            printed.append(value)
            await lab.kubelet.rerun()
            await wait_until(lambda: [log.value for log in lab.observations.read(name)] == printed)

        assert "observation" not in (await lab.get(TRIALS, name))["status"]

    printed: list[str] = []
    play(
        lambda _: Printed(log="".join(f"accuracy={value}\n" for value in printed)),
        scenario,
        folder=tmp_path,
    )


def test_the_reports_of_a_failed_pod_do_not_count(tmp_path: Path) -> None:
    def program(pod: Manifest) -> Exit:
        started.append(pod["metadata"]["name"])
        is_first = len(started) == 1
        return Exit(log="accuracy=0.9\n", code=1) if is_first else Exit(log="accuracy=0.1\n")

    started: list[str] = []
    template = {
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "i", "command": ["x", "${trialParameters.l}"]}],
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": template}}}
    trial = run_one(
        program,
        tmp_path,
        trialTemplate={
            "primaryContainerName": "main",
            "trialParameters": [{"name": "l", "reference": "learning_rate"}],
            "trialSpec": job,
        },
    )

    assert len(started) == 2
    assert observed(trial) == {"name": "accuracy", "min": "0.1", "max": "0.1", "latest": "0.1"}


EARLY: dict[str, Any] = {
    "earlyStopping": {
        "algorithmName": "medianstop",
        "algorithmSettings": [
            {"name": "min_trials_required", "value": "1"},
            {"name": "start_step", "value": "2"},
        ],
    },
    "parallelTrialCount": 1,
    "maxTrialCount": 2,
}


def first_well_then_badly(pod: Manifest) -> Exit | Printed:
    """The first trial reaches 0.9; others stay at 0.1 and would never end."""
    name = pod["metadata"]["labels"]["katib.kubeflow.org/trial"]
    _names.setdefault(name, len(_names))
    if _names[name] == 0:
        return Exit(log="accuracy=0.8\naccuracy=0.9\n")
    return Printed(log="accuracy=0.1\naccuracy=0.15\naccuracy=0.12\n")


_names: dict[str, int] = {}


@pytest.fixture(autouse=True)
def no_trials() -> None:
    _names.clear()


def test_a_hopeless_trial_is_stopped_and_keeps_its_metrics(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(**EARLY))
        experiment = await lab.wait_for("Succeeded")
        await lab.settle()

        status = experiment["status"]
        assert (status["trialsSucceeded"], status["trialsEarlyStopped"]) == (1, 1)
        (name,) = status["earlyStoppedTrialList"]
        trial = await lab.get(TRIALS, name)
        assert trial["spec"]["earlyStoppingRules"] == [
            {
                "name": "accuracy",
                "value": "0.8500000000000001",
                "comparison": "less",
                "startStep": 2,
            }
        ]
        assert [(c["type"], c["status"], c["reason"]) for c in conditions_of(trial)] == [
            ("Created", "True", "TrialCreated"),
            ("Running", "True", "TrialRunning"),
            ("EarlyStopped", "True", "TrialEarlyStopped"),
        ]
        assert conditions_of(trial)[-1]["message"] == "Trial is early stopped"
        assert observed(trial) == {
            "name": "accuracy",
            "min": "0.1",
            "max": "0.15",
            "latest": "0.12",
        }
        assert len(lab.observations.read(name)) == 3
        (event,) = await lab.events("TrialEarlyStopped")
        assert "accuracy 0.15 is less than 0.85" in event["message"]
        await wait_until(lambda: _has_no_pods(lab))

    play(first_well_then_badly, scenario, folder=tmp_path)


def test_an_early_stopped_trial_that_is_retained_keeps_its_job_but_not_its_processes(
    tmp_path: Path,
) -> None:
    async def scenario(lab: Lab) -> None:
        experiment = build_experiment(**EARLY)
        experiment["spec"]["trialTemplate"]["retain"] = True
        await lab.submit(experiment)
        status = (await lab.wait_for("Succeeded"))["status"]
        (name,) = status["earlyStoppedTrialList"]

        async def is_ended() -> bool:
            pods = [p for p in await lab.list_all(PODS) if name in p["metadata"]["name"]]
            annotations = [pod["metadata"].get("annotations") or {} for pod in pods]
            return [COMPLETE_ANNOTATION in entry for entry in annotations] == [True]

        await wait_until(is_ended)
        assert (await lab.get(PYTORCH_JOBS, name))["metadata"]["name"] == name

    play(first_well_then_badly, scenario, folder=tmp_path)


async def _has_no_pods(lab: Lab) -> bool:
    return not await lab.list_all(PODS)


def test_trials_before_the_first_rule_run_to_their_end(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(**{**EARLY, "maxTrialCount": 1}))
        await lab.wait_for("Succeeded")

        (trial,) = await lab.list_all(TRIALS)
        assert "earlyStoppingRules" not in trial["spec"]

    play(first_well_then_badly, scenario, folder=tmp_path)


def test_an_early_stopped_trial_is_none_of_the_best(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(**EARLY))
        status = (await lab.wait_for("Succeeded"))["status"]

        assert status["currentOptimalTrial"]["bestTrialName"] in status["succeededTrialList"]

    play(first_well_then_badly, scenario, folder=tmp_path)


def test_early_stopping_with_wrong_settings_fails_the_suggestion(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        wrong = [{"name": "start_step", "value": "0"}]
        stopping = {"algorithmName": "medianstop", "algorithmSettings": wrong}
        await lab.submit(build_experiment(earlyStopping=stopping))
        experiment = await lab.wait_for("Failed")

        assert experiment["status"]["conditions"][-1]["message"] == "Suggestion has failed"

    play(print_accuracy, scenario, folder=tmp_path)
