"""Jobs: pods, counts that survive anything, back-off, deadline, suspension and expiry."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from kubeloop.errors import ConflictError, NotFoundError
from kubeloop.local.api.resources import JOBS, PODS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import Clock
from kubeloop.local.operators.job import JobConfig, JobReconciler
from kubeloop.testing.stage import Stage, play


def build_job(*, policy: str = "Never", **spec: Any) -> Manifest:  # any fields of the spec
    pod_spec = {"restartPolicy": policy, "containers": [{"name": "main", "image": "x"}]}
    template = {"metadata": {"labels": {"team": "vision"}}, "spec": pod_spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "count", "namespace": "default"},
        "spec": {"template": template, **spec},
    }


def without_backoff(client: Client, *, clock: Clock) -> JobReconciler:
    config = JobConfig(first_backoff_seconds=0, last_backoff_seconds=0)
    return JobReconciler(client, clock=clock, config=config)


async def pods(stage: Stage) -> list[Manifest]:
    return (await stage.client.list(PODS, namespace="default")).items


async def active_names(stage: Stage) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in await pods(stage)
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and "deletionTimestamp" not in pod["metadata"]
    ]


async def run_and_exit(stage: Stage, *, code: int = 0) -> None:
    """One active pod runs and ends, and the job has two passes to see it."""
    [name, *_] = await active_names(stage)
    await stage.kubelet.run(name)
    await stage.step("count")
    await stage.kubelet.exit(name, code=code)
    await stage.step("count")


def test_a_pod_carries_the_jobs_labels_owner_and_a_random_name() -> None:
    async def scenario(stage: Stage) -> None:
        job = await stage.client.create(build_job())

        await stage.step("count")

        [pod] = await pods(stage)
        uid = job["metadata"]["uid"]
        assert pod["metadata"]["name"].startswith("count-")
        assert len(pod["metadata"]["name"]) == len("count-") + 5
        assert pod["metadata"]["labels"] == {
            "team": "vision",
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": "count",
            "controller-uid": uid,
            "job-name": "count",
        }
        [owner] = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", uid, True)
        assert pod["spec"]["restartPolicy"] == "Never"
        [event] = await stage.events("SuccessfulCreate")
        assert event["message"] == f"Created pod: {pod['metadata']['name']}"

    play(JobReconciler, scenario)


def test_a_job_completes_with_its_pod() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        status = await stage.status("count")
        assert (status["active"], status["ready"], status["terminating"]) == (1, 0, 0)

        [name] = await active_names(stage)
        await stage.kubelet.run(name)
        await stage.step("count")
        assert (await stage.status("count"))["ready"] == 1

        stage.clock.advance(9)
        await stage.kubelet.exit(name)
        await stage.step("count")

        status = await stage.status("count")
        assert status["startTime"] == "2026-03-01T12:00:00Z"
        assert status["completionTime"] == "2026-03-01T12:00:09Z"
        assert status["succeeded"] == 1
        assert "active" not in status
        assert "failed" not in status
        assert status["uncountedTerminatedPods"] == {}
        reached = {
            "status": "True",
            "reason": "CompletionsReached",
            "message": "Reached expected number of succeeded pods",
            "lastProbeTime": "2026-03-01T12:00:09Z",
            "lastTransitionTime": "2026-03-01T12:00:09Z",
        }
        assert status["conditions"] == [
            {"type": "SuccessCriteriaMet", **reached},
            {"type": "Complete", **reached},
        ]
        [event] = await stage.events("Completed")
        assert event["message"] == "Job completed"

    play(JobReconciler, scenario)


def test_a_finished_job_is_not_touched_again() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        await run_and_exit(stage)
        before = await stage.get("count")

        await stage.step("count")

        assert await stage.get("count") == before
        assert len(await pods(stage)) == 1

    play(JobReconciler, scenario)


def test_completions_run_as_many_at_once_as_parallelism_says() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(completions=3, parallelism=2))
        await stage.step("count")
        assert len(await active_names(stage)) == 2

        await run_and_exit(stage)
        assert len(await active_names(stage)) == 2
        await run_and_exit(stage)
        assert len(await active_names(stage)) == 1
        await run_and_exit(stage)

        assert (await stage.status("count"))["succeeded"] == 3
        assert (await stage.condition_types("count"))[-1] == ("Complete", "True")

    play(JobReconciler, scenario)


def test_without_completions_one_success_stops_new_pods_and_all_must_end() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(parallelism=2))
        await stage.step("count")

        await run_and_exit(stage)
        assert len(await active_names(stage)) == 1
        assert await stage.condition_types("count") == []

        await run_and_exit(stage)
        assert (await stage.condition_types("count"))[-1] == ("Complete", "True")

    play(JobReconciler, scenario)


def test_lower_parallelism_deletes_pods_without_counting_them() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(completions=4, parallelism=3))
        await stage.step("count")

        await stage.change_spec("count", {"parallelism": 1})
        await stage.step("count")

        assert len(await pods(stage)) == 1
        status = await stage.status("count")
        assert status["active"] == 1
        assert "failed" not in status

    play(JobReconciler, scenario)


def test_failures_beyond_the_backoff_limit_fail_the_job() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(backoffLimit=1))
        await stage.step("count")
        await run_and_exit(stage, code=1)
        assert await stage.condition_types("count") == []

        await run_and_exit(stage, code=1)

        status = await stage.status("count")
        assert status["failed"] == 2
        assert "completionTime" not in status
        target, failed = status["conditions"]
        assert (target["type"], failed["type"]) == ("FailureTarget", "Failed")
        assert failed["reason"] == "BackoffLimitExceeded"
        assert failed["message"] == "Job has reached the specified backoff limit"
        [event] = await stage.events("BackoffLimitExceeded")
        assert event["type"] == "Warning"

    play(without_backoff, scenario)


def test_the_backoff_limit_defaults_to_six() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        for _ in range(6):
            await run_and_exit(stage, code=1)
        assert await stage.condition_types("count") == []

        await run_and_exit(stage, code=1)

        assert (await stage.status("count"))["failed"] == 7
        assert (await stage.condition_types("count"))[-1] == ("Failed", "True")

    play(without_backoff, scenario)


def test_restarts_in_place_count_under_on_failure() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(policy="OnFailure", backoffLimit=2))
        await stage.step("count")
        [name] = await active_names(stage)
        await stage.kubelet.run(name)
        await stage.kubelet.exit(name, code=1)
        await stage.step("count")
        assert await stage.condition_types("count") == []

        await stage.kubelet.exit(name, code=1)
        await stage.step("count")
        assert await stage.condition_types("count") == [("FailureTarget", "True")]

        await stage.kubelet.finish_deletions()
        await stage.step("count")
        await stage.step("count")
        assert await stage.condition_types("count") == [
            ("FailureTarget", "True"),
            ("Failed", "True"),
        ]
        assert (await stage.status("count"))["failed"] == 1

    play(JobReconciler, scenario)


def test_after_a_failure_the_next_pod_waits_longer_each_time() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")

        for wait_seconds in (1, 2, 4):
            [name] = await active_names(stage)
            await stage.kubelet.run(name)
            await stage.kubelet.exit(name, code=1)
            result = await stage.step("count")
            assert result.requeue_after_seconds == wait_seconds
            assert await active_names(stage) == []

            stage.clock.advance(wait_seconds)
            await stage.step("count")

    play(JobReconciler, scenario)


def test_the_deadline_fails_the_job_once_its_pods_are_gone() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(activeDeadlineSeconds=60))
        result = await stage.step("count")
        assert result.requeue_after_seconds == 60
        [name] = await active_names(stage)
        await stage.kubelet.run(name)

        stage.clock.advance(60)
        await stage.step("count")
        assert await stage.condition_types("count") == [("FailureTarget", "True")]
        assert (await stage.status("count"))["terminating"] == 1

        await stage.kubelet.finish_deletions()
        await stage.step("count")
        await stage.kubelet.finish_deletions()
        await stage.step("count")

        failed = (await stage.status("count"))["conditions"][-1]
        assert (failed["type"], failed["reason"]) == ("Failed", "DeadlineExceeded")
        assert failed["message"] == "Job was active longer than specified deadline"
        assert await pods(stage) == []

    play(JobReconciler, scenario)


def test_suspending_deletes_pods_without_counting_and_resuming_starts_anew() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(activeDeadlineSeconds=60))
        await stage.step("count")

        await stage.change_spec("count", {"suspend": True})
        await stage.step("count")

        status = await stage.status("count")
        assert await pods(stage) == []
        assert "failed" not in status
        [suspended] = status["conditions"]
        assert (suspended["type"], suspended["reason"]) == ("Suspended", "JobSuspended")
        stage.clock.advance(600)
        assert (await stage.step("count")).requeue_after_seconds is None

        await stage.change_spec("count", {"suspend": False})
        result = await stage.step("count")

        status = await stage.status("count")
        assert len(await active_names(stage)) == 1
        assert status["startTime"] == "2026-03-01T12:10:00Z"
        assert result.requeue_after_seconds == 60
        [suspended] = status["conditions"]
        assert (suspended["status"], suspended["reason"]) == ("False", "JobResumed")

    play(JobReconciler, scenario)


def test_a_job_suspended_from_the_start_has_not_started() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(suspend=True))

        await stage.step("count")

        assert await pods(stage) == []
        assert "startTime" not in await stage.status("count")

    play(JobReconciler, scenario)


def test_a_finished_job_is_deleted_with_its_pods_after_its_time_to_live() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(ttlSecondsAfterFinished=30))
        await stage.step("count")
        await run_and_exit(stage)
        assert (await stage.step("count")).requeue_after_seconds == 30

        stage.clock.advance(30)
        await stage.step("count")

        with pytest.raises(NotFoundError):
            await stage.get("count")
        assert await pods(stage) == []

    play(JobReconciler, scenario)


def test_a_finished_pod_that_is_deleted_unseen_is_still_counted_once() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        [name] = await active_names(stage)
        await stage.kubelet.run(name)
        await stage.kubelet.exit(name)
        await stage.client.delete(PODS, name, namespace="default")

        await stage.step("count")
        await stage.step("count")

        assert (await stage.status("count"))["succeeded"] == 1
        assert (await stage.condition_types("count"))[-1] == ("Complete", "True")
        assert await pods(stage) == []

    play(JobReconciler, scenario)


def test_a_running_pod_that_is_deleted_counts_as_failed_and_is_replaced() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        [name] = await active_names(stage)
        await stage.kubelet.run(name)

        await stage.client.delete(PODS, name, namespace="default")
        await stage.step("count")
        await stage.step("count")

        assert (await stage.status("count"))["failed"] == 1
        assert len(await active_names(stage)) == 1

    play(JobReconciler, scenario)


class InterruptedClient:
    """A client whose n-th write fails as if the plane had died; later ones work."""

    def __init__(self, client: Client, *, at: int) -> None:
        self._client = client
        self._writes_left = at

    def __getattr__(self, name: str) -> Any:  # whatever the client has
        method = getattr(self._client, name)
        if name not in ("create", "replace_status", "patch", "delete"):
            return method

        async def write(*args: Any, **kwargs: Any) -> Any:  # passed through
            self._writes_left -= 1
            if self._writes_left == 0:
                raise ConflictError("the plane died here")
            return await method(*args, **kwargs)

        return write


@pytest.mark.parametrize("at", range(1, 8))
def test_no_count_is_lost_or_doubled_when_a_pass_is_cut_off_at_any_write(at: int) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(completions=2, parallelism=2, backoffLimit=3))
        await stage.step("count")
        first, second = await active_names(stage)
        await stage.kubelet.run(first, second)
        await stage.step("count")
        await stage.kubelet.exit(first, code=1)
        await stage.kubelet.exit(second)

        cut_off: Any = InterruptedClient(stage.client, at=at)  # stands in for a Client
        dying = without_backoff(cut_off, clock=stage.clock)
        with contextlib.suppress(ConflictError):
            await replace(stage, reconciler=dying).step("count")
        await stage.step("count")
        await stage.step("count")

        status = await stage.status("count")
        assert (status["succeeded"], status["failed"]) == (1, 1)
        assert len(await active_names(stage)) == 1

    play(without_backoff, scenario)


def test_pods_of_a_deleted_job_are_let_go() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        await stage.client.delete(JOBS, "count", namespace="default")
        assert len(await pods(stage)) == 1

        await stage.step("count")

        assert await pods(stage) == []

    play(JobReconciler, scenario)


def test_pods_of_a_job_replaced_by_another_of_its_name_are_let_go() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())
        await stage.step("count")
        [old] = await stage.names(PODS)
        await stage.client.delete(JOBS, "count", namespace="default")
        await stage.client.create(build_job())

        await stage.step("count")

        [new] = await stage.names(PODS)
        assert new != old
        assert "failed" not in await stage.status("count")

    play(JobReconciler, scenario)


def test_a_job_managed_by_somebody_else_is_left_alone() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(managedBy="kueue.x-k8s.io/multikueue"))

        await stage.step("count")

        assert await pods(stage) == []

    play(JobReconciler, scenario)


def test_backoff_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="first_backoff_seconds"):
        JobConfig(first_backoff_seconds=10, last_backoff_seconds=1)
