"""InferenceServices on a stage: our runtime is there, and both operators make passes by turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from kubeloop.kserve.runtime import build_serving_runtime
from kubeloop.local.api.resources import DEPLOYMENTS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.controller import Request
from kubeloop.local.operators.deployment import DeploymentReconciler
from kubeloop.local.operators.inferenceservice import InferenceServiceReconciler
from kubeloop.testing.stage import Stage, play

Scenario = Callable[[Stage], Awaitable[None]]


def run(scenario: Scenario, *, runtime: Manifest | None = None) -> None:
    async def with_runtime(stage: Stage) -> None:
        await stage.client.create(runtime or build_serving_runtime())
        await scenario(stage)

    play(partial(InferenceServiceReconciler, gateway_url="http://127.0.0.1:8686"), with_runtime)


def service(name: str = "digits", **predictor: Any) -> Manifest:
    predictor = predictor or {
        "model": {
            "modelFormat": {"name": "kubeloop"},
            "runtime": "kubeloop-modelserver",
            "protocolVersion": "v2",
            "storageUri": "/models/digits/1",
        }
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default", "annotations": {"kubeloop.dev/a": "b"}},
        "spec": {"predictor": predictor},
    }


def model(**fields: Any) -> Manifest:
    return {"model": {"modelFormat": {"name": "kubeloop"}, "storageUri": "/models/1", **fields}}


async def settle(stage: Stage, name: str = "digits") -> None:
    deployments = DeploymentReconciler(stage.client, clock=stage.clock)
    for _ in range(4):
        await stage.step(name)
        await deployments.reconcile(Request(namespace="default", name=f"{name}-predictor"))
        await stage.kubelet.finish_deletions()


async def serve(stage: Stage, name: str = "digits") -> None:
    await settle(stage, name)
    await stage.kubelet.run(*await stage.names())
    await settle(stage, name)


async def read_deployment(stage: Stage) -> Manifest:
    return await stage.client.get(DEPLOYMENTS, "digits-predictor", namespace="default")


async def read_container(stage: Stage) -> Manifest:
    deployment = await read_deployment(stage)
    container: Manifest = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


async def conditions(stage: Stage) -> dict[str, Any]:
    status = await stage.status("digits")
    return {entry["type"]: (entry["status"], entry.get("reason")) for entry in status["conditions"]}


async def report(stage: Stage, **status: Any) -> None:
    for name in await stage.names():
        await stage.kubelet.report(name, {"phase": "Pending", **status})
    await settle(stage)
