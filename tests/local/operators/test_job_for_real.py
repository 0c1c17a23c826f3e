"""Jobs whose pods are processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kubeloop.local.api.resources import JOBS, PODS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import conditions_of, is_condition_true
from kubeloop.local.operators.job import JobReconciler
from kubeloop.testing.plane import small_plane
from kubeloop.testing.waiting import wait_until

TIMEOUT_SECONDS = 60.0


def build_job(command: list[str], **spec: Any) -> Manifest:  # any fields of the spec
    container = {"name": "main", "image": "kubeloop/runtime", "command": command}
    pod_spec = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "count", "namespace": "default"},
        "spec": {"template": {"spec": pod_spec}, **spec},
    }


def play(state: Path, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with small_plane(state, JobReconciler) as client:
            await scenario(client)

    asyncio.run(run())


async def status(client: Client) -> Manifest:
    return dict((await client.get(JOBS, "count", namespace="default")).get("status") or {})


async def wait_for_condition(client: Client, condition_type: str) -> None:
    async def holds() -> bool:
        job = await client.get(JOBS, "count", namespace="default")
        return is_condition_true(conditions_of(job), condition_type)

    await wait_until(holds, timeout_seconds=TIMEOUT_SECONDS)


def test_a_parallel_job_completes(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_job(["true"], completions=5, parallelism=2))

        await wait_for_condition(client, "Complete")

        assert (await status(client))["succeeded"] == 5
        assert len((await client.list(PODS, namespace="default")).items) == 5

    play(tmp_path, scenario)


def test_a_failing_job_fails_after_its_backoff_limit(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_job(["false"], backoffLimit=0))

        await wait_for_condition(client, "Failed")

        assert (await status(client))["failed"] == 1

    play(tmp_path, scenario)


def test_suspending_stops_the_processes_and_deleting_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_job(["sleep", "300"]))

        async def num_pods() -> int:
            return len((await client.list(PODS, namespace="default")).items)

        async def one_is_ready() -> bool:
            return (await status(client)).get("ready") == 1

        async def none_is_left() -> bool:
            return await num_pods() == 0

        await wait_until(one_is_ready, timeout_seconds=TIMEOUT_SECONDS)
        await client.patch(JOBS, "count", namespace="default", body={"spec": {"suspend": True}})
        await wait_until(none_is_left, timeout_seconds=TIMEOUT_SECONDS)
        assert "failed" not in await status(client)

        await client.patch(JOBS, "count", namespace="default", body={"spec": {"suspend": False}})
        await wait_until(one_is_ready, timeout_seconds=TIMEOUT_SECONDS)
        await client.delete(JOBS, "count", namespace="default")
        await wait_until(none_is_left, timeout_seconds=TIMEOUT_SECONDS)

    play(tmp_path, scenario)
