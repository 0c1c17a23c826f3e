"""The objects of a predictor: its pod template, Deployment and Service.

Pure functions. The storage initializer, which a webhook adds to pods on a cluster, is added to the
template here, so that the pod is the same.

Source: kserve pkg/controller/v1beta1/inferenceservice (components/predictor.go, utils/utils.go,
reconcilers/deployment, reconcilers/service), pkg/webhook/admission/pod.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from kubeloop.local.api.admission.serving import PREDICTOR_CONTAINER, TRANSFORMER_CONTAINER
from kubeloop.local.api.strategic import apply_strategic_patch
from kubeloop.local.client import Manifest
from kubeloop.local.operators.controller import build_owner_reference
from kubeloop.local.operators.serving_runtimes import PredictorProblemError
from kubeloop.local.operators.storage_injection import SOURCE_ANNOTATION, inject_storage

INFERENCE_SERVICE_LABEL = "serving.kserve.io/inferenceservice"
DEFAULT_PORT = 8080
_SERVICE_PORT = 80

_OWN_MODEL_FIELDS = (
    "modelFormat",
    "runtime",
    "storageUri",
    "storage",
    "protocolVersion",
    "runtimeVersion",
)
_EXTENSION_FIELDS = (
    "minReplicas",
    "maxReplicas",
    "scaleTarget",
    "scaleMetric",
    "scaleMetricType",
    "autoScaling",
    "containerConcurrency",
    "timeout",
    "canaryTrafficPercent",
    "logger",
    "batcher",
    "labels",
    "annotations",
    "deploymentStrategy",
)
_STRATEGY = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
}
_RUNTIME_POD_FIELDS = ("nodeSelector", "affinity", "tolerations", "volumes", "imagePullSecrets")
_NOT_HANDED_DOWN = (
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    SOURCE_ANNOTATION,
    "kubectl.kubernetes.io/last-applied-configuration",
)
_GPU_TAGGED_RUNTIMES = (
    "kserve-tensorflow-serving",
    "kserve-torchserve",
    "kserve-huggingfaceserver",
)
_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_FIELD = re.compile(r"\.(Name|Namespace)|\.(Labels|Annotations)\.([A-Za-z_][A-Za-z0-9_]*)")
_TAG = re.compile(r":[\w.\-]*$")


def predictor_name(service: Manifest) -> str:
    """Name of the predictor's Deployment and Service."""
    return f"{service['metadata']['name']}-predictor"


def app_label(service: Manifest) -> str:
    """Value of the pods' label `app`, by which Deployment and Service select them."""
    return f"isvc.{predictor_name(service)}"


def build_deployment(
    service: Manifest, runtime: Manifest | None, *, storage_env: Iterable[Manifest] = ()
) -> Manifest:
    """Build the predictor's Deployment.

    Args:
        service: The InferenceService.
        runtime: The runtime of its model; None for custom containers.
        storage_env: Environment of the storage initializer.

    Raises:
        PredictorProblemError: Runtime and InferenceService do not make a pod.
    """
    predictor = service["spec"]["predictor"]
    metadata = _build_metadata(service, runtime["spec"] if runtime else {})
    template = {
        "metadata": deepcopy({key: metadata[key] for key in ("labels", "annotations")}),
        "spec": _build_pod_spec(service, runtime),
    }
    if source := find_storage_uri(predictor):
        inject_storage(template, source, env=list(storage_env))
    _default_probe(template["spec"])
    min_replicas = predictor.get("minReplicas")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": max(1, 1 if min_replicas is None else min_replicas),
            "selector": {"matchLabels": {"app": app_label(service)}},
            "template": template,
            "strategy": predictor.get("deploymentStrategy") or deepcopy(_STRATEGY),
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
    }


