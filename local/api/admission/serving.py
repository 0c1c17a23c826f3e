"""KServe's webhook for InferenceService: defaults and rules.

The plane runs predictors as Deployments, so its configured default mode is RawDeployment, and like
KServe's webhook with that configuration it writes the mode into the object. A rule's text is
upstream's, because clients show it.

Source: kserve pkg/apis/serving/v1beta1 (inference_service_defaults.go,
inference_service_validation.go, component.go, predictor.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubeloop.errors import ApiError
from kubeloop.local.api import refusals
from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.resources import INFERENCE_SERVICES
from kubeloop.local.client import Manifest

PREFIX = "serving.kserve.io/"
MODE_ANNOTATION = f"{PREFIX}deploymentMode"
RAW = "RawDeployment"
PREDICTOR_CONTAINER = "kserve-container"
TRANSFORMER_CONTAINER = "transformer-container"

_WEBHOOK = "inferenceservice.kserve-webhook-server.validator"
_NAME_PATTERN = "[a-z]([-a-z0-9]*[a-z0-9])?"
_FRAMEWORKS = (  # in the order in which upstream looks for one to convert
    "sklearn",
    "tensorflow",
    "xgboost",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
_SPEAKS_V2 = ("triton", "onnx", "huggingface")
_PREDICTOR_FIELDS = (
    "SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, LightGBM, Paddle,"
    " Model, WorkerSpec, PodSpec"
)
_ONE_OF = {
    "predictor": ("PredictorSpec", _PREDICTOR_FIELDS),
    "transformer": ("TransformerSpec", "PodSpec"),
    "explainer": ("ExplainerSpec", "ART, PodSpec"),
}
_STORAGE_PREFIXES = (
    "gs://",
    "s3://",
    "pvc://",
    "file://",
    "https://",
    "http://",
    "hdfs://",
    "webhdfs://",
    "oci://",
    "hf://",
)
_AZURE_BLOB = re.compile(r"https://(.+?)\.blob\.core\.windows\.net/(.+)")
_SCHEME = re.compile(r"\w+?://")
_LOGGER_MODES = ("all", "request", "response")
_AUTOSCALERS = ("hpa", "external", "keda", "none")
_INTEGER_FIELDS = (
    "minReplicas",
    "maxReplicas",
    "scaleTarget",
    "containerConcurrency",
    "timeout",
    "canaryTrafficPercent",
)
_DEFAULT_RESOURCES = {"cpu": "1", "memory": "2Gi"}


class InferenceServiceAdmission(Admission):
    """Defaults and rules of `serving.kserve.io/v1beta1` InferenceService."""

    resource = INFERENCE_SERVICES

    def default(self, manifest: Manifest) -> Manifest:
        """Write the mode, turn framework keys into `model`, name and size custom containers."""
        annotations = manifest["metadata"].get("annotations") or {}
        manifest["metadata"]["annotations"] = {MODE_ANNOTATION: RAW, **annotations}
        spec = _mapping(manifest.get("spec"))
        predictor = _mapping(spec.get("predictor"))
        _convert_framework(predictor)
        for component in ("predictor", "transformer", "explainer"):
            if isinstance(spec.get(component), dict):
                _default_containers(spec[component])
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse wrong types as the schema does (422), then a broken rule as the webhook does."""
        if wrong := list(_find_wrong_types(manifest)):
            raise refusals.invalid(INFERENCE_SERVICES, manifest["metadata"]["name"], wrong)
        fault = next(_find_faults(manifest, old), None)
        if fault is not None:
            raise ApiError(
                f'admission webhook "{_WEBHOOK}" denied the request: {fault}',
                status=403,
                reason="Forbidden",
            )


def _mapping(value: Any) -> dict[str, Any]:  # value: any JSON
    return value if isinstance(value, dict) else {}


def _convert_framework(predictor: dict[str, Any]) -> None:
    framework = next((key for key in _FRAMEWORKS if isinstance(predictor.get(key), dict)), None)
    if framework is not None and "model" not in predictor:
        model = predictor.pop(framework)
        if framework in _SPEAKS_V2:
            model.setdefault("protocolVersion", "v2")
        predictor["model"] = {"modelFormat": {"name": framework}, **model}
    model = _mapping(predictor.get("model"))
    if _mapping(model.get("modelFormat")).get("name") == "triton":
        model.setdefault("protocolVersion", "v2")


def _default_containers(component: dict[str, Any]) -> None:
    containers = component.get("containers")
    if (
        not isinstance(containers, list)
        or not containers
        or isinstance(component.get("model"), dict)
    ):
        return
    first = containers[0]
    if not isinstance(first, dict):
        return
    if len(containers) == 1 or not first.get("name"):
        first["name"] = PREDICTOR_CONTAINER
    resources = first.setdefault("resources", {})
    for kind in ("requests", "limits"):
        resources[kind] = {**_DEFAULT_RESOURCES, **(resources.get(kind) or {})}


def _find_wrong_types(manifest: Manifest) -> Iterator[refusals.FieldError]:
    spec = _mapping(manifest.get("spec"))
    for kind in ("predictor", "transformer", "explainer"):
        component = spec.get(kind)
        if component is None:
            continue
        path = f"spec.{kind}"
        if not isinstance(component, dict):
            yield refusals.value_invalid(path, component, f"{path} must be of type object")
            continue
        for field in _INTEGER_FIELDS:
            value = component.get(field)
            if value is not None and type(value) is not int:
                yield refusals.value_invalid(
                    f"{path}.{field}", value, f"{path}.{field} in body must be of type integer"
                )


