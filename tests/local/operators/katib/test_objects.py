"""The objects that KatibClient and kubectl read, whole: for each algorithm and each way to end."""

from __future__ import annotations

import asyncio
import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.local.api.resources import SUGGESTIONS, TRIALS
from kubeloop.local.client import Manifest
from kubeloop.testing.katib_lab import (
    LEARNING_RATE,
    Exit,
    Lab,
    Program,
    build_experiment,
    build_pytorch_job,
    katib_lab,
    print_accuracy,
)
from kubeloop.testing.katib_objects import TIME, condition, created, running, strip_times
from kubeloop.testing.waiting import wait_until

MAX_TRIALS = 4

EPOCHS: Manifest = {
    "name": "epochs",
    "parameterType": "int",
    "feasibleSpace": {"min": "1", "max": "9"},
}
_SEED = {"random_state": "3"}
_RUNGS = {"resource_name": "epochs", "eta": "3", **_SEED}
_SETTINGS: dict[str, dict[str, str]] = {
    "sobol": {},
    "hyperband": {**_RUNGS, "r_l": "9"},
    "asha": {**_RUNGS, "r_max": "9"},
    "pbt": {
        "suggestion_trial_dir": "/opt/katib/data",
        "n_population": "5",
        "truncation_threshold": "0.4",
    },
}
_SPECS: dict[str, dict[str, Any]] = {
    "grid": {"parameters": [_with_step := copy.deepcopy(LEARNING_RATE), EPOCHS]},
    "hyperband": {"parallelTrialCount": 9, "maxTrialCount": 9},
    "pbt": {"resumePolicy": "FromVolume"},
}
_with_step["feasibleSpace"]["step"] = "0.01"
HYPERPARAMETER_ALGORITHMS = sorted(set(ALGORITHMS) - {"enas", "darts"})


def build(algorithm: str = "random", **spec: Any) -> Manifest:
    """An experiment over two parameters, with settings that the algorithm takes."""
    settings = _SETTINGS.get(algorithm, _SEED)
    job = build_pytorch_job()
    container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    container["args"] += ["--epochs", "${trialParameters.epochs}"]
    template = {
        "primaryContainerName": "pytorch",
        "trialParameters": [
            {"name": "learningRate", "reference": "learning_rate"},
            {"name": "epochs", "reference": "epochs"},
        ],
        "trialSpec": job,
    }
    parts = {
        "parameters": [LEARNING_RATE, EPOCHS],
        "trialTemplate": template,
        **_SPECS.get(algorithm, {}),
        **spec,
    }
    algorithm_spec = {
        "algorithmName": algorithm,
        "algorithmSettings": [{"name": k, "value": v} for k, v in settings.items()],
    }
    return build_experiment(algorithm=algorithm_spec, **parts)


CREATED = created("Experiment")


class Ended:
    """The objects of an experiment that has ended."""

    def __init__(self, experiment: Manifest, suggestion: Manifest, trials: list[Manifest]) -> None:
        self.experiment = experiment
        self.suggestion = suggestion
        self.trials = {trial["metadata"]["name"]: trial for trial in trials}
        self.status = strip_times(experiment["status"])
        self.names = [entry["name"] for entry in suggestion["status"].get("suggestions") or []]


def run(program: Program, folder: Path, experiment: Manifest) -> Ended:
    """Run an experiment until it has ended and all is quiet."""

    async def main() -> Ended:
        async with katib_lab(program, folder=folder) as lab:
            await lab.submit(experiment)

            async def is_over() -> bool:
                return (await lab.condition()).get("type") in ("Succeeded", "Failed")

            await wait_until(is_over, timeout_seconds=30)
            await lab.settle()
            return await _read(lab)

    return asyncio.run(main())


async def _read(lab: Lab) -> Ended:
    return Ended(await lab.get(), await lab.get(SUGGESTIONS), await lab.list_all(TRIALS))


