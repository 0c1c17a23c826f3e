"""The autoscaler of an elastic PyTorchJob that names metrics."""

from __future__ import annotations

from typing import Any

from kubeloop.local.api.resources import HORIZONTAL_POD_AUTOSCALERS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.manifests import build_pytorch_job
from kubeloop.testing.stage import Stage, play

METRICS: list[Manifest] = [
    {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
]


def build_job(**elastic: Any) -> Manifest:  # any fields of an elastic policy
    job = build_pytorch_job({"Worker": 2})
    job["spec"]["elasticPolicy"] = {"minReplicas": 1, "maxReplicas": 3, **elastic}
    return job


async def read(stage: Stage) -> Manifest:
    return await stage.client.get(HORIZONTAL_POD_AUTOSCALERS, "digits", namespace="default")


def test_a_job_that_names_metrics_has_an_autoscaler() -> None:
    async def scenario(stage: Stage) -> None:
        job = await stage.client.create(build_job(metrics=METRICS))

        await stage.step("digits")

        autoscaler = await read(stage)
        assert autoscaler["apiVersion"] == "autoscaling/v2"
        assert autoscaler["spec"] == {
            "scaleTargetRef": {
                "apiVersion": "kubeflow.org/v1",
                "kind": "PyTorchJob",
                "name": "digits",
            },
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": METRICS,
        }
        assert autoscaler["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "kubeflow.org/v1",
                "kind": "PyTorchJob",
                "name": "digits",
                "uid": job["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]

    play(PyTorchJobReconciler, scenario)


def test_a_job_without_metrics_has_none() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job())

        await stage.step("digits")

        assert await stage.names(HORIZONTAL_POD_AUTOSCALERS) == []

    play(PyTorchJobReconciler, scenario)


def test_the_autoscaler_follows_the_elastic_policy() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(metrics=METRICS))
        await stage.step("digits")
        before = await read(stage)

        await stage.step("digits")
        assert await read(stage) == before
        await stage.change_spec("digits", {"elasticPolicy": {"maxReplicas": 5}})
        await stage.step("digits")

        after = await read(stage)
        assert after["spec"]["maxReplicas"] == 5
        assert after["metadata"]["uid"] == before["metadata"]["uid"]

    play(PyTorchJobReconciler, scenario)


def test_a_suspended_job_has_no_autoscaler_until_it_is_resumed() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(metrics=METRICS))
        await stage.step("digits")

        await stage.change_spec("digits", {"runPolicy": {"suspend": True}})
        await stage.step("digits")
        assert await stage.names(HORIZONTAL_POD_AUTOSCALERS) == []
        await stage.step("digits")
        assert await stage.names(HORIZONTAL_POD_AUTOSCALERS) == []

        await stage.change_spec("digits", {"runPolicy": {"suspend": False}})
        await stage.step("digits")
        assert await stage.names(HORIZONTAL_POD_AUTOSCALERS) == ["digits"]

    play(PyTorchJobReconciler, scenario)