def build_service(service: Manifest, deployment: Manifest) -> Manifest:
    """Build the Service in front of the predictor's pods."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    front = next((c for c in containers if c["name"] == TRANSFORMER_CONTAINER), containers[0])
    ports = front.get("ports") or [{"name": predictor_name(service), "containerPort": DEFAULT_PORT}]
    metadata = deepcopy(deployment["metadata"])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": {"app": app_label(service)},
            "ports": [
                {
                    **({"name": port["name"]} if port.get("name") else {}),
                    "port": port["containerPort"] if index else _SERVICE_PORT,
                    "targetPort": port["containerPort"],
                    "protocol": port.get("protocol") or "TCP",
                }
                for index, port in enumerate(ports)
            ],
        },
    }


def find_storage_uri(predictor: Manifest) -> str:
    """Where the model is; empty when nothing has to be fetched."""
    if model := predictor.get("model"):
        return str(model.get("storageUri") or "")
    for container in predictor.get("containers") or []:
        if container.get("name") == PREDICTOR_CONTAINER:
            env = {item["name"]: item.get("value") for item in container.get("env") or []}
            return str(env.get("STORAGE_URI") or "")
    return ""


def _build_metadata(service: Manifest, runtime_spec: Manifest) -> Manifest:
    metadata, predictor = service["metadata"], service["spec"]["predictor"]
    annotations = {
        **(runtime_spec.get("annotations") or {}),
        **(metadata.get("annotations") or {}),
        **(predictor.get("annotations") or {}),
    }
    return {
        "name": predictor_name(service),
        "namespace": metadata["namespace"],
        "labels": {
            **(runtime_spec.get("labels") or {}),
            **(metadata.get("labels") or {}),
            **(predictor.get("labels") or {}),
            "app": app_label(service),
            INFERENCE_SERVICE_LABEL: metadata["name"],
            "component": "predictor",
        },
        "annotations": {
            key: value for key, value in annotations.items() if key not in _NOT_HANDED_DOWN
        },
        "ownerReferences": [build_owner_reference(service)],
    }


def _build_pod_spec(service: Manifest, runtime: Manifest | None) -> Manifest:
    predictor = deepcopy(service["spec"]["predictor"])
    model = predictor.pop("model", None)
    predictor.pop("workerSpec", None)
    own = {key: value for key, value in predictor.items() if key not in _EXTENSION_FIELDS}
    if model is None or runtime is None:
        return own
    if model.get("storage"):
        raise PredictorProblemError(
            "storage is not served by the embedded control plane; use storageUri",
            reason="InvalidPredictorSpec",
        )
    base = {key: runtime["spec"][key] for key in _RUNTIME_POD_FIELDS if key in runtime["spec"]}
    added = own.pop("containers", None) or []
    pod_spec: Manifest = apply_strategic_patch(deepcopy(base), own)
    pod_spec["containers"] = _merge_containers(service, model, runtime, added)
    return pod_spec


def _merge_containers(
    service: Manifest, model: Manifest, runtime: Manifest, added: list[Manifest]
) -> list[Manifest]:
    offered = {container["name"]: container for container in runtime["spec"].get("containers", [])}
    if PREDICTOR_CONTAINER not in offered:
        raise PredictorProblemError(
            f"failed to find {PREDICTOR_CONTAINER} in ServingRuntime containers",
            reason="InvalidPredictorSpec",
        )
    override = {key: value for key, value in model.items() if key not in _OWN_MODEL_FIELDS}
    server = _merge_container(offered.pop(PREDICTOR_CONTAINER), override)
    server = _fill_placeholders(server, service, runtime)
    _choose_image(server, model, runtime)
    containers = [server]
    own = {container["name"]: container for container in added}
    if TRANSFORMER_CONTAINER in offered or TRANSFORMER_CONTAINER in own:
        transformer = _merge_container(
            offered.pop(TRANSFORMER_CONTAINER, {}), own.pop(TRANSFORMER_CONTAINER, {})
        )
        containers.append(_fill_placeholders(transformer, service, runtime))
    return [*containers, *deepcopy(list(offered.values())), *own.values()]


def _merge_container(base: Manifest, override: Manifest) -> Manifest:
    """Strategic merge in which `override` wins, except that its args follow those of `base`."""
    name = base.get("name") or override.get("name")
    args = [*(base.get("args") or []), *(override.get("args") or [])]
    merged: Manifest = apply_strategic_patch(
        {"containers": [{**deepcopy(base), "name": name}]},
        {"containers": [{**deepcopy(override), "name": name}]},
    )["containers"][0]
    if args:
        merged["args"] = args
    return merged


def _fill_placeholders(container: Manifest, service: Manifest, runtime: Manifest) -> Manifest:
    metadata = service["metadata"]

    def fill(match: re.Match[str]) -> str:
        found = _FIELD.fullmatch(match[1])
        if found is None:
            raise PredictorProblemError(
                "failed to replace placeholders in serving runtime"
                f" {runtime['metadata']['name']} Container {container['name']}",
                reason="InvalidPredictorSpec",
            )
        plain, mapping, key = found.groups()
        if plain:
            value = metadata[plain.lower()]
        else:
            value = (metadata.get(mapping.lower()) or {}).get(key, "<no value>")
        return json.dumps(value)[1:-1]

    filled: Manifest = json.loads(_PLACEHOLDER.sub(fill, json.dumps(container)))
    return filled


def _choose_image(container: Manifest, model: Manifest, runtime: Manifest) -> None:
    image = str(container.get("image", ""))
    limits = (container.get("resources") or {}).get("limits") or {}
    if version := model.get("runtimeVersion"):
        container["image"] = _TAG.sub("", image) + f":{version}"
    elif (
        str(limits.get("nvidia.com/gpu", "0")) != "0"
        and runtime["metadata"]["name"] in _GPU_TAGGED_RUNTIMES
        and _TAG.search(image)
        and not image.endswith("-gpu")
    ):
        container["image"] = f"{image}-gpu"


def _default_probe(pod_spec: Manifest) -> None:
    """KServe's readiness probe where the container brings none."""
    containers: list[dict[str, Any]] = pod_spec["containers"]
    for container in containers:
        if container["name"] not in (PREDICTOR_CONTAINER, TRANSFORMER_CONTAINER):
            continue
        ports = container.get("ports") or [{"containerPort": DEFAULT_PORT}]
        container.setdefault(
            "readinessProbe",
            {
                "tcpSocket": {"port": ports[0]["containerPort"]},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
        )
