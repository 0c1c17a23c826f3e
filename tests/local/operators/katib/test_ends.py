"""The whole statuses of trials and experiments that come to a bad end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.api.resources import PYTORCH_JOBS, SUGGESTIONS, TRIALS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import conditions_of
from kubeloop.testing.katib_lab import (
    Exit,
    Lab,
    Program,
    build_experiment,
    build_pytorch_job,
    hang,
    play,
    print_accuracy,
)
from kubeloop.testing.katib_objects import TIME, condition, created, running, strip_times

SUCCESS = "PyTorchJob {name} is successfully completed."
FAILURE = "PyTorchJob {name} is failed because 1 Master replica(s) failed."
DEADLINE = "Job {name} has failed because it was active longer than specified deadline"
UNAVAILABLE = dict.fromkeys(("min", "max", "latest"), "unavailable")


def failed(job_message: str) -> Manifest:
    return condition(
        "Failed",
        "TrialFailed. Job reason: PyTorchJobFailed",
        f"Trial has failed. Job message: {job_message}",
    )


SUCCEEDED = condition(
    "Succeeded",
    "TrialSucceeded. Job reason: PyTorchJobSucceeded",
    f"Trial has succeeded. Job message: {SUCCESS}",
)
SILENT = condition(
    "MetricsUnavailable",
    "MetricsUnavailable. Job reason: PyTorchJobSucceeded",
    f"Metrics are not available. Job message: {SUCCESS}",
)

Observation = dict[str, dict[str, str]] | None
ENDS: dict[str, tuple[Program, Manifest, Observation]] = {
    "crashes": (lambda _: Exit(log="accuracy=0.3\nKilled\n", code=137), failed(FAILURE), None),
    "hangs": (hang, failed(DEADLINE), None),
    "diverges": (
        lambda _: Exit(log="accuracy=0.5\naccuracy=0.3\naccuracy=0.4\naccuracy=nan\n"),
        SUCCEEDED,
        {"accuracy": {"min": "0.3", "max": "0.5", "latest": "0.4"}},
    ),
    "is never a number": (
        lambda _: Exit(log="accuracy=nan\naccuracy=inf\n"),
        SILENT,
        {"accuracy": UNAVAILABLE},
    ),
    "says nothing": (lambda _: Exit(), SILENT, {"accuracy": UNAVAILABLE}),
    "says garbage": (
        lambda _: Exit(log="\x00\ufffd\x1b[2J accuracy\n=accuracy=\n" * 9),
        SILENT,
        {"accuracy": UNAVAILABLE},
    ),
}


def build_short(**spec: Any) -> Manifest:  # any part of the spec
    """One trial, whose job may take a second."""
    job = build_pytorch_job()
    job["spec"]["runPolicy"] = {"activeDeadlineSeconds": 1}
    experiment = build_experiment(parallelTrialCount=1, maxTrialCount=1, **spec)
    experiment["spec"]["trialTemplate"]["trialSpec"] = job
    return experiment


@pytest.mark.parametrize("end", ENDS)
def test_a_trials_status_is_whole_if_its_program(end: str, tmp_path: Path) -> None:
    program, last, metrics = ENDS[end]

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_short())
        experiment = await lab.wait_for("Succeeded", reason="ExperimentMaxTrialsReached")
        (trial,) = await lab.list_all(TRIALS)

        name = trial["metadata"]["name"]
        observation = {
            "metrics": [{"name": metric, **values} for metric, values in (metrics or {}).items()]
        }
        assert strip_times(trial["status"]) == {
            "startTime": TIME,
            "completionTime": TIME,
            "conditions": [
                created("Trial"),
                running("Trial", status="False"),
                {**last, "message": last["message"].format(name=name)},
            ],
            **({"observation": observation} if metrics else {}),
        }
        best = experiment["status"]["currentOptimalTrial"]
        assert best.get("bestTrialName") == (name if last is SUCCEEDED else None)
        assert best["observation"] == (observation if last is SUCCEEDED else {})

    play(program, scenario, folder=tmp_path)


def test_an_additional_metric_that_is_missing_is_unavailable(tmp_path: Path) -> None:
    objective = {
        "type": "maximize",
        "objectiveMetricName": "accuracy",
        "additionalMetricNames": ["loss"],
    }

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_short(objective=objective))
        await lab.wait_for("Succeeded")
        (trial,) = await lab.list_all(TRIALS)

        assert conditions_of(trial)[-1]["type"] == "Succeeded"
        metrics = trial["status"]["observation"]["metrics"]
        assert {metric["name"]: metric["latest"] for metric in metrics} == {
            "accuracy": "0.5",
            "loss": "unavailable",
        }

    play(lambda _: Exit(log="accuracy=0.5\n"), scenario, folder=tmp_path)


def test_a_killed_trial_is_counted_and_replaced_by_nobody(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1))
        await lab.wait_for("Running")
        (trial,) = await lab.list_all(TRIALS)
        killed = condition("Killed", "TrialKilled", "Trial is killed")
        trial["status"]["conditions"] = [*conditions_of(trial), killed]
        await lab.client.replace_status(trial)
        experiment = await lab.wait_for("Succeeded", reason="ExperimentMaxTrialsReached")
        await lab.settle()

        status = strip_times(experiment["status"])
        del status["conditions"]
        assert status == {
            "startTime": TIME,
            "completionTime": TIME,
            "currentOptimalTrial": {"observation": {}},
            "trials": 1,
            "trialsKilled": 1,
            "killedTrialList": [trial["metadata"]["name"]],
        }
        assert await lab.list_all(PYTORCH_JOBS) == []

    play(hang, scenario, folder=tmp_path)


def test_the_objects_of_a_refused_search_are_whole(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        settings = [{"name": "random_state", "value": "-5"}]
        algorithm = {"algorithmName": "random", "algorithmSettings": settings}
        await lab.submit(build_experiment(algorithm=algorithm))
        experiment = await lab.wait_for("Failed")
        await lab.settle()

        assert strip_times(experiment["status"]) == {
            "startTime": TIME,
            "completionTime": TIME,
            "conditions": [
                created("Experiment"),
                condition("Failed", "ExperimentFailed", "Suggestion has failed"),
            ],
            "currentOptimalTrial": {"observation": {}},
        }
        suggestion = strip_times((await lab.get(SUGGESTIONS))["status"])
        last = suggestion["conditions"].pop()
        assert suggestion == {
            "startTime": TIME,
            "conditions": [
                created("Suggestion"),
                condition("DeploymentReady", "DeploymentReady", "Deployment is ready"),
            ],
        }
        assert (last["type"], last["status"], last["reason"]) == (
            "Failed",
            "True",
            "SuggestionFailed",
        )
        assert last["message"].startswith("Validation failed: random_state must be")

    play(print_accuracy, scenario, folder=tmp_path)
