"""Trials: what becomes of one, whatever its program does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.api.resources import JOBS, PODS, PYTORCH_JOBS, TRIALS
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
from kubeloop.testing.waiting import wait_until


def run_one(program: Program, folder: Path, **spec: Any) -> tuple[Manifest, Lab]:
    """The only trial of an experiment, after its end."""
    result: list[tuple[Manifest, Lab]] = []

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1, **spec))

        async def is_over() -> bool:
            return (await lab.condition()).get("type") in ("Succeeded", "Failed")

        await wait_until(is_over)
        await lab.settle()
        (trial,) = await lab.list_all(TRIALS)
        result.append((trial, lab))

    play(program, scenario, folder=folder)
    return result[0]


def last_condition(trial: Manifest) -> Manifest:
    return conditions_of(trial)[-1]


def test_a_trial_carries_what_its_experiment_says(tmp_path: Path) -> None:
    trial, _ = run_one(print_accuracy, tmp_path)

    name = trial["metadata"]["name"]
    (assignment,) = trial["spec"]["parameterAssignments"]
    container = trial["spec"]["runSpec"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"][
        "spec"
    ]["containers"][0]
    assert name.startswith("digits-")
    assert len(name) == len("digits-") + 8
    assert trial["metadata"]["labels"] == {"katib.kubeflow.org/experiment": "digits"}
    assert trial["metadata"]["finalizers"] == ["clean-metrics-in-db"]
    assert trial["metadata"]["ownerReferences"][0]["kind"] == "Experiment"
    assert assignment["name"] == "learning_rate"
    assert container["args"] == ["--learning_rate", assignment["value"]]
    assert trial["spec"]["runSpec"]["metadata"] == {"name": name, "namespace": "default"}
    assert trial["spec"]["primaryContainerName"] == "pytorch"
    assert trial["spec"]["primaryPodLabels"] == {"training.kubeflow.org/job-role": "master"}
    assert trial["spec"]["metricsCollector"] == {"collector": {"kind": "StdOut"}}
    assert trial["spec"]["objective"]["metricStrategies"] == [{"name": "accuracy", "value": "max"}]


def test_a_succeeded_trial_has_conditions_times_and_observation(tmp_path: Path) -> None:
    trial, _ = run_one(lambda _: Exit(log="accuracy=0.5\naccuracy=0.9\naccuracy=0.7\n"), tmp_path)

    status, name = trial["status"], trial["metadata"]["name"]
    assert [(c["type"], c["status"]) for c in conditions_of(trial)] == [
        ("Created", "True"),
        ("Running", "False"),
        ("Succeeded", "True"),
    ]
    assert [c["reason"] for c in conditions_of(trial)] == [
        "TrialCreated",
        "TrialRunning",
        "TrialSucceeded. Job reason: PyTorchJobSucceeded",
    ]
    assert last_condition(trial)["message"] == (
        f"Trial has succeeded. Job message: PyTorchJob {name} is successfully completed."
    )
    assert status["observation"] == {
        "metrics": [{"name": "accuracy", "min": "0.5", "max": "0.9", "latest": "0.7"}]
    }
    assert status["startTime"] <= status["completionTime"]


def test_events_tell_a_trials_story(tmp_path: Path) -> None:
    told: list[str] = []

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1))
        await lab.wait_for("Succeeded")
        await lab.settle()
        (trial,) = await lab.list_all(TRIALS)
        name = trial["metadata"]["name"]
        for reason, message in (
            ("JobCreated", f"Job {name} has been created"),
            ("JobRunning", f"Job {name} is running"),
            ("JobSucceeded", f"Job {name} has succeeded"),
            ("JobDeleted", f"Job {name} has been deleted"),
        ):
            (event,) = await lab.events(reason)
            assert event["message"] == message
            assert event["involvedObject"]["kind"] == "Trial"
            assert event["count"] == 1
            told.append(reason)

    play(print_accuracy, scenario, folder=tmp_path)
    assert len(told) == 4


def test_a_completed_trials_job_is_deleted(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        await lab.wait_for("Succeeded")
        await lab.settle()

        assert await lab.list_all(PYTORCH_JOBS) == []
        assert await lab.list_all(PODS) == []
        assert len(await lab.list_all(TRIALS)) == 4

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_retained_trial_keeps_its_job(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        experiment = build_experiment()
        experiment["spec"]["trialTemplate"]["retain"] = True
        await lab.submit(experiment)
        await lab.wait_for("Succeeded")
        await lab.settle()

        jobs = {job["metadata"]["name"] for job in await lab.list_all(PYTORCH_JOBS)}
        assert jobs == {trial["metadata"]["name"] for trial in await lab.list_all(TRIALS)}

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_trial_that_crashes_fails_and_its_last_words_are_kept(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1))
        await wait_until(lambda: _has_event(lab, "TrialPodFailed"))
        (trial,) = await lab.list_all(TRIALS)
        (event,) = await lab.events("TrialPodFailed")

        name, last = trial["metadata"]["name"], last_condition(trial)
        assert last["type"] == "Failed"
        assert last["reason"] == "TrialFailed. Job reason: PyTorchJobFailed"
        assert last["message"].startswith("Trial has failed. Job message: PyTorchJob")
        assert event["type"] == "Warning"
        assert event["message"] == (
            f"Pod {name}-master-0 failed with exit code 3; its last words: line 1\nValueError: no"
        )
        assert "observation" not in trial["status"]

    play(lambda _: Exit(log="line 1\nValueError: no\n", code=3), scenario, folder=tmp_path)


async def _has_event(lab: Lab, reason: str) -> bool:
    return bool(await lab.events(reason))


@pytest.mark.parametrize(
    "log",
    [
        "",
        "epoch=1\n",
        "accuracy\n",
        "accuracy=NaN\n",
        "accuracy=nan\naccuracy=NaN\n",
        "accuracy is 0.9\n",
        "\x00\xff�=== accuracy: ??? [=\n",
        "val_accuracy=0.9\n",
    ],
)
def test_a_trial_without_the_metric_is_metrics_unavailable(log: str, tmp_path: Path) -> None:
    trial, _ = run_one(lambda _: Exit(log=log), tmp_path)

    last = last_condition(trial)
    assert (last["type"], last["status"]) == ("MetricsUnavailable", "True")
    assert last["reason"] == "MetricsUnavailable. Job reason: PyTorchJobSucceeded"
    assert last["message"].startswith("Metrics are not available. Job message: PyTorchJob")
    assert trial["status"]["observation"]["metrics"] == [
        {"name": "accuracy", "min": "unavailable", "max": "unavailable", "latest": "unavailable"}
    ]
    assert "completionTime" in trial["status"]


def test_a_trial_that_diverges_keeps_what_it_reported_before(tmp_path: Path) -> None:
    trial, _ = run_one(lambda _: Exit(log="accuracy=0.4\naccuracy=NaN\n"), tmp_path)

    assert last_condition(trial)["type"] == "Succeeded"
    assert trial["status"]["observation"]["metrics"][0]["latest"] == "0.4"


def test_additional_metrics_are_observed_too(tmp_path: Path) -> None:
    objective = {
        "type": "maximize",
        "objectiveMetricName": "accuracy",
        "additionalMetricNames": ["loss"],
        "metricStrategies": [{"name": "loss", "value": "latest"}],
    }

    trial, _ = run_one(
        lambda _: Exit(log="loss=2 accuracy=0.4\nloss=1 accuracy=0.3\n"),
        tmp_path,
        objective=objective,
    )

    assert {m["name"]: m["latest"] for m in trial["status"]["observation"]["metrics"]} == {
        "accuracy": "0.3",
        "loss": "1",
    }


def test_a_filter_of_the_users_finds_the_metric(tmp_path: Path) -> None:
    collector = {
        "collector": {"kind": "StdOut"},
        "source": {"filter": {"metricsFormat": [r"(\w+) is ([0-9.]+)"]}},
    }

    trial, _ = run_one(
        lambda _: Exit(log="accuracy is 0.75\n"), tmp_path, metricsCollectorSpec=collector
    )

    assert trial["status"]["observation"]["metrics"][0]["latest"] == "0.75"


def test_a_trials_pods_are_labelled_and_know_its_name(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        experiment = build_experiment(parallelTrialCount=1)
        experiment["metadata"]["labels"] = {"pipeline/runid": "run-1"}
        await lab.submit(experiment)
        await wait_until(lambda: bool(lab.kubelet.num_started))
        (pod,) = await lab.list_all(PODS)
        (trial,) = await lab.list_all(TRIALS)

        name = trial["metadata"]["name"]
        labels = pod["metadata"]["labels"]
        assert labels["katib.kubeflow.org/trial"] == name
        assert labels["katib.kubeflow.org/experiment"] == "digits"
        assert labels["pipeline/runid"] == "run-1"
        environment = pod["spec"]["containers"][0]["env"]
        (variable,) = [entry for entry in environment if entry["name"] == "KATIB_TRIAL_NAME"]
        path = variable["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.labels['katib.kubeflow.org/trial']"

    play(hang, scenario, folder=tmp_path)


def test_the_collectors_log_is_that_of_the_primary_container(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        experiment = build_experiment(parallelTrialCount=1, maxTrialCount=1)
        experiment["spec"]["trialTemplate"]["retain"] = True
        await lab.submit(experiment)
        await lab.wait_for("Succeeded")
        (pod,) = await lab.list_all(PODS)

        log = await lab.client.read_log(
            pod["metadata"]["name"],
            namespace="default",
            container="metrics-logger-and-collector",
        )

        assert "accuracy=" in log

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_job_that_the_api_refuses_fails_its_trial_with_the_refusal(tmp_path: Path) -> None:
    job = build_pytorch_job()
    job["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = 2
    template = {**build_experiment()["spec"]["trialTemplate"], "trialSpec": job}

    trial, _ = run_one(print_accuracy, tmp_path, trialTemplate=template)

    last = last_condition(trial)
    assert (last["type"], last["reason"]) == ("Failed", "TrialFailed. Job reason: JobNotCreated")
    assert "spec.pytorchReplicaSpecs[Master].replicas: Forbidden: must be 1" in last["message"]


def test_a_job_of_the_trials_name_that_is_not_its_own_is_left_alone(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        job = build_pytorch_job()
        foreign = await lab.client.create({**job, "metadata": {"name": "mine"}})
        objective = {"type": "maximize", "objectiveMetricName": "accuracy"}
        await lab.client.create(
            {
                "apiVersion": "kubeflow.org/v1beta1",
                "kind": "Trial",
                "metadata": {"name": "mine", "namespace": "default"},
                "spec": {"objective": objective, "runSpec": job},
            }
        )
        trial = await lab.wait_for("Failed", resource=TRIALS, name="mine")

        assert "PyTorchJob mine belongs to somebody else" in last_condition(trial)["message"]
        (left,) = await lab.list_all(PYTORCH_JOBS)
        assert left["metadata"]["uid"] == foreign["metadata"]["uid"]

    play(hang, scenario, folder=tmp_path)


def test_a_deleted_job_is_made_again_while_the_trial_runs(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1))
        await wait_until(lambda: bool(lab.kubelet.num_started))
        (job,) = await lab.list_all(PYTORCH_JOBS)
        await lab.client.delete(PYTORCH_JOBS, job["metadata"]["name"], namespace="default")

        async def is_back() -> bool:
            jobs = await lab.list_all(PYTORCH_JOBS)
            return bool(jobs) and jobs[0]["metadata"]["uid"] != job["metadata"]["uid"]

        await wait_until(is_back)

    play(hang, scenario, folder=tmp_path)


def test_deleting_a_trial_forgets_its_metrics(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1))
        await lab.wait_for("Succeeded")
        (trial,) = await lab.list_all(TRIALS)
        name = trial["metadata"]["name"]
        assert len(lab.observations.read(name)) == 1

        await lab.client.delete(TRIALS, name, namespace="default")
        await wait_until(lambda: not lab.observations.read(name))

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_batch_job_is_a_trial_too(tmp_path: Path) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "main",
                            "image": "digits:1",
                            "args": ["--learning_rate", "${trialParameters.learningRate}"],
                        }
                    ],
                }
            }
        },
    }
    template = {
        **build_experiment()["spec"]["trialTemplate"],
        "trialSpec": job,
        "primaryContainerName": "main",
    }

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(trialTemplate=template))
        status = (await lab.wait_for("Succeeded"))["status"]

        assert status["trialsSucceeded"] == 4
        await wait_until(lambda: _is_empty(lab))

    play(print_accuracy, scenario, folder=tmp_path)


async def _is_empty(lab: Lab) -> bool:
    return not await lab.list_all(JOBS)
