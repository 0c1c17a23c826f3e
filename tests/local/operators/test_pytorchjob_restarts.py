"""What happens to a PyTorchJob when its pods fail, policy by policy."""

from __future__ import annotations

import pytest

from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.manifests import build_pytorch_job
from kubeloop.testing.stage import Stage, play


def build_job(policy: str, **run_policy: int) -> Manifest:
    return build_pytorch_job({"Master": 1, "Worker": 1}, policy=policy, run_policy=run_policy)


async def start(stage: Stage, job: Manifest) -> None:
    await stage.client.create(job)
    await stage.step("digits")
    await stage.kubelet.run("digits-master-0", "digits-worker-0")
    await stage.step("digits")


async def uid(stage: Stage, name: str) -> str:
    return str((await stage.client.get(PODS, name, namespace="default"))["metadata"]["uid"])


@pytest.mark.parametrize("policy", ["OnFailure", "Always"])
def test_a_failing_container_restarts_in_place(policy: str) -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(policy))
        before = await uid(stage, "digits-worker-0")

        await stage.kubelet.exit("digits-worker-0", code=1)
        await stage.step("digits")

        assert await uid(stage, "digits-worker-0") == before
        assert (await stage.condition_types("digits"))[-1] == ("Running", "True")

    play(PyTorchJobReconciler, scenario)


@pytest.mark.parametrize("policy", ["OnFailure", "Always"])
def test_a_failed_pod_is_deleted_and_created_again(policy: str) -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job(policy))
        before = await uid(stage, "digits-worker-0")

        await stage.kubelet.evict("digits-worker-0")
        await stage.step("digits")

        restarting = (await stage.status("digits"))["conditions"][-1]
        assert (restarting["type"], restarting["reason"]) == ("Restarting", "PyTorchJobRestarting")
        assert ("Running", "True") not in await stage.condition_types("digits")
        assert await stage.names(PODS) == ["digits-master-0"]

        await stage.step("digits")
        await stage.kubelet.run("digits-worker-0")
        await stage.step("digits")

        assert await uid(stage, "digits-worker-0") != before
        assert await stage.condition_types("digits") == [("Created", "True"), ("Running", "True")]

    play(PyTorchJobReconciler, scenario)


@pytest.mark.parametrize("reason", ["NodeLost", "Terminated"])
@pytest.mark.parametrize("limits", [{}, {"backoffLimit": 0}])
def test_a_pod_lost_with_the_control_plane_is_created_again_even_where_none_is_restarted(
    reason: str, limits: dict[str, int]
) -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("Never", **limits))
        before = await uid(stage, "digits-worker-0")

        await stage.kubelet.report("digits-worker-0", {"phase": "Failed", "reason": reason})
        await stage.step("digits")
        assert ("Failed", "True") not in await stage.condition_types("digits")
        await stage.step("digits")
        await stage.kubelet.run("digits-worker-0")
        await stage.step("digits")

        assert await uid(stage, "digits-worker-0") != before
        assert await stage.condition_types("digits") == [("Created", "True"), ("Running", "True")]

    play(PyTorchJobReconciler, scenario)


def test_restarting_says_which_replicas_failed() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure"))

        await stage.kubelet.evict("digits-worker-0")
        await stage.step("digits")

        messages = {event["message"] for event in await stage.events("PyTorchJobRestarting")}
        assert messages == {
            "job digits is restarting because Worker replica(s) failed.",
            "PyTorchJob digits is restarting because 1 Worker replica(s) failed.",
        }

    play(PyTorchJobReconciler, scenario)


@pytest.mark.parametrize("code", [1, 2, 127])
def test_a_small_exit_code_is_permanent(code: int) -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("ExitCode"))

        await stage.kubelet.exit("digits-worker-0", code=code)
        await stage.step("digits")

        status = await stage.status("digits")
        assert (status["conditions"][-1]["type"]) == "Failed"
        assert status["conditions"][-1]["message"] == (
            'job "digits" is failing because "Worker" replica(s) failed.'
        )
        assert "completionTime" not in status
        assert await stage.names(PODS) == ["digits-master-0", "digits-worker-0"]

    play(PyTorchJobReconciler, scenario)


