import pytest

from kubeloop.kserve.runtime import build_serving_runtime
from kubeloop.local.api.resources import (
    CLUSTER_SERVING_RUNTIMES,
    SERVICES,
    SERVING_RUNTIMES,
)
from kubeloop.local.client import Manifest
from kubeloop.local.operators.controller import Request
from kubeloop.testing.inference_services import (
    conditions,
    model,
    read_container,
    read_deployment,
    run,
    serve,
    service,
    settle,
)
from kubeloop.testing.stage import Stage


def test_predictor_becomes_a_deployment_and_a_service() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())

        await settle(stage)

        deployment = await read_deployment(stage)
        labels = {
            "app": "isvc.digits-predictor",
            "serving.kserve.io/inferenceservice": "digits",
            "component": "predictor",
        }
        assert deployment["metadata"]["labels"].items() >= labels.items()
        assert deployment["spec"]["template"]["metadata"]["labels"].items() >= labels.items()
        assert deployment["spec"]["selector"] == {"matchLabels": {"app": "isvc.digits-predictor"}}
        assert deployment["spec"]["template"]["metadata"]["annotations"]["kubeloop.dev/a"] == "b"
        front = await stage.client.get(SERVICES, "digits-predictor", namespace="default")
        assert front["spec"]["selector"] == {"app": "isvc.digits-predictor"}
        (port,) = front["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (80, 8080)

    run(scenario)


def test_container_is_the_runtimes_with_its_placeholders_filled() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)

        container = await read_container(stage)

        assert container["name"] == "kserve-container"
        assert container["command"] == ["python", "-m", "kubeloop.kserve.server"]
        assert container["args"] == [
            "--model_name=digits",
            "--model_dir=/mnt/models",
            "--http_port=8080",
        ]
        assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"

    run(scenario)


def test_fields_of_the_model_override_the_runtime_and_args_are_appended() -> None:
    async def scenario(stage: Stage) -> None:
        override = {
            "args": ["--drain_seconds=1"],
            "env": [{"name": "X", "value": "1"}],
            "resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}},
            "image": "mine:1",
        }
        await stage.client.create(service(**model(runtime="kubeloop-modelserver", **override)))
        await settle(stage)

        container = await read_container(stage)

        assert container["args"][-1] == "--drain_seconds=1"
        assert len(container["args"]) == 4
        assert {"name": "X", "value": "1"} in container["env"]
        assert {item["name"] for item in container["env"]} == {"POD_IP", "X"}
        assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
        assert container["image"] == "mine:1"

    run(scenario)


def test_model_is_fetched_by_the_storage_initializer() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)

        template = (await read_deployment(stage))["spec"]["template"]

        (initializer,) = template["spec"]["initContainers"]
        assert initializer["name"] == "storage-initializer"
        assert initializer["args"] == ["/models/digits/1", "/mnt/models"]
        assert "storage-initializer" in initializer["image"]
        (mount,) = template["spec"]["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == "/mnt/models"
        assert mount["readOnly"] is True
        annotation = "internal.serving.kserve.io/storage-initializer-sourceuri"
        assert template["metadata"]["annotations"][annotation] == "/models/digits/1"

    run(scenario)


def test_claim_is_mounted_without_fetching() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service(**model(storageUri="pvc://models/digits/1")))
        await settle(stage)

        spec = (await read_deployment(stage))["spec"]["template"]["spec"]

        assert "initContainers" not in spec
        assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models"}
        assert spec["containers"][0]["volumeMounts"][0]["subPath"] == "digits/1"

    run(scenario)


