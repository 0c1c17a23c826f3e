import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kubeloop.errors import ConflictError, InputError, NotFoundError, PermanentError, TransientError
from kubeloop.kserve import deployments
from kubeloop.kserve.deployments import DeploymentProgress, WaitConfig, connect
from kubeloop.kserve.endpoints import Endpoint
from kubeloop.kserve.inference_services import InferenceServiceConfig
from kubeloop.kserve.runtime import build_serving_runtime
from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.api.resources import INFERENCE_SERVICES, PODS
from kubeloop.local.client import Client, EventType, Manifest
from kubeloop.local.operators.controller import Controller
from kubeloop.local.operators.deployment import DeploymentReconciler
from kubeloop.local.operators.inferenceservice import InferenceServiceReconciler
from kubeloop.testing.official_clients import close_connections
from kubeloop.testing.servers import running_api
from kubeloop.testing.waiting import wait_until

CONFIG = InferenceServiceConfig(name="digits", model_uri="/models/good")
WAIT = WaitConfig(
    timeout_seconds=20, poll_seconds=0.02, invalid_grace_seconds=0.2, blocked_grace_seconds=20
)
BROKEN_LOG = "fetching\nerror: Failed to fetch model /models/broken: there is no such folder\n"


class ScriptedNode:
    """Plays the node: what becomes of a pod is in the name of its model."""

    def __init__(self, client: Client, pods_dir: Path) -> None:
        self._client = client
        self._pods_dir = pods_dir

    async def run(self) -> None:
        async with aclosing(self._client.watch(PODS)) as events:  # type: ignore[type-var]
            async for event in events:
                if event.type in (EventType.ADDED, EventType.MODIFIED):
                    with contextlib.suppress(NotFoundError, ConflictError):
                        await self._play(event.object)

    async def _play(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            await self._client.delete(
                PODS, metadata["name"], namespace=metadata["namespace"], grace_period_seconds=0
            )
        elif "containerStatuses" not in pod.get("status", {}):
            model = pod["spec"]["initContainers"][0]["args"][0]
            pod["status"] = self._report(pod, model)
            await self._client.replace_status(pod)

    def _report(self, pod: Manifest, model: str) -> Manifest:
        ready = model.startswith("/models/good")
        status: Manifest = {
            "phase": "Running" if ready else "Pending",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [container("kserve-container", ready=ready)],
        }
        if model == "/models/broken":
            log = self._pods_dir / pod["metadata"]["uid"] / "logs" / "storage-initializer" / "3.log"
            log.parent.mkdir(parents=True)
            log.write_text(BROKEN_LOG)
            ended = {"reason": "Error", "exitCode": 1, "message": "there is no such folder"}
            status["initContainerStatuses"] = [
                {
                    **container("storage-initializer", ready=False),
                    "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": ended},
                }
            ]
        return status


