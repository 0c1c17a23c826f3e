import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from kubernetes.client import ApiClient

from kubeloop.errors import InputError
from kubeloop.kserve.inference_services import (
    CONFIGURATION_ANNOTATION,
    DeploymentMode,
    InferenceServiceConfig,
    ModelProvenance,
    Protocol,
    build_inference_service,
)

CONFIG = InferenceServiceConfig(name="digits", model_uri="/models/digits/1")


def render(config: InferenceServiceConfig) -> dict[str, Any]:
    manifest: dict[str, Any] = ApiClient().sanitize_for_serialization(
        build_inference_service(config)
    )
    return manifest


def test_predictor_runs_the_model_on_our_runtime() -> None:
    manifest = render(CONFIG)

    assert manifest["apiVersion"] == "serving.kserve.io/v1beta1"
    assert manifest["kind"] == "InferenceService"
    assert manifest["metadata"]["name"] == "digits"
    assert manifest["metadata"]["namespace"] == "default"
    assert manifest["spec"] == {
        "predictor": {
            "minReplicas": 1,
            "model": {
                "modelFormat": {"name": "kubeloop"},
                "runtime": "kubeloop-modelserver",
                "protocolVersion": "v2",
                "storageUri": "/models/digits/1",
                "name": "",
                "resources": {
                    "requests": {"cpu": "1", "memory": "2Gi"},
                    "limits": {"cpu": "1", "memory": "2Gi"},
                },
            },
        }
    }


def test_every_setting_reaches_the_object() -> None:
    manifest = render(
        replace(
            CONFIG,
            runtime="",
            protocol=Protocol.V1,
            min_replicas=2,
            max_replicas=4,
            num_gpus=1,
            env={"A": "b"},
            variant="int8",
            service_account="reader",
            labels={"team": "x"},
            annotations={"note": "y"},
            deployment_mode=DeploymentMode.SERVERLESS,
        )
    )

    predictor = manifest["spec"]["predictor"]
    assert "runtime" not in predictor["model"]
    assert predictor["model"]["protocolVersion"] == "v1"
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 4)
    assert predictor["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert predictor["model"]["env"] == [
        {"name": "A", "value": "b"},
        {"name": "KUBELOOP_MODEL_VARIANT", "value": "int8"},
    ]
    assert predictor["serviceAccountName"] == "reader"
    assert manifest["metadata"]["labels"] == {"team": "x"}
    assert manifest["metadata"]["annotations"]["note"] == "y"
    mode = manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert mode == "Serverless"


def test_annotations_say_where_the_model_came_from() -> None:
    provenance = ModelProvenance(
        model_digest="d1", run_id="r1", dataset_version="v1", training_job="default/train"
    )

    annotations = render(replace(CONFIG, provenance=provenance))["metadata"]["annotations"]

    assert annotations["kubeloop.dev/model-uri"] == "/models/digits/1"
    assert annotations["kubeloop.dev/model-digest"] == "d1"
    assert annotations["kubeloop.dev/run-id"] == "r1"
    assert annotations["kubeloop.dev/dataset-version"] == "v1"
    assert annotations["kubeloop.dev/training-job"] == "default/train"


def test_digest_tells_configurations_apart() -> None:
    def digest(config: InferenceServiceConfig) -> str:
        value: str = render(config)["metadata"]["annotations"][CONFIGURATION_ANNOTATION]
        return value

    others = [
        replace(CONFIG, model_uri="/models/2"),
        replace(CONFIG, cpu="2"),
        replace(CONFIG, env={"A": "b"}),
        replace(CONFIG, variant="int8"),
        replace(CONFIG, min_replicas=2),
        replace(CONFIG, provenance=ModelProvenance(run_id="r1")),
    ]

    assert digest(CONFIG) == digest(replace(CONFIG))
    assert len({digest(config) for config in [CONFIG, *others]}) == 7


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"name": "Digits"}, "Endpoint name 'Digits'"),
        ({"name": "1digits"}, "Endpoint name '1digits'"),
        ({"name": "d" * 50}, "at most 48"),
        ({"model_uri": "models/1"}, "'models/1' cannot be served"),
        ({"model_uri": "ftp://models/1"}, "'ftp://models/1' cannot be served"),
        ({"min_replicas": -1}, "min_replicas must be 0 or more"),
        ({"min_replicas": 3, "max_replicas": 2}, "above max_replicas 2"),
    ],
)
def test_unusable_setting_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **setting)


def test_import_brings_no_sdk() -> None:
    modules = (
        "kubeloop.kserve.inference_services",
        "kubeloop.kserve.deployments",
        "kubeloop.kserve.endpoints",
        "kubeloop.kserve.client",
        "kubeloop.kserve.runtime",
    )
    code = f"import sys, {', '.join(modules)}; print({{'kserve', 'torch'}} & set(sys.modules))"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "set()"