def _find_faults(manifest: Manifest, old: Manifest | None) -> Iterator[str]:
    if old is not None:
        yield from _check_mode(manifest, old)
    yield from _check_name(manifest["metadata"]["name"])
    annotations = manifest["metadata"].get("annotations") or {}
    autoscaler = annotations.get(f"{PREFIX}autoscalerClass")
    if autoscaler is not None and autoscaler not in _AUTOSCALERS:
        yield f"[{autoscaler}] is not a supported autoscaler class type"
    spec = _mapping(manifest.get("spec"))
    if not isinstance(spec.get("predictor"), dict):
        yield "spec.predictor is required"
        return
    for kind in ("predictor", "transformer", "explainer"):
        if isinstance(spec.get(kind), dict):
            yield from _check_component(kind, spec[kind])
            yield from _check_scaling(spec[kind], annotations)


def _check_mode(manifest: Manifest, old: Manifest) -> Iterator[str]:
    current = _mapping(old.get("status")).get("deploymentMode")
    wanted = (manifest["metadata"].get("annotations") or {}).get(MODE_ANNOTATION)
    if current and wanted is not None and wanted != current:
        yield (f"update rejected: deploymentMode cannot be changed from '{current}' to '{wanted}'")


def _check_name(name: str) -> Iterator[str]:
    if not re.fullmatch(_NAME_PATTERN, name):
        yield (
            f'the InferenceService "{name}" is invalid: a InferenceService name must consist of'
            " lower case alphanumeric characters or '-', and must start with alphabetical"
            f' character. (e.g. "my-name" or "abc-123", regex used for validation is'
            f" '{_NAME_PATTERN}')"
        )


def _check_component(kind: str, component: dict[str, Any]) -> Iterator[str]:
    containers = [item for item in component.get("containers") or [] if isinstance(item, dict)]
    if _count_implementations(kind, component, containers) != 1:
        name, choices = _ONE_OF[kind]
        yield f"exactly one of [{choices}] must be specified in {name}"
        return
    model = _mapping(component.get("model"))
    if kind == "predictor":
        yield from _check_storage_uri(model.get("storageUri"))
        yield from _check_custom(containers, has_model=bool(model))
    if (component.get("containerConcurrency") or 0) < 0:
        yield "parallelism cannot be less than 0"
    yield from _check_replicas(component)
    logger = component.get("logger")
    if isinstance(logger, dict) and logger.get("mode") not in _LOGGER_MODES:
        yield "invalid logger type"


def _count_implementations(
    kind: str, component: dict[str, Any], containers: list[dict[str, Any]]
) -> int:
    if kind == "explainer":
        return ("art" in component) + bool(containers)
    if kind == "transformer":
        return int(bool(containers))
    keys = (*_FRAMEWORKS, "model")
    count = sum(isinstance(component.get(key), dict) for key in keys)
    custom = sum(container.get("name") == PREDICTOR_CONTAINER for container in containers)
    # Containers beside a model are a transformer in the same pod, no second implementation.
    return count + custom or int(bool(containers))


def _check_storage_uri(uri: str | None) -> Iterator[str]:
    if uri is None or not _SCHEME.search(uri):
        return
    azure = ".blob.core.windows.net" in uri
    if not (_AZURE_BLOB.match(uri) if azure else uri.startswith(_STORAGE_PREFIXES)):
        yield (
            "StorageURI not supported: storageUri, must be one of:"
            f" [{', '.join(_STORAGE_PREFIXES)}] or match"
            " https://{}.blob.core.windows.net/{}/{} or be an absolute or relative local"
            f" path. StorageUri [{uri}] is not supported"
        )


def _check_custom(containers: list[dict[str, Any]], *, has_model: bool) -> Iterator[str]:
    for container in containers:
        env = {item.get("name"): item.get("value") for item in container.get("env") or []}
        if container.get("name") == TRANSFORMER_CONTAINER and "STORAGE_URI" in env:
            yield "storage uri should not be specified in transformer container"
        if container is containers[0] and not has_model:
            yield from _check_storage_uri(env.get("STORAGE_URI"))
            if "PROTOCOL" in env and env["PROTOCOL"] not in ("v1", "v2"):
                yield f"invalid protocol {env['PROTOCOL']}. Must be one of [v1, v2]"


def _check_replicas(component: dict[str, Any]) -> Iterator[str]:
    least = component.get("minReplicas")
    least = 1 if least is None else least
    most = component.get("maxReplicas") or 0
    if least < 0:
        yield "'MinReplicas' cannot be less than 0"
    if most < 0:
        yield "'MaxReplicas' cannot be less than 0"
    if most != 0 and least > most:
        yield "'MinReplicas' cannot be greater than MaxReplicas"


def _check_scaling(component: dict[str, Any], annotations: dict[str, str]) -> Iterator[str]:
    metric, target = component.get("scaleMetric"), component.get("scaleTarget")
    if annotations.get(MODE_ANNOTATION) == RAW:
        if annotations.get(f"{PREFIX}autoscalerClass") == "hpa":
            yield from _check_hpa(metric or "cpu", target)
        return
    if "deploymentStrategy" in component:
        yield "customizing deploymentStrategy is only supported for raw deployment mode"
    if (metric or "concurrency") not in ("concurrency", "rps"):
        yield f"[{metric}] is not a supported metric"
    if metric == "rps" and target is not None and target < 1:
        yield "the target for rps should be greater than 1"


def _check_hpa(metric: str, target: int | None) -> Iterator[str]:
    if metric not in ("cpu", "memory"):
        yield f"[{metric}] is not a supported metric"
    if target is None:
        return
    if (metric == "cpu" and target < 1) or target > 100:
        yield "the target utilization percentage should be a [1-100] integer"
    if metric == "memory" and target < 1:
        yield "the target memory should be greater than 1 MiB"