def container(name: str, *, ready: bool) -> Manifest:
    return {
        "name": name,
        "ready": ready,
        "restartCount": 0,
        "image": "",
        "imageID": "",
        "state": {"running": {}} if ready else {"waiting": {"reason": "PodInitializing"}},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """An API with KServe's operators, its official client, and our own."""

    kserve: Any
    client: Client

    async def deploy(self, config: InferenceServiceConfig, **options: Any) -> Endpoint:
        return await asyncio.to_thread(
            deployments.deploy, config, client=self.kserve, **{"wait": WAIT, **options}
        )

    async def get(self, name: str = "digits") -> Manifest:
        return await self.client.get(INFERENCE_SERVICES, name, namespace="default")

    async def models(self) -> list[str]:
        pods = await self.client.list(PODS)
        return [pod["spec"]["initContainers"][0]["args"][0] for pod in pods.items]


@asynccontextmanager
async def running_plane(folder: Path) -> AsyncIterator[Plane]:
    async with running_api(folder) as running:
        client = MemoryClient(running.api)
        await client.create(build_serving_runtime())
        services = InferenceServiceReconciler(client, gateway_url="http://127.0.0.1:1")
        parts: list[Controller | ScriptedNode] = [
            Controller(client, services),
            Controller(client, DeploymentReconciler(client)),
            ScriptedNode(client, running.pods_dir),
        ]
        tasks = [asyncio.create_task(part.run()) for part in parts]
        kserve = connect(config_file=str(running.kubeconfig))
        try:
            yield Plane(kserve=kserve, client=client)
        finally:
            apis = (kserve.core_api, kserve.app_api, kserve.api_instance)
            await asyncio.to_thread(close_connections, *apis)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def on_plane(tmp_path: Path) -> Callable[[Callable[[Plane], Awaitable[None]]], None]:
    async def run(scenario: Callable[[Plane], Awaitable[None]]) -> None:
        async with running_plane(tmp_path) as plane:
            await scenario(plane)

    return lambda scenario: asyncio.run(run(scenario))


OnPlane = Callable[[Callable[[Plane], Awaitable[None]]], None]


def test_deploy_returns_the_endpoint_when_it_serves(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        said: list[DeploymentProgress] = []

        endpoint = await plane.deploy(CONFIG, on_progress=said.append)

        assert endpoint.is_ready
        assert endpoint.url == "http://127.0.0.1:1/serving/default/digits"
        assert endpoint.model_uri == "/models/good"
        assert said[-1].message == f"serving at {endpoint.url}"
        assert [item.message for item in said] == list(dict.fromkeys(item.message for item in said))

    on_plane(scenario)


def test_the_same_configuration_again_changes_nothing(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(CONFIG)
        pods = (await plane.client.list(PODS)).items

        endpoint = await plane.deploy(CONFIG)

        assert endpoint.generation == 1
        assert [pod["metadata"]["uid"] for pod in (await plane.client.list(PODS)).items] == [
            pod["metadata"]["uid"] for pod in pods
        ]

    on_plane(scenario)


def test_another_run_of_the_same_model_leaves_the_pods_alone(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(replace(CONFIG, run_labels={"pipeline/runid": "run-1"}))
        (pod,) = (await plane.client.list(PODS)).items

        await plane.deploy(replace(CONFIG, run_labels={"pipeline/runid": "run-2"}))

        assert [item["metadata"]["uid"] for item in (await plane.client.list(PODS)).items] == [
            pod["metadata"]["uid"]
        ]
        assert (await plane.get())["metadata"]["labels"]["pipeline/runid"] == "run-1"

    on_plane(scenario)


def test_another_run_with_another_model_is_named(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(replace(CONFIG, run_labels={"pipeline/runid": "run-1"}))

        await plane.deploy(
            replace(CONFIG, model_uri="/models/good/2", run_labels={"pipeline/runid": "run-2"})
        )

        assert (await plane.get())["metadata"]["labels"]["pipeline/runid"] == "run-2"

    on_plane(scenario)


def test_update_returns_when_only_the_new_model_serves(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(CONFIG)

        endpoint = await plane.deploy(replace(CONFIG, model_uri="/models/good/2"))

        assert endpoint.model_uri == "/models/good/2"
        assert await plane.models() == ["/models/good/2"]

    on_plane(scenario)


def test_update_keeps_what_others_wrote_into_the_metadata(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(CONFIG)
        theirs = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
        await plane.client.patch(INFERENCE_SERVICES, "digits", namespace="default", body=theirs)

        await plane.deploy(replace(CONFIG, model_uri="/models/good/2"))

        metadata = (await plane.get())["metadata"]
        assert metadata["labels"]["team"] == "a"
        assert metadata["annotations"]["note"] == "b"
        assert metadata["finalizers"]

    on_plane(scenario)


def test_model_that_cannot_be_fetched_fails_with_the_log(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        with pytest.raises(PermanentError) as failure:
            await plane.deploy(replace(CONFIG, model_uri="/models/broken"))

        text = str(failure.value)
        assert text.splitlines()[0].startswith(
            "Failed to deploy InferenceService default/digits: its model server does not start:"
            " Failed to fetch model /models/broken: there is no such folder"
        )
        assert "container storage-initializer of pod digits-predictor-" in text
        assert "exit code 1" in text
        assert "error: Failed to fetch model /models/broken: there is no such folder" in text
        assert "kubectl -n default delete inferenceservice digits" in text
        assert await plane.get()

    on_plane(scenario)


def test_broken_update_fails_while_the_old_model_goes_on_serving(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(CONFIG)

        with pytest.raises(PermanentError, match="its model server does not start"):
            await plane.deploy(replace(CONFIG, model_uri="/models/broken"))

        assert "/models/good" in await plane.models()
        found = await asyncio.to_thread(
            deployments.get, "digits", namespace="default", client=plane.kserve
        )
        assert found is not None
        assert found.is_ready

    on_plane(scenario)


def test_endpoint_that_never_becomes_ready_says_what_it_waits_for(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        with pytest.raises(PermanentError) as failure:
            await plane.deploy(
                replace(CONFIG, model_uri="/models/slow"), wait=replace(WAIT, timeout_seconds=0.5)
            )

        assert "still waiting for new pods to load the model (0 of 1 ready)" in str(failure.value)

    on_plane(scenario)


def test_missing_runtime_fails_with_kserves_reason(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        with pytest.raises(PermanentError, match="RuntimeNotRecognized: Waiting for runtime"):
            await plane.deploy(replace(CONFIG, runtime="missing"))

    on_plane(scenario)


def test_configuration_that_kserve_denies_is_the_callers_error(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        annotations = {"serving.kserve.io/autoscalerClass": "magic"}

        with pytest.raises(InputError, match=r"\[magic\] is not a supported autoscaler"):
            await plane.deploy(replace(CONFIG, annotations=annotations))

    on_plane(scenario)


def interrupt(_: DeploymentProgress) -> None:
    raise KeyboardInterrupt


def test_interrupted_deployment_deletes_what_it_created(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        created = partial(
            deployments.deploy, CONFIG, client=plane.kserve, wait=WAIT, on_progress=interrupt
        )

        assert await asyncio.to_thread(raises_interrupt, created)

        await wait_until(lambda: is_gone(plane, "digits"))

    on_plane(scenario)


def test_interrupted_update_leaves_the_endpoint(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(CONFIG)
        update = partial(
            deployments.deploy, CONFIG, client=plane.kserve, wait=WAIT, on_progress=interrupt
        )

        assert await asyncio.to_thread(raises_interrupt, update)

        assert "deletionTimestamp" not in (await plane.get())["metadata"]

    on_plane(scenario)


def raises_interrupt(call: Callable[[], object]) -> bool:
    try:
        call()
    except KeyboardInterrupt:
        return True
    return False


def test_endpoint_that_is_deleted_while_awaited_is_reported(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        def remove(_: DeploymentProgress) -> None:
            deployments.delete("digits", namespace="default", client=plane.kserve)

        with pytest.raises(PermanentError, match="it was deleted while it was awaited"):
            await plane.deploy(replace(CONFIG, model_uri="/models/slow"), on_progress=remove)

    on_plane(scenario)


def test_endpoints_are_listed_and_deleted(on_plane: OnPlane) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.deploy(replace(CONFIG, name="second"))
        await plane.deploy(CONFIG)
        read = partial(deployments.list_endpoints, namespace="default", client=plane.kserve)
        delete = partial(deployments.delete, "digits", namespace="default", client=plane.kserve)

        assert [endpoint.name for endpoint in await asyncio.to_thread(read)] == ["digits", "second"]
        assert await asyncio.to_thread(delete)
        await wait_until(lambda: is_gone(plane, "digits"))
        assert [endpoint.name for endpoint in await asyncio.to_thread(read)] == ["second"]
        assert not await asyncio.to_thread(delete)

    on_plane(scenario)


async def is_gone(plane: Plane, name: str) -> bool:
    try:
        await plane.get(name)
    except NotFoundError:
        return True
    return False


def test_api_that_is_gone_is_a_transient_error(tmp_path: Path) -> None:
    async def open_and_close() -> Any:
        async with running_plane(tmp_path) as plane:
            return plane.kserve

    client = asyncio.run(open_and_close())

    with pytest.raises(TransientError, match="the Kubernetes API does not answer"):
        deployments.get("digits", namespace="default", client=client)
