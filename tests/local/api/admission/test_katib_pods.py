"""What Katib's webhook does to the pods of trials."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.resources import TRIALS
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.katib_admission import run
from kubeloop.testing.katib_lab import build_pytorch_job
from kubeloop.testing.manifests import build_config_map, build_pod, own
from kubeloop.testing.pods import FakeKubelet


async def create_trial(client: Client, **spec: Any) -> Manifest:  # any part of the spec
    return await client.create(
        {
            "apiVersion": TRIALS.api_version,
            "kind": TRIALS.kind,
            "metadata": {"name": "t", "namespace": "default", "labels": {"team": "a"}},
            "spec": {"primaryContainerName": "main", **spec},
        }
    )


def build_trial_pod(owner: Manifest | None, *, container: str = "main") -> Manifest:
    pod = build_pod("p", containers=[{"name": container, "image": "i"}])
    return own(pod, owner) if owner else pod


def test_a_pod_owned_through_others_is_labelled_like_its_trial() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client, metricsCollector={"collector": {"kind": "StdOut"}})
        job = build_pytorch_job()
        job["metadata"] = {"name": "t", "namespace": "default"}
        owner = await client.create(own(job, trial))

        pod = await client.create(build_trial_pod(owner))

        assert pod["metadata"]["labels"] == {"team": "a", "katib.kubeflow.org/trial": "t"}
        assert pod["spec"]["containers"][0]["env"] == [{"name": "KATIB_TRIAL_NAME", "value": "t"}]
        again = await client.replace(copy.deepcopy(pod))
        assert again["spec"] == pod["spec"]

    run(scenario)


def test_a_trials_pod_without_the_primary_container_is_refused() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client)

        with pytest.raises(ApiError, match="Unable to find primary container main") as caught:
            await client.create(build_trial_pod(trial, container="other"))
        assert caught.value.status == 400

    run(scenario)


def assert_untouched(pod: Manifest) -> None:
    assert "labels" not in pod["metadata"]
    assert "env" not in pod["spec"]["containers"][0]


def test_pods_of_nobody_are_left_alone() -> None:
    async def scenario(client: Client) -> None:
        await create_trial(client)

        assert_untouched(await client.create(build_trial_pod(None)))

    run(scenario)


def test_pods_of_strangers_are_left_alone() -> None:
    async def scenario(client: Client) -> None:
        await create_trial(client)
        stranger = await client.create(build_config_map("o"))

        assert_untouched(await client.create(build_trial_pod(stranger, container="other")))

    run(scenario)


def test_the_collectors_log_is_only_that_of_primary_pods() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(
            client,
            metricsCollector={"collector": {"kind": "StdOut"}},
            primaryPodLabels={"role": "master"},
        )
        await client.create(build_trial_pod(trial))
        await FakeKubelet(client).run("p")

        with pytest.raises(ApiError, match="container metrics-logger-and-collector is not valid"):
            await client.read_log(
                "p", namespace="default", container="metrics-logger-and-collector"
            )

    run(scenario)
