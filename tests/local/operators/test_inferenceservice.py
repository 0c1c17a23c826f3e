import pytest

from kubeloop.errors import NotFoundError
from kubeloop.local.api.resources import (
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    PODS,
    SERVICES,
)
from kubeloop.local.operators.inferenceservice import FINALIZER
from kubeloop.testing.inference_services import (
    conditions,
    read_container,
    read_deployment,
    report,
    run,
    serve,
    service,
    settle,
)
from kubeloop.testing.stage import Stage


def test_status_goes_from_pending_to_ready() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)
        assert await conditions(stage) == {
            "IngressReady": ("False", "Predictor ingress not created"),
            "PredictorReady": ("False", "MinimumReplicasUnavailable"),
            "Ready": ("False", "MinimumReplicasUnavailable"),
        }
        status = await stage.status("digits")
        assert status["modelStatus"]["transitionStatus"] == "InProgress"
        assert status["modelStatus"]["states"]["targetModelState"] == "Pending"
        assert "url" not in status

        await serve(stage)

        status = await stage.status("digits")
        assert [entry["type"] for entry in status["conditions"]] == [
            "IngressReady",
            "PredictorReady",
            "Ready",
        ]
        assert {entry["status"] for entry in status["conditions"]} == {"True"}
        assert status["url"] == "http://127.0.0.1:8686/serving/default/digits"
        assert status["address"] == {"url": status["url"]}
        assert status["observedGeneration"] == 1
        assert status["deploymentMode"] == "RawDeployment"
        assert status["modelStatus"]["states"] == {
            "activeModelState": "Loaded",
            "targetModelState": "Loaded",
        }
        assert status["modelStatus"]["transitionStatus"] == "UpToDate"
        assert status["modelStatus"]["copies"] == {"totalCopies": 1}
        assert len(await stage.events("InferenceServiceReady")) == 1

    run(scenario)


def test_model_is_loading_while_its_files_are_fetched() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)

        fetching = {"name": "storage-initializer", "state": {"running": {}}, "restartCount": 0}
        await report(stage, initContainerStatuses=[fetching])

        model_status = (await stage.status("digits"))["modelStatus"]
        assert model_status["states"]["targetModelState"] == "Loading"
        assert model_status["transitionStatus"] == "InProgress"

    run(scenario)


@pytest.mark.parametrize("kind", ["initContainerStatuses", "containerStatuses"])
def test_failed_load_blocks_with_message_and_exit_code(kind: str) -> None:
    names = {
        "initContainerStatuses": "storage-initializer",
        "containerStatuses": "kserve-container",
    }

    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)

        ended = {"reason": "Error", "exitCode": 1, "message": "error: no such folder"}
        container = {
            "name": names[kind],
            "ready": False,
            "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": ended},
        }
        await report(stage, **{kind: [container]})

        model_status = (await stage.status("digits"))["modelStatus"]
        assert model_status["transitionStatus"] == "BlockedByFailedLoad"
        assert model_status["states"]["targetModelState"] == "FailedToLoad"
        assert model_status["lastFailureInfo"] == {
            "reason": "ModelLoadFailed",
            "message": "error: no such folder",
            "exitCode": 1,
        }

    run(scenario)


def test_state_between_two_crashes_is_still_failed() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)
        ended = {"terminated": {"reason": "Error", "exitCode": 1}}
        container = {"name": "kserve-container", "ready": False, "restartCount": 0}
        await report(stage, containerStatuses=[{**container, "state": ended}])

        again = {**container, "state": {"running": {}}, "lastState": ended, "restartCount": 1}
        await report(stage, containerStatuses=[again])

        model_status = (await stage.status("digits"))["modelStatus"]
        assert model_status["transitionStatus"] == "BlockedByFailedLoad"

    run(scenario)


def test_update_keeps_serving_until_the_new_pod_is_ready() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await serve(stage)

        await stage.change_spec("digits", {"predictor": {"model": {"storageUri": "/models/2"}}})
        await settle(stage)

        assert len(await stage.names()) == 2
        assert (await conditions(stage))["Ready"][0] == "True"
        assert (await stage.status("digits"))["observedGeneration"] == 2

        await serve(stage)
        (name,) = await stage.names()
        pod = await stage.client.get(PODS, name, namespace="default")
        assert pod["spec"]["initContainers"][0]["args"][0] == "/models/2"

    run(scenario)


def test_service_that_loses_its_pod_is_not_ready_and_keeps_its_url() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await serve(stage)
        (name,) = await stage.names()

        await stage.kubelet.report(name, {"phase": "Running", "conditions": []})
        await settle(stage)

        assert (await conditions(stage))["Ready"] == ("False", "MinimumReplicasUnavailable")
        assert "url" in await stage.status("digits")
        assert len(await stage.events("InferenceServiceNotReady")) == 1

    run(scenario)


def test_change_by_hand_is_undone() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)
        await stage.client.patch(
            DEPLOYMENTS, "digits-predictor", namespace="default", body={"spec": {"replicas": 5}}
        )

        await stage.step("digits")

        assert (await read_deployment(stage))["spec"]["replicas"] == 1

    run(scenario)


def test_foreign_deployment_of_the_same_name_is_left_alone() -> None:
    async def scenario(stage: Stage) -> None:
        foreign = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "digits-predictor", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "x"}},
                "template": {
                    "metadata": {"labels": {"app": "x"}},
                    "spec": {"containers": [{"name": "main", "image": "x:1"}]},
                },
            },
        }
        await stage.client.create(foreign)
        await stage.client.create(service())

        await settle(stage)

        info = (await stage.status("digits"))["modelStatus"]["lastFailureInfo"]
        assert "belongs to something else" in info["message"]
        assert (await read_container(stage))["image"] == "x:1"

    run(scenario)


def test_a_second_pass_writes_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await serve(stage)
        before = (await stage.client.list(PODS)).resource_version

        await settle(stage)

        assert (await stage.client.list(PODS)).resource_version == before

    run(scenario)


def test_deleted_service_takes_its_objects_along() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await serve(stage)
        assert FINALIZER in (await stage.get("digits"))["metadata"]["finalizers"]

        await stage.client.delete(INFERENCE_SERVICES, "digits", namespace="default")
        await stage.step("digits")
        await stage.kubelet.finish_deletions()

        with pytest.raises(NotFoundError):
            await stage.get("digits")
        assert await stage.names(DEPLOYMENTS) == []
        assert await stage.names(SERVICES) == []
        assert await stage.names() == []

    run(scenario)
