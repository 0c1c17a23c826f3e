import asyncio
from typing import Any

import pytest

from kubeloop.errors import ApiError, InvalidError
from kubeloop.local.api.resources import INFERENCE_SERVICES
from kubeloop.local.client import Manifest
from kubeloop.testing.api import memory_api

MODE = "serving.kserve.io/deploymentMode"
MODEL = {"model": {"modelFormat": {"name": "kubeloop"}, "storageUri": "/models/1"}}


def service(
    predictor: Manifest, *, name: str = "digits", annotations: Manifest | None = None, **spec: Any
) -> Manifest:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
        "spec": {"predictor": predictor, **spec},
    }


def create(manifest: Manifest) -> Manifest:
    async def run() -> Manifest:
        async with memory_api() as client:
            return await client.create(manifest)

    return asyncio.run(run())


def test_mode_of_the_plane_is_written_where_none_is_asked_for() -> None:
    assert create(service(MODEL))["metadata"]["annotations"][MODE] == "RawDeployment"


def test_mode_that_is_asked_for_stays() -> None:
    stored = create(service(MODEL, annotations={MODE: "Serverless"}))

    assert stored["metadata"]["annotations"][MODE] == "Serverless"


@pytest.mark.parametrize(
    ("framework", "protocol"),
    [("sklearn", None), ("pytorch", None), ("onnx", "v2"), ("triton", "v2"), ("huggingface", "v2")],
)
def test_framework_key_becomes_a_model(framework: str, protocol: str | None) -> None:
    predictor = create(service({framework: {"storageUri": "s3://m/1"}}))["spec"]["predictor"]

    assert framework not in predictor
    assert predictor["model"]["modelFormat"] == {"name": framework}
    assert predictor["model"]["storageUri"] == "s3://m/1"
    assert predictor["model"].get("protocolVersion") == protocol


def test_single_custom_container_is_named_and_sized() -> None:
    stored = create(service({"containers": [{"name": "mine", "image": "mine:1"}]}))

    (container,) = stored["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "2Gi"}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (service(MODEL, name="1digits"), "a InferenceService name must consist of"),
        (service({}), r"exactly one of \[SKLearn, XGBoost"),
        (service({**MODEL, "sklearn": {}}), "must be specified in PredictorSpec"),
        (
            service({**MODEL, "containers": [{"name": "kserve-container", "image": "x"}]}),
            "must be specified in PredictorSpec",
        ),
        (service({**MODEL, "minReplicas": -1}), "'MinReplicas' cannot be less than 0"),
        (service({**MODEL, "maxReplicas": -1}), "'MaxReplicas' cannot be less than 0"),
        (
            service({**MODEL, "minReplicas": 3, "maxReplicas": 2}),
            "'MinReplicas' cannot be greater than MaxReplicas",
        ),
        (service({**MODEL, "containerConcurrency": -1}), "parallelism cannot be less than 0"),
        (service({**MODEL, "logger": {"mode": "some"}}), "invalid logger type"),
        (
            service({"model": {**MODEL["model"], "storageUri": "ftp://m/1"}}),
            r"StorageUri \[ftp://m/1\] is not supported",
        ),
        (
            service(MODEL, annotations={"serving.kserve.io/autoscalerClass": "magic"}),
            r"\[magic\] is not a supported autoscaler class type",
        ),
        (
            service({"containers": [{"image": "x", "env": [{"name": "PROTOCOL", "value": "v3"}]}]}),
            "invalid protocol v3",
        ),
        (
            service(
                {**MODEL, "scaleTarget": 200},
                annotations={"serving.kserve.io/autoscalerClass": "hpa"},
            ),
            r"should be a \[1-100\] integer",
        ),
        (
            service({**MODEL, "deploymentStrategy": {}}, annotations={MODE: "Serverless"}),
            "only supported for raw deployment mode",
        ),
    ],
)
def test_broken_rule_is_denied_by_the_webhook(manifest: Manifest, message: str) -> None:
    with pytest.raises(ApiError, match=message) as refusal:
        create(manifest)

    assert refusal.value.status == 403
    assert "denied the request" in str(refusal.value)


@pytest.mark.parametrize(
    "uri", ["/models/1", "models/1", "file:///m", "gs://m/1", "pvc://c/p", "oci://r/m", "hf://a/b"]
)
def test_storage_that_kserve_knows_is_taken(uri: str) -> None:
    assert create(service({"model": {**MODEL["model"], "storageUri": uri}}))


def test_transformer_beside_the_model_is_taken() -> None:
    containers = [{"name": "transformer-container", "image": "x"}]

    assert create(service({**MODEL, "containers": containers}))


def test_field_of_a_wrong_type_is_named() -> None:
    with pytest.raises(InvalidError, match=r"spec\.predictor\.minReplicas"):
        create(service({**MODEL, "minReplicas": "two"}))


def test_mode_cannot_change_once_it_is_in_use() -> None:
    async def run() -> None:
        async with memory_api() as client:
            stored = await client.create(service(MODEL))
            stored["status"] = {"deploymentMode": "RawDeployment"}
            await client.replace_status(stored)
            await client.patch(
                INFERENCE_SERVICES,
                "digits",
                namespace="default",
                body={"metadata": {"annotations": {MODE: "Serverless"}}},
            )

    with pytest.raises(ApiError, match="cannot be changed from 'RawDeployment' to 'Serverless'"):
        asyncio.run(run())
