"""PyTorchJobs whose pods are processes: ranks that find each other, fail, and are restarted."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

from kubeloop.local.api.resources import PODS, PYTORCH_JOBS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import conditions_of, is_condition_true
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.manifests import build_pytorch_job
from kubeloop.testing.plane import small_plane
from kubeloop.testing.waiting import wait_until

TIMEOUT_SECONDS = 90.0

ALL_REDUCE = """
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(total)
    print(f"rank={dist.get_rank()} of={dist.get_world_size()} total={total.item()}")
    dist.destroy_process_group()
"""

FAIL_ONCE = """
    import pathlib, sys

    seen = pathlib.Path(sys.argv[1])
    if not seen.exists():
        seen.touch()
        sys.exit(137)
    print("second life")
"""


def build_job(program: str, *args: str, policy: str = "Never", num_workers: int = 0) -> Manifest:
    container = {
        "command": ["python", "-c", textwrap.dedent(program), *args],
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
    }
    replicas = {"Master": 1, "Worker": num_workers} if num_workers else {"Master": 1}
    return build_pytorch_job(replicas, policy=policy, container=container)


def play(state: Path, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with small_plane(state, PyTorchJobReconciler) as client:
            await scenario(client)

    asyncio.run(run())


async def wait_for_condition(client: Client, condition_type: str) -> list[Manifest]:
    async def holds() -> bool:
        job = await client.get(PYTORCH_JOBS, "digits", namespace="default")
        return is_condition_true(conditions_of(job), condition_type)

    await wait_until(holds, timeout_seconds=TIMEOUT_SECONDS)
    return conditions_of(await client.get(PYTORCH_JOBS, "digits", namespace="default"))


def test_master_and_worker_meet_and_reduce_over_gloo(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_job(ALL_REDUCE, num_workers=1))

        conditions = await wait_for_condition(client, "Succeeded")

        assert [(entry["type"], entry["status"]) for entry in conditions] == [
            ("Created", "True"),
            ("Running", "False"),
            ("Succeeded", "True"),
        ]

        async def worker_ended() -> bool:
            pod = await client.get(PODS, "digits-worker-0", namespace="default")
            return bool(pod["status"]["phase"] == "Succeeded")

        await wait_until(worker_ended, timeout_seconds=TIMEOUT_SECONDS)
        logs = [
            await client.read_log(name, namespace="default", container="pytorch")
            for name in ("digits-master-0", "digits-worker-0")
        ]
        assert "rank=0 of=2 total=3.0" in logs[0]
        assert "rank=1 of=2 total=3.0" in logs[1]

    play(tmp_path, scenario)


def test_a_program_that_raises_fails_the_job_and_its_log_says_why(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_job("raise RuntimeError('no such dataset')"))

        conditions = await wait_for_condition(client, "Failed")

        assert conditions[-1]["message"] == (
            "PyTorchJob digits is failed because 1 Master replica(s) failed."
        )
        log = await client.read_log("digits-master-0", namespace="default")
        assert "RuntimeError: no such dataset" in log

    play(tmp_path, scenario)


def test_a_retryable_exit_code_gives_the_pod_a_second_life(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        job = build_job(FAIL_ONCE, str(tmp_path / "seen"), policy="ExitCode")
        await client.create(job)

        conditions = await wait_for_condition(client, "Succeeded")

        assert conditions[-1]["type"] == "Succeeded"
        assert "second life" in await client.read_log("digits-master-0", namespace="default")

    play(tmp_path, scenario)


def test_elastic_workers_meet_through_torchrun(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(ALL_REDUCE), "utf-8")
        job = build_job(ALL_REDUCE, num_workers=2)
        specs = job["spec"]["pytorchReplicaSpecs"]
        del specs["Master"]
        specs["Worker"]["template"]["spec"]["containers"][0]["command"] = ["torchrun", str(program)]
        job["spec"] |= {"elasticPolicy": {"minReplicas": 2}, "nprocPerNode": "1"}
        await client.create(job)

        await wait_for_condition(client, "Succeeded")

        async def both_have_printed() -> bool:
            logs = [
                await client.read_log(f"digits-worker-{index}", namespace="default")
                for index in range(2)
            ]
            return all("of=2 total=3.0" in log for log in logs)

        await wait_until(both_have_printed, timeout_seconds=TIMEOUT_SECONDS)

    play(tmp_path, scenario)
