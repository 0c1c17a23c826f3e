"""A PyTorchJob's conditions, reasons, messages and counts, from its pods' fates."""

from __future__ import annotations

from typing import Any

from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.manifests import build_pytorch_job
from kubeloop.testing.stage import Stage, play

LABELS = (
    "training.kubeflow.org/job-name=digits,"
    "training.kubeflow.org/operator-name=pytorchjob-controller,"
    "training.kubeflow.org/replica-type="
)


def build_job(*, policy: str = "OnFailure", **replicas: int) -> Manifest:
    return build_pytorch_job(replicas, policy=policy)


async def last_condition(stage: Stage) -> Any:  # an entry of status.conditions
    return (await stage.status("digits"))["conditions"][-1]


def test_a_new_job_is_created_with_a_start_time() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Master=1, Worker=2))

        await stage.step("digits")

        assert await stage.status("digits") == {
            "conditions": [
                {
                    "type": "Created",
                    "status": "True",
                    "reason": "PyTorchJobCreated",
                    "message": "PyTorchJob digits is created.",
                    "lastUpdateTime": "2026-03-01T12:00:00Z",
                    "lastTransitionTime": "2026-03-01T12:00:00Z",
                }
            ],
            "startTime": "2026-03-01T12:00:00Z",
            "replicaStatuses": {
                "Master": {"selector": LABELS + "master"},
                "Worker": {"selector": LABELS + "worker"},
            },
        }

    play(PyTorchJobReconciler, scenario)


def test_a_running_master_makes_the_job_run() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Master=1, Worker=1))
        await stage.step("digits")
        await stage.kubelet.run("digits-worker-0")
        await stage.step("digits")
        assert await stage.condition_types("digits") == [("Created", "True")]

        await stage.kubelet.run("digits-master-0")
        await stage.step("digits")

        assert await stage.condition_types("digits") == [("Created", "True"), ("Running", "True")]
        running = await last_condition(stage)
        assert running["reason"] == "PyTorchJobRunning"
        assert running["message"] == "PyTorchJob digits is running."
        assert (await stage.status("digits"))["replicaStatuses"] == {
            "Master": {"active": 1, "selector": LABELS + "master"},
            "Worker": {"active": 1, "selector": LABELS + "worker"},
        }

    play(PyTorchJobReconciler, scenario)


def test_the_masters_success_ends_the_job_whatever_the_workers_do() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Master=1, Worker=1))
        await stage.step("digits")
        await stage.kubelet.run("digits-master-0", "digits-worker-0")
        await stage.step("digits")

        stage.clock.advance(30)
        await stage.kubelet.exit("digits-master-0")
        await stage.step("digits")

        status = await stage.status("digits")
        assert await stage.condition_types("digits") == [
            ("Created", "True"),
            ("Running", "False"),
            ("Succeeded", "True"),
        ]
        assert status["conditions"][-1]["reason"] == "PyTorchJobSucceeded"
        assert status["conditions"][-1]["message"] == "PyTorchJob digits is successfully completed."
        assert status["completionTime"] == "2026-03-01T12:00:30Z"
        assert status["replicaStatuses"]["Worker"]["active"] == 1

        await stage.step("digits")

        worker = (await stage.status("digits"))["replicaStatuses"]["Worker"]
        assert worker == {"succeeded": 1, "selector": LABELS + "worker"}
        assert await stage.names(PODS) == ["digits-master-0", "digits-worker-0"]

    play(PyTorchJobReconciler, scenario)


def test_workers_alone_run_and_succeed_together() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Worker=2))
        await stage.step("digits")
        await stage.kubelet.run("digits-worker-0", "digits-worker-1")
        await stage.step("digits")
        assert (await last_condition(stage))["message"] == "PyTorchJob default/digits is running."

        await stage.kubelet.exit("digits-worker-0")
        await stage.step("digits")
        assert (await last_condition(stage))["type"] == "Running"

        await stage.kubelet.exit("digits-worker-1")
        await stage.step("digits")

        succeeded = await last_condition(stage)
        assert succeeded["type"] == "Succeeded"
        assert succeeded["message"] == "PyTorchJob default/digits successfully completed."

    play(PyTorchJobReconciler, scenario)


