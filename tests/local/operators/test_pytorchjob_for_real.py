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


COUNT_STEPS = """
    import os, pathlib, socket, sys, time

    os.chdir(sys.argv[1])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])

    def meet():
        if rank == 0:
            with socket.create_server(("", address[1])) as listener:
                listener.settimeout(20)
                return listener.accept()[0]
        while True:
            try:
                return socket.create_connection(address)
            except ConnectionRefusedError:
                time.sleep(0.02)

    def train():
        peer = meet() if size == 2 else None
        steps = pathlib.Path("steps")
        number = len(steps.read_text().splitlines()) if steps.exists() else 0
        word = b"."
        while word == b".":
            if rank == 0:
                word = b"!" if pathlib.Path("enough").exists() else b"."
                if peer:
                    peer.sendall(word)
            if peer:
                heard = peer.recv(1)
                if not heard:
                    raise ConnectionError("the peer is gone")
                if rank == 1:
                    word = heard
                    peer.sendall(word)
            if rank == 0:
                number += 1
                with steps.open("a") as file:
                    file.write(f"{number} {size}\\n")
            time.sleep(0.01)

    try:
        train()
    except OSError:
        sys.exit(138)
"""


def build_job(program: str, *args: str, policy: str = "Never", num_workers: int = 0) -> Manifest:
    container = {
        "command": ["python", "-c", textwrap.dedent(program), *args],
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
    }
    replicas = {"Master": 1, "Worker": num_workers} if num_workers else {"Master": 1}
    return build_pytorch_job(replicas, policy=policy, container=container)


def play(
    state: Path, scenario: Callable[[Client], Awaitable[None]], *, warm: tuple[str, ...] = ()
) -> None:
    async def run() -> None:
        async with small_plane(state, PyTorchJobReconciler, warm=warm) as client:
            await scenario(client)

    asyncio.run(run())


async def wait_for_condition(client: Client, condition_type: str) -> list[Manifest]:
    async def holds() -> bool:
        job = await client.get(PYTORCH_JOBS, "digits", namespace="default")
        return is_condition_true(conditions_of(job), condition_type)

    await wait_until(holds, timeout_seconds=TIMEOUT_SECONDS)
    return conditions_of(await client.get(PYTORCH_JOBS, "digits", namespace="default"))


async def scale(client: Client, num_workers: int) -> None:
    await client.patch(
        PYTORCH_JOBS,
        "digits",
        namespace="default",
        body={"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": num_workers}}}},
    )


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
        waiting = await client.read_log(
            "digits-worker-0", namespace="default", container="init-pytorch"
        )
        assert "127.0.0.1" in waiting

    play(tmp_path, scenario, warm=("torch", "torch.distributed"))


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


def test_an_elastic_job_goes_on_while_workers_leave_and_come(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(COUNT_STEPS), "utf-8")
    job = build_job("", num_workers=2, policy="ExitCode")
    specs = job["spec"]["pytorchReplicaSpecs"]
    del specs["Master"]
    command = ["python", "-u", "-m", "kubeloop.training.launch", str(program), str(tmp_path)]
    specs["Worker"]["template"]["spec"]["containers"][0]["command"] = command
    specs["Worker"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    job["spec"] |= {
        "elasticPolicy": {
            "minReplicas": 1,
            "maxReplicas": 2,
            "maxRestarts": 9,
            "rdzvConf": [{"key": "last_call_timeout", "value": "1"}],
        },
        "nprocPerNode": "1",
    }

    def read_steps() -> list[tuple[int, int]]:
        lines = (tmp_path / "steps").read_text().splitlines() if seen.exists() else []
        return [(int(step), int(size)) for step, size in map(str.split, lines)]

    seen = tmp_path / "steps"

    async def scenario(client: Client) -> None:
        await client.create(job)

        async def reach(world_size: int, *, after: int = 0) -> int:
            def has_stepped() -> bool:
                return any(n > after and size == world_size for n, size in read_steps())

            await wait_until(has_stepped, timeout_seconds=TIMEOUT_SECONDS)
            return read_steps()[-1][0]

        reached = await reach(2)
        await scale(client, 1)
        reached = await reach(1, after=reached)
        await scale(client, 2)
        await reach(2, after=reached)
        (tmp_path / "enough").touch()
        conditions = await wait_for_condition(client, "Succeeded")

        assert conditions[-1]["type"] == "Succeeded"

    play(tmp_path, scenario, warm=("torch", "torch.distributed.run"))
    steps = [number for number, _ in read_steps()]
    assert steps == list(range(1, len(steps) + 1))