@pytest.mark.parametrize("code", [128, 137, 255])
def test_a_large_exit_code_restarts_the_pod(code: int) -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("ExitCode"))
        before = await uid(stage, "digits-worker-0")

        await stage.kubelet.exit("digits-worker-0", code=code)
        await stage.step("digits")
        assert (await stage.condition_types("digits"))[-1] == ("Restarting", "True")

        await stage.step("digits")

        assert await uid(stage, "digits-worker-0") != before

    play(PyTorchJobReconciler, scenario)


def test_an_unknown_exit_code_counts_as_retryable() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("ExitCode"))

        await stage.kubelet.evict("digits-worker-0")
        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Restarting", "True")

    play(PyTorchJobReconciler, scenario)


def test_a_terminating_pod_counts_as_failed_and_is_not_replaced_before_it_is_gone() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure"))

        await stage.client.delete(PODS, "digits-worker-0", namespace="default")
        await stage.step("digits")

        assert (await stage.status("digits"))["replicaStatuses"]["Worker"]["failed"] == 1
        assert (await stage.condition_types("digits"))[-1] == ("Restarting", "True")

        before = await uid(stage, "digits-worker-0")
        await stage.kubelet.finish_deletions()
        await stage.step("digits")
        assert await uid(stage, "digits-worker-0") != before

    play(PyTorchJobReconciler, scenario)


def test_restarts_up_to_the_backoff_limit_fail_the_job() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure", backoffLimit=2))
        await stage.kubelet.exit("digits-worker-0", code=1)
        await stage.step("digits")
        assert (await stage.condition_types("digits"))[-1] == ("Running", "True")

        await stage.kubelet.exit("digits-master-0", code=1)
        stage.clock.advance(3)
        await stage.step("digits")

        status = await stage.status("digits")
        assert status["conditions"][-1]["reason"] == "PyTorchJobFailed"
        assert status["conditions"][-1]["message"] == (
            "Job digits has failed because it has reached the specified backoff limit"
        )
        assert status["completionTime"] == "2026-03-01T12:00:03Z"
        await stage.kubelet.finish_deletions()
        assert await stage.names(PODS) == []

    play(PyTorchJobReconciler, scenario)


def test_a_backoff_limit_of_zero_allows_no_restart() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure", backoffLimit=0))
        assert (await stage.condition_types("digits"))[-1] == ("Running", "True")

        await stage.kubelet.exit("digits-worker-0", code=1)
        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Failed", "True")

    play(PyTorchJobReconciler, scenario)


def test_a_backoff_limit_of_zero_counts_a_new_pod_failure() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure", backoffLimit=0))

        await stage.kubelet.evict("digits-worker-0")
        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Failed", "True")

    play(PyTorchJobReconciler, scenario)


def test_pods_created_again_do_not_count_towards_the_backoff_limit() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure", backoffLimit=1))

        for _ in range(3):
            await stage.kubelet.evict("digits-worker-0")
            await stage.step("digits")
            await stage.step("digits")
            await stage.kubelet.run("digits-worker-0")
            await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Running", "True")

    play(PyTorchJobReconciler, scenario)


def test_restarts_under_never_do_not_count_towards_the_backoff_limit() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("Never", backoffLimit=1))
        status = {"name": "pytorch", "restartCount": 5, "state": {"running": {}}}
        await stage.kubelet.report(
            "digits-worker-0", {"phase": "Running", "containerStatuses": [status]}
        )

        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Running", "True")

    play(PyTorchJobReconciler, scenario)


def test_restarts_of_a_pod_that_does_not_run_do_not_count() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("OnFailure", backoffLimit=1))
        status = {"name": "pytorch", "restartCount": 5, "state": {"waiting": {}}}
        await stage.kubelet.report(
            "digits-worker-0", {"phase": "Pending", "containerStatuses": [status]}
        )

        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Running", "True")

    play(PyTorchJobReconciler, scenario)


def test_a_master_that_succeeded_outweighs_a_worker_that_failed_in_the_same_moment() -> None:
    async def scenario(stage: Stage) -> None:
        await start(stage, build_job("Never"))
        await stage.kubelet.exit("digits-worker-0", code=1)
        await stage.kubelet.exit("digits-master-0")

        await stage.step("digits")

        assert (await stage.condition_types("digits"))[-1] == ("Succeeded", "True")

    play(PyTorchJobReconciler, scenario)
