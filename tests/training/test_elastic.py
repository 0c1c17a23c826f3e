"""Jobs on the embedded operator whose workers come and go: the training goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kubeloop.datasets import Commit
from kubeloop.local.api.resources import PODS, PYTORCH_JOBS
from kubeloop.local.client import Client
from kubeloop.local.operators.conditions import conditions_of, is_condition_true
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.plane import small_plane
from kubeloop.testing.tiny_image_program import main
from kubeloop.testing.waiting import wait_until
from kubeloop.training.jobs import ElasticConfig, PyTorchJobBuilder, TrainingJobConfig
from kubeloop.training.launch import choose_exit_code
from kubeloop.training.package import open_package

TIMEOUT_SECONDS = 180.0


async def read_logs(client: Client) -> str:
    found = await client.list(PODS, namespace="default")
    started = [
        pod["metadata"]["name"]
        for pod in found.items
        if (pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed")
    ]
    return "\n".join([await client.read_log(name, namespace="default") for name in started])


async def scale(client: Client, num_workers: int) -> None:
    job = await client.get(PYTORCH_JOBS, "elastic", namespace="default")
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = num_workers
    await client.replace(job)


async def prints(client: Client, text: str) -> None:
    async def has_printed() -> bool:
        return text in await read_logs(client)

    await wait_until(has_printed, timeout_seconds=TIMEOUT_SECONDS)


async def succeeds(client: Client, name: str) -> None:
    async def has_succeeded() -> bool:
        job = await client.get(PYTORCH_JOBS, name, namespace="default")
        assert not is_condition_true(conditions_of(job), "Failed"), await read_logs(client)
        return is_condition_true(conditions_of(job), "Succeeded")

    await wait_until(has_succeeded, timeout_seconds=TIMEOUT_SECONDS)


def play(state: Path, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with small_plane(state, PyTorchJobReconciler) as client:
            await scenario(client)

    asyncio.run(run())


@pytest.mark.soak
def test_an_elastic_job_loses_and_gains_a_worker(commit: Commit, tmp_path: Path) -> None:
    config = TrainingJobConfig(
        name="elastic",
        dataset_uri=commit.uri,
        model_uri=str(tmp_path / "model"),
        checkpoint_uri=str(tmp_path / "checkpoints"),
        hyperparameters={"epochs": 80, "batch_size": 7, "learning_rate": 0.01},
        num_workers=2,
        cpu="1",
        memory="1Gi",
        elastic=ElasticConfig(min_workers=1, max_workers=2),
        env_secrets=(),
    )

    async def scenario(client: Client) -> None:
        await client.create(PyTorchJobBuilder().render(config))
        await prints(client, "epoch=2 ")
        await scale(client, 1)
        await prints(client, "processes: 1.")
        await scale(client, 2)
        await prints(client, "processes: 2.")
        await succeeds(client, "elastic")

    play(tmp_path / "state", scenario)
    assert open_package(tmp_path / "model").manifest.metrics["val_accuracy"] == 1.0


@pytest.mark.soak
def test_a_job_killed_again_and_again_ends_as_an_unbroken_one(
    commit: Commit, tmp_path: Path
) -> None:
    hyperparameters = {"epochs": 30, "batch_size": 7, "checkpoint_seconds": 0.0}
    config = TrainingJobConfig(
        name="killed",
        command=("python", "-u", "-m", "kubeloop.testing.tiny_image_program"),
        dataset_uri=commit.uri,
        model_uri=str(tmp_path / "model"),
        checkpoint_uri=str(tmp_path / "checkpoints"),
        hyperparameters=hyperparameters,
        env_secrets=(),
    )

    async def scenario(client: Client) -> None:
        await client.create(PyTorchJobBuilder().render(config))
        for epoch in (3, 8, 15):
            await prints(client, f"epoch={epoch} ")
            await client.delete(
                PODS, "killed-master-0", namespace="default", grace_period_seconds=0
            )
        await succeeds(client, "killed")
        assert "Resuming from the checkpoint" in await read_logs(client)

    play(tmp_path / "state", scenario)
    whole = tmp_path / "whole"
    values = [part for name, value in hyperparameters.items() for part in (f"--{name}", str(value))]
    assert main(["--dataset", commit.uri, "--model", str(whole), *values]) == 0
    assert (whole / "model.pt2").read_bytes() == (tmp_path / "model" / "model.pt2").read_bytes()


def test_torchrun_ends_as_the_process_that_matters() -> None:
    assert choose_exit_code([1, 138]) == 1
    assert choose_exit_code([138, -9]) == 138
    assert choose_exit_code([-9]) == 137
    assert choose_exit_code([143]) == 143


@pytest.mark.parametrize(
    ("epochs", "exit_code", "message"),
    [("many", 2, "error: argument --epochs: invalid int value"), ("0", 1, "error: epochs must be")],
)
def test_wrong_arguments_are_not_tried_again(epochs: str, exit_code: int, message: str) -> None:
    program = ["-m", "kubeloop.training.programs.image", "--dataset", "any", "--epochs", epochs]

    run = subprocess.run(
        [sys.executable, "-m", "kubeloop.training.launch", *program],
        env={**os.environ, "PET_MAX_RESTARTS": "1"},
        capture_output=True,
        text=True,
    )

    assert run.returncode == exit_code
    assert run.stderr.count(message) == 1
