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


def owned_by(owner: Manifest) -> Manifest:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def build_pod(*owners: Manifest, container: str = "main") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "default",
            "ownerReferences": [owned_by(owner) for owner in owners],
        },
        "spec": {"containers": [{"name": container, "image": "i"}]},
    }


def test_a_pod_owned_through_others_is_labelled_like_its_trial() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client, metricsCollector={"collector": {"kind": "StdOut"}})
        job = build_pytorch_job()
        metadata = {"name": "t", "namespace": "default", "ownerReferences": [owned_by(trial)]}
        owner = await client.create({**job, "metadata": metadata})

        pod = await client.create(build_pod(owner))

        assert pod["metadata"]["labels"] == {"team": "a", "katib.kubeflow.org/trial": "t"}
        assert pod["spec"]["containers"][0]["env"] == [{"name": "KATIB_TRIAL_NAME", "value": "t"}]
        again = await client.replace(copy.deepcopy(pod))
        assert again["spec"] == pod["spec"]

    run(scenario)


def test_a_trials_pod_without_the_primary_container_is_refused() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client)

        with pytest.raises(ApiError, match="Unable to find primary container main") as caught:
            await client.create(build_pod(trial, container="other"))
        assert caught.value.status == 400

    run(scenario)


@pytest.mark.parametrize("uid", ["", "another"])
def test_pods_of_nobody_and_of_strangers_are_left_alone(uid: str) -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client)
        pod = build_pod(trial)
        if uid:
            config_map = {"apiVersion": "v1", "kind": "ConfigMap"}
            owner = await client.create({**config_map, "metadata": {"name": "o"}})
            pod = build_pod(owner, container="other")
        else:
            pod["metadata"]["ownerReferences"] = []

        created = await client.create(pod)

        assert "labels" not in created["metadata"]
        assert "env" not in created["spec"]["containers"][0]

    run(scenario)


def test_the_collectors_log_is_only_that_of_primary_pods() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(
            client,
            metricsCollector={"collector": {"kind": "StdOut"}},
            primaryPodLabels={"role": "master"},
        )
        await client.create(build_pod(trial))
        await FakeKubelet(client).run("p")

        with pytest.raises(ApiError, match="container metrics-logger-and-collector is not valid"):
            await client.read_log(
                "p", namespace="default", container="metrics-logger-and-collector"
            )

    run(scenario)
