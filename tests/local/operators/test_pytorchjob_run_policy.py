"""Deadline, suspension, cleaning up and expiry of PyTorchJobs."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import NotFoundError
from kubeloop.local.api.resources import PODS, SERVICES
from kubeloop.local.client import Manifest
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.manifests import build_pytorch_job
from kubeloop.testing.stage import Stage, play


def build_job(*, policy: str = "Never", **run_policy: Any) -> Manifest:  # any run policy
    return build_pytorch_job({"Master": 1, "Worker": 2}, policy=policy, run_policy=run_policy)


ALL = ["digits-master-0", "digits-worker-0", "digits-worker-1"]


async def start(stage: Stage, job: Manifest) -> None:
    await stage.client.create(job)
    await stage.step("digits")
    await stage.kubelet.run(*ALL)
    await stage.step("digits")


async def clean(stage: Stage) -> None:
    await stage.step("digits")
    await stage.kubelet.finish_deletions()
    await stage.step("digits")


def test_the_deadline_fails_the_job_and_deletes_everything() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(activeDeadlineSeconds=60, cleanPodPolicy="None"))
        stage.clock.advance(59)
        result = await stage.step("digits")
        assert result.requeue_after_seconds == 1

        stage.clock.advance(1)
        await stage.step("digits")

        status = await stage.status("digits")
        assert status["conditions"][-1]["reason"] == "PyTorchJobFailed"
        assert status["conditions"][-1]["message"] == (
            "Job digits has failed because it was active longer than specified deadline"
        )
        assert status["completionTime"] == "2026-03-01T12:01:00Z"
        await stage.kubelet.finish_deletions()
        assert await stage.names(PODS) == []
        assert await stage.names(SERVICES) == []

    play(PyTorchJobReconciler, scenario)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("None", ALL), ("Running", ["digits-master-0"]), ("All", [])],
)
def test_the_clean_policy_decides_what_a_finished_job_keeps(policy: str, kept: list[str]) -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(cleanPodPolicy=policy))
        await stage.kubelet.report("digits-worker-1", {"phase": "Pending"})
        await stage.kubelet.exit("digits-master-0")
        await stage.step("digits")

        await clean(stage)

        assert await stage.names(PODS) == kept
        assert await stage.names(SERVICES) == kept
        assert (await stage.condition_types("digits"))[-1] == ("Succeeded", "True")

    play(PyTorchJobReconciler, scenario)


def test_an_unset_clean_policy_keeps_all() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job())
        await stage.kubelet.exit("digits-master-0")
        await stage.step("digits")

        await clean(stage)

        assert await stage.names(PODS) == ALL

    play(PyTorchJobReconciler, scenario)


def test_a_job_suspended_from_the_start_has_no_pods() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(suspend=True))

        await stage.step("digits")

        assert await stage.names(PODS) == []
        status = await stage.status("digits")
        assert await stage.condition_types("digits") == [("Created", "True"), ("Suspended", "True")]
        assert status["conditions"][-1]["reason"] == "PyTorchJobSuspended"
        assert status["conditions"][-1]["message"] == "PyTorchJob digits is suspended."
        assert "startTime" not in status

    play(PyTorchJobReconciler, scenario)


def test_suspending_stops_a_running_job_whatever_the_clean_policy() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(cleanPodPolicy="None"))

        await stage.change_spec("digits", {"runPolicy": {"suspend": True}})
        await clean(stage)

        assert await stage.names(PODS) == []
        assert await stage.names(SERVICES) == []
        status = await stage.status("digits")
        assert await stage.condition_types("digits") == [
            ("Created", "True"),
            ("Running", "False"),
            ("Suspended", "True"),
        ]
        assert status["conditions"][1]["reason"] == "PyTorchJobSuspended"
        assert all("active" not in counts for counts in status["replicaStatuses"].values())
        assert status["startTime"] == "2026-03-01T12:00:00Z"
        [event] = await stage.events("PyTorchJobSuspended")
        assert event["count"] == 2

    play(PyTorchJobReconciler, scenario)


def test_resuming_starts_anew_and_the_deadline_with_it() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(activeDeadlineSeconds=60))
        await stage.change_spec("digits", {"runPolicy": {"suspend": True}})
        await clean(stage)
        stage.clock.advance(600)

        await stage.change_spec("digits", {"runPolicy": {"suspend": False}})
        result = await stage.step("digits")

        status = await stage.status("digits")
        assert await stage.names(PODS) == ALL
        assert status["startTime"] == "2026-03-01T12:10:00Z"
        assert result.requeue_after_seconds == 60
        suspended = status["conditions"][-1]
        assert (suspended["type"], suspended["status"]) == ("Suspended", "False")
        assert suspended["reason"] == "PyTorchJobResumed"
        assert suspended["message"] == "PyTorchJob digits is resumed."

    play(PyTorchJobReconciler, scenario)


def test_a_finished_job_is_deleted_after_its_time_to_live() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(ttlSecondsAfterFinished=30))
        await stage.kubelet.exit("digits-master-0")
        result = await stage.step("digits")
        assert result.requeue_after_seconds == 30
        stage.clock.advance(29)
        assert (await stage.step("digits")).requeue_after_seconds == 1

        stage.clock.advance(1)
        await stage.step("digits")

        await stage.kubelet.finish_deletions()
        with pytest.raises(NotFoundError):
            await stage.get("digits")
        assert await stage.names(PODS) == []

    play(PyTorchJobReconciler, scenario)


def test_a_permanent_failure_by_exit_code_never_expires() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(policy="ExitCode", ttlSecondsAfterFinished=0))
        await stage.kubelet.exit("digits-worker-0", code=1)
        await stage.step("digits")

        stage.clock.advance(3600)
        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Failed", "True")

    play(PyTorchJobReconciler, scenario)