def test_an_elastic_job_succeeds_with_its_first_worker() -> None:
    async def scenario(stage: Stage) -> None:
        job = build_job(Worker=2)
        job["spec"]["elasticPolicy"] = {"minReplicas": 1, "maxReplicas": 2}
        await stage.client.create(job)
        await stage.step("digits")
        await stage.kubelet.run("digits-worker-0", "digits-worker-1")

        await stage.kubelet.exit("digits-worker-1")
        await stage.step("digits")

        assert (await last_condition(stage))["type"] == "Succeeded"

    play(PyTorchJobReconciler, scenario)


def test_a_failed_worker_under_never_fails_the_job_while_the_master_runs() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(policy="Never", Master=1, Worker=1))
        await stage.step("digits")
        await stage.kubelet.run("digits-master-0", "digits-worker-0")
        await stage.step("digits")

        stage.clock.advance(5)
        await stage.kubelet.exit("digits-worker-0", code=1)
        await stage.step("digits")

        status = await stage.status("digits")
        assert await stage.condition_types("digits") == [
            ("Created", "True"),
            ("Running", "False"),
            ("Failed", "True"),
        ]
        assert status["conditions"][-1]["reason"] == "PyTorchJobFailed"
        assert (
            status["conditions"][-1]["message"]
            == "PyTorchJob digits is failed because 1 Worker replica(s) failed."
        )
        assert status["completionTime"] == "2026-03-01T12:00:05Z"
        assert status["replicaStatuses"]["Worker"]["failed"] == 1
        [event] = await stage.events("PyTorchJobFailed")
        assert event["type"] == "Normal"
        assert await stage.names(PODS) == ["digits-master-0", "digits-worker-0"]

    play(PyTorchJobReconciler, scenario)


def test_an_exit_code_is_told_as_an_event() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Master=1))
        await stage.step("digits")
        await stage.kubelet.run("digits-master-0")
        await stage.kubelet.exit("digits-master-0")

        await stage.step("digits")

        [event] = await stage.events("ExitedWithCode")
        assert event["message"] == "Pod: default.digits-master-0 exited with code 0"
        assert event["type"] == "Normal"

    play(PyTorchJobReconciler, scenario)


def test_a_pod_that_cannot_start_is_explained_on_the_job() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Master=1))
        await stage.step("digits")
        unschedulable = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory.",
            "lastTransitionTime": "2026-03-01T12:00:00Z",
        }
        await stage.kubelet.report(
            "digits-master-0", {"phase": "Pending", "conditions": [unschedulable]}
        )

        await stage.step("digits")

        [event] = await stage.events("Unschedulable")
        assert event["type"] == "Warning"
        assert event["message"] == (
            "Error pod digits-master-0 condition message: "
            "0/1 nodes are available: 1 Insufficient memory."
        )

    play(PyTorchJobReconciler, scenario)


def test_a_container_that_waits_is_explained_on_the_job() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(Master=1))
        await stage.step("digits")
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 2s restarting"}
        status = {"name": "pytorch", "restartCount": 1, "state": {"waiting": waiting}}
        await stage.kubelet.report(
            "digits-master-0", {"phase": "Running", "containerStatuses": [status]}
        )

        await stage.step("digits")

        [event] = await stage.events("CrashLoopBackOff")
        assert event["message"] == (
            "Error pod digits-master-0 container pytorch waiting message: back-off 2s restarting"
        )

    play(PyTorchJobReconciler, scenario)


def test_a_job_managed_by_somebody_else_is_left_alone() -> None:
    async def scenario(stage: Stage) -> None:
        job = build_job(Master=1)
        job["spec"]["runPolicy"] = {"managedBy": "kueue.x-k8s.io/multikueue"}
        await stage.client.create(job)

        await stage.step("digits")

        assert await stage.names(PODS) == []
        assert await stage.status("digits") == {}

    play(PyTorchJobReconciler, scenario)