def test_initializer_gets_the_credentials_of_the_service_account() -> None:
    async def scenario(stage: Stage) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "store",
                "namespace": "default",
                "annotations": {"serving.kserve.io/s3-endpoint": "127.0.0.1:9000"},
            },
            "data": {"AWS_ACCESS_KEY_ID": "YQ==", "AWS_SECRET_ACCESS_KEY": "Yg=="},
        }
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "reader", "namespace": "default"},
            "secrets": [{"name": "store"}],
        }
        await stage.client.create(secret)
        await stage.client.create(account)
        await stage.client.create(
            service(**model(storageUri="s3://models/1"), serviceAccountName="reader")
        )
        await settle(stage)

        spec = (await read_deployment(stage))["spec"]["template"]["spec"]

        env = {item["name"]: item for item in spec["initContainers"][0]["env"]}
        assert env["S3_ENDPOINT"]["value"] == "127.0.0.1:9000"
        reference = env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": "store", "key": "AWS_SECRET_ACCESS_KEY"}

    run(scenario)


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        (model(runtime="missing"), "RuntimeNotRecognized", "Waiting for runtime"),
        (model(modelFormat={"name": "sklearn"}), "NoSupportingRuntime", "No runtime found"),
        (model(protocolVersion="grpc-v2"), "NoSupportingRuntime", "No runtime found"),
        (
            model(runtime="kubeloop-modelserver", modelFormat={"name": "onnx"}),
            "NoSupportingRuntime",
            "does not support specified framework/version",
        ),
        (
            model(runtime="kubeloop-modelserver", protocolVersion="grpc-v2"),
            "NoSupportingRuntime",
            "does not support specified protocol version",
        ),
    ],
)
def test_model_without_a_runtime_is_an_invalid_spec(
    spec: Manifest, reason: str, message: str
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(service(**spec))

        await settle(stage)
        await settle(stage)

        status = await stage.status("digits")
        assert status["modelStatus"]["transitionStatus"] == "InvalidSpec"
        assert status["modelStatus"]["lastFailureInfo"]["reason"] == reason
        assert message in status["modelStatus"]["lastFailureInfo"]["message"]
        assert (await conditions(stage))["PredictorReady"] == ("False", reason)
        (event,) = await stage.events("InternalError")
        assert event["count"] == 1

    run(scenario)


def test_disabled_runtime_is_refused() -> None:
    runtime = build_serving_runtime()
    runtime["spec"]["disabled"] = True

    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)

        info = (await stage.status("digits"))["modelStatus"]["lastFailureInfo"]
        assert info["reason"] == "RuntimeDisabled"

    run(scenario, runtime=runtime)


def test_service_waits_for_its_runtime_and_recovers() -> None:
    late = build_serving_runtime()
    late["metadata"]["name"] = "late"

    async def scenario(stage: Stage) -> None:
        await stage.client.create(service(**model(runtime="late")))
        await settle(stage)

        stored = await stage.client.create(late)
        woken = stage.reconciler.map_event(CLUSTER_SERVING_RUNTIMES, stored)
        await serve(stage)

        assert woken == [Request(namespace="default", name="digits")]
        assert (await conditions(stage))["Ready"][0] == "True"
        assert (await stage.status("digits"))["modelStatus"]["transitionStatus"] == "UpToDate"

    run(scenario)


def test_runtime_of_the_namespace_wins_over_the_clusters() -> None:
    own = build_serving_runtime(image="own:1")
    own |= {"kind": "ServingRuntime"}
    own["metadata"]["namespace"] = "default"

    async def scenario(stage: Stage) -> None:
        await stage.client.create(own)
        assert (await stage.client.list(SERVING_RUNTIMES)).items
        await stage.client.create(service(**model()))
        await settle(stage)

        assert (await read_container(stage))["image"] == "own:1"

    run(scenario)


def test_unknown_placeholder_in_a_runtime_is_reported() -> None:
    runtime = build_serving_runtime()
    runtime["spec"]["containers"][0]["args"] = ["--x={{.Nonsense}}"]

    async def scenario(stage: Stage) -> None:
        await stage.client.create(service())
        await settle(stage)

        info = (await stage.status("digits"))["modelStatus"]["lastFailureInfo"]
        assert info["reason"] == "InvalidPredictorSpec"
        assert "placeholders" in info["message"]

    run(scenario, runtime=runtime)


def test_custom_container_is_run_as_it_is() -> None:
    container = {
        "name": "mine",
        "image": "mine:1",
        "command": ["python", "-m", "mine"],
        "ports": [{"containerPort": 9000}],
        "env": [{"name": "STORAGE_URI", "value": "/models/1"}],
    }

    async def scenario(stage: Stage) -> None:
        await stage.client.create(service(containers=[container]))
        await serve(stage)

        spec = (await read_deployment(stage))["spec"]["template"]["spec"]
        (custom,) = spec["containers"]
        assert custom["name"] == "kserve-container"
        assert custom["command"] == ["python", "-m", "mine"]
        assert custom["env"][0]["value"] == "/mnt/models"
        assert custom["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
        assert custom["readinessProbe"]["tcpSocket"] == {"port": 9000}
        assert spec["initContainers"][0]["args"][0] == "/models/1"
        front = await stage.client.get(SERVICES, "digits-predictor", namespace="default")
        assert front["spec"]["ports"][0]["targetPort"] == 9000
        assert (await conditions(stage))["Ready"][0] == "True"

    run(scenario)


def test_parts_that_are_not_served_are_named() -> None:
    async def scenario(stage: Stage) -> None:
        manifest = service()
        manifest["spec"]["transformer"] = {"containers": [{"name": "t", "image": "t:1"}]}
        await stage.client.create(manifest)
        await settle(stage)

        info = (await stage.status("digits"))["modelStatus"]["lastFailureInfo"]
        assert "transformer is not served" in info["message"]

    run(scenario)