@pytest.fixture(scope="module", params=HYPERPARAMETER_ALGORITHMS)
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A search by each algorithm, to its last trial."""
    return run(print_accuracy, tmp_path_factory.mktemp(request.param), build(request.param))


def test_the_experiments_status_is_whole(searched: Ended) -> None:
    best = max(
        searched.names,
        key=lambda name: float(searched.trials[name]["spec"]["parameterAssignments"][0]["value"]),
    )
    num_trials = searched.experiment["spec"]["maxTrialCount"]
    assert searched.status == {
        "startTime": TIME,
        "completionTime": TIME,
        "conditions": [
            CREATED,
            running("Experiment", status="False"),
            condition(
                "Succeeded",
                "ExperimentMaxTrialsReached",
                "Experiment has succeeded because max trial count has reached",
            ),
        ],
        "currentOptimalTrial": {
            "bestTrialName": best,
            "parameterAssignments": searched.trials[best]["spec"]["parameterAssignments"],
            "observation": searched.trials[best]["status"]["observation"],
        },
        "trials": num_trials,
        "trialsSucceeded": num_trials,
        "succeededTrialList": searched.names,
    }


def test_the_suggestion_is_whole(searched: Ended) -> None:
    experiment, suggestion = searched.experiment, searched.suggestion
    policy = experiment["spec"]["resumePolicy"]
    message = {
        "Never": "Suggestion is succeeded, can't be restarted",
        "FromVolume": "Suggestion is succeeded, suggestion volume is not deleted, can be restarted",
    }[policy]
    status = strip_times(suggestion["status"])
    settings = status.pop("algorithmSettings", [])
    assert suggestion["spec"] == {
        "algorithm": experiment["spec"]["algorithm"],
        "requests": len(searched.trials),
        "resumePolicy": policy,
    }
    assert all(set(entry) == {"name", "value"} for entry in settings)
    assert status == {
        "startTime": TIME,
        "completionTime": TIME,
        "suggestionCount": len(searched.trials),
        "suggestions": status["suggestions"],
        "conditions": [
            created("Suggestion"),
            condition(
                "DeploymentReady", "DeploymentNotReady", "Deployment is not ready", status="False"
            ),
            running("Suggestion", status="False"),
            condition("Succeeded", "Experiment is succeeded", message),
        ],
    }
    (owner,) = suggestion["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Experiment", experiment["metadata"]["uid"])


def test_every_trial_is_what_was_suggested(searched: Ended) -> None:
    assert sorted(searched.trials) == sorted(searched.names)
    for entry in searched.suggestion["status"]["suggestions"]:
        trial = searched.trials[entry["name"]]
        experiment = searched.experiment["spec"]
        labels = entry.get("labels") or {}
        assert trial["metadata"]["labels"] == {
            "katib.kubeflow.org/experiment": "digits",
            **labels,
        }
        spec = dict(trial["spec"])
        job = spec.pop("runSpec")
        assert spec == {
            "objective": experiment["objective"],
            "parameterAssignments": entry["parameterAssignments"],
            "metricsCollector": {"collector": {"kind": "StdOut"}},
            "primaryPodLabels": {"training.kubeflow.org/job-role": "master"},
            "primaryContainerName": "pytorch",
            "successCondition": 'status.conditions.#(type=="Succeeded")#|#(status=="True")#',
            "failureCondition": 'status.conditions.#(type=="Failed")#|#(status=="True")#',
            **({"labels": labels} if labels else {}),
        }
        values = {value["name"]: value["value"] for value in entry["parameterAssignments"]}
        container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        assert container[0]["args"] == [
            "--learning_rate",
            values["learning_rate"],
            "--epochs",
            values["epochs"],
        ]


def test_every_trials_status_is_whole(searched: Ended) -> None:
    for name, trial in searched.trials.items():
        value = f"{float(trial['spec']['parameterAssignments'][0]['value']) * 10:.6f}"
        assert strip_times(trial["status"]) == {
            "startTime": TIME,
            "completionTime": TIME,
            "conditions": [
                created("Trial"),
                running("Trial", status="False"),
                condition(
                    "Succeeded",
                    "TrialSucceeded. Job reason: PyTorchJobSucceeded",
                    "Trial has succeeded. Job message: "
                    f"PyTorchJob {name} is successfully completed.",
                ),
            ],
            "observation": {
                "metrics": [{"name": "accuracy", "min": value, "max": value, "latest": value}]
            },
        }


def crash(pod: Manifest) -> Exit:
    return Exit(code=3)


def say_nothing(pod: Manifest) -> Exit:
    return Exit(log="done\n")


GOAL = {"type": "maximize", "objectiveMetricName": "accuracy", "goal": 0.2}
ENDS: dict[str, tuple[Program, dict[str, Any], tuple[str, str, str]]] = {
    "goal": (
        print_accuracy,
        {"objective": GOAL, "parallelTrialCount": 1},
        ("Succeeded", "ExperimentGoalReached", "Objective goal has reached"),
    ),
    "trials": (
        print_accuracy,
        {},
        ("Succeeded", "ExperimentMaxTrialsReached", "max trial count has reached"),
    ),
    "failures": (
        crash,
        {"maxFailedTrialCount": 2},
        ("Failed", "ExperimentFailed", "max failed count has reached"),
    ),
    "no metrics": (
        say_nothing,
        {"maxFailedTrialCount": 2},
        ("Failed", "ExperimentFailed", "max failed count has reached"),
    ),
    "no metrics, no limit": (
        say_nothing,
        {},
        ("Succeeded", "ExperimentMaxTrialsReached", "max trial count has reached"),
    ),
    "crashes, no limit": (
        crash,
        {},
        ("Succeeded", "ExperimentMaxTrialsReached", "max trial count has reached"),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_experiments_end_says_how_it_ended(end: str, tmp_path: Path) -> None:
    program, spec, (type_, reason, cause) = ENDS[end]
    ended = run(program, tmp_path, build(**spec))

    verb = "succeeded" if type_ == "Succeeded" else "failed"
    assert ended.status["conditions"] == [
        CREATED,
        running("Experiment", status="False"),
        condition(type_, reason, f"Experiment has {verb} because {cause}"),
    ]
    counted = {
        "succeeded": ("trialsSucceeded", "succeededTrialList"),
        "failed": ("trialsFailed", "failedTrialList"),
        "without": ("trialMetricsUnavailable", "metricsUnavailableTrialList"),
    }
    kinds: dict[Program, str] = {crash: "failed", say_nothing: "without"}
    kind = kinds.get(program, "succeeded")
    count_field, list_field = counted.pop(kind)
    assert ended.status["trials"] == len(ended.trials)
    assert ended.status[count_field] == len(ended.trials)
    assert sorted(ended.status[list_field]) == sorted(ended.trials)
    assert not {*itertools.chain(*counted.values())} & set(ended.status)
    if kind == "failed":
        assert ended.status["currentOptimalTrial"] == {"observation": {}}
    assert set(ended.status) - {count_field, list_field} == {
        "startTime",
        "completionTime",
        "conditions",
        "currentOptimalTrial",
        "trials",
    }
