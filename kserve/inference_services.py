"""Typed configuration of an endpoint, and the builder of its InferenceService.

The object is KServe's own (`V1beta1InferenceService`), so that it is created through the official
client on a laptop and on a cluster alike. It says where the model came from in annotations: that is
what lineage starts from when it is asked about an endpoint.

`kserve` takes seconds to import, so only the functions that build its objects import it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import EndpointAnnotation
from kubeloop.kserve.runtime import MODEL_FORMAT, RUNTIME_NAME, VARIANT_VARIABLE
from kubeloop.optional_imports import import_from_extra

if TYPE_CHECKING:
    from kserve import V1beta1InferenceService, V1beta1PredictorSpec

API_VERSION = "serving.kserve.io/v1beta1"
DEPLOYMENT_MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
CONFIGURATION_ANNOTATION = "kubeloop.dev/configuration-digest"
"""Digest of the configuration; KServe hands it down to the pods, so a rollout can be recognised."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME_LENGTH = 63 - len("isvc.-predictor")  # the pods' label `app` is a label value
_SCHEMES = ("gs", "s3", "pvc", "file", "https", "http", "hdfs", "webhdfs", "oci", "hf")
_NO_STRINGS: Mapping[str, str] = MappingProxyType({})


class Protocol(StrEnum):
    """Protocol that the endpoint speaks first; the model server answers both."""

    V1 = "v1"
    V2 = "v2"


class DeploymentMode(StrEnum):
    """How KServe runs the predictor."""

    RAW = "RawDeployment"
    SERVERLESS = "Serverless"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProvenance:
    """Where a model came from, as an endpoint's annotations record it."""

    model_digest: str = ""
    """Digest of the model package."""
    run_id: str = ""
    """Pipeline run that deployed it."""
    dataset_version: str = ""
    """Version hash of the dataset commit that it was trained on."""
    training_job: str = ""
    """Training job that wrote it, `<namespace>/<name>`."""

    def to_annotations(self) -> dict[str, str]:
        """Render what is known as annotations."""
        named = {
            EndpointAnnotation.MODEL_DIGEST.value: self.model_digest,
            EndpointAnnotation.RUN_ID.value: self.run_id,
            EndpointAnnotation.VERSION_HASH.value: self.dataset_version,
            EndpointAnnotation.TRAINING_JOB.value: self.training_job,
        }
        return {key: value for key, value in named.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceServiceConfig:
    """One endpoint: which model, on which runtime, with which resources."""

    name: str
    """Name of the endpoint, and of the model in its URLs."""
    namespace: str = "default"
    """Namespace of the InferenceService."""
    model_uri: str
    """The model package: an absolute path or a URI that KServe's storage initializer reads."""
    model_format: str = MODEL_FORMAT
    """Format of the package; `kubeloop` is what our training programs write."""
    runtime: str = RUNTIME_NAME
    """ServingRuntime or ClusterServingRuntime; empty lets KServe choose by format and protocol."""
    variant: str = ""
    """Form of the model that is served, `onnx` or `int8`, where its package holds it; empty: the
    original."""
    protocol: Protocol = Protocol.V2
    """Protocol that the runtime must support."""
    min_replicas: int = 1
    """Pods at least; 0 scales to none where the deployment mode can."""
    max_replicas: int = 0
    """Pods at most; 0 is no limit."""
    cpu: str = "1"
    """CPU request and limit of the model server; it computes on as many threads."""
    memory: str = "2Gi"
    """Memory request and limit of the model server."""
    num_gpus: int = 0
    """GPUs of the model server (`nvidia.com/gpu`)."""
    env: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Environment of the model server."""
    service_account: str = ""
    """Service account whose secrets read the model store; empty is the namespace's default."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Labels of the InferenceService; KServe hands them down to the pods."""
    run_labels: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Labels that name the run which deploys; one that changes nothing else leaves them as they
    are, since a new label would restart the pods."""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Further annotations of the InferenceService."""
    provenance: ModelProvenance = field(default_factory=ModelProvenance)
    """Where the model came from."""
    deployment_mode: DeploymentMode | None = None
    """How the predictor runs; None is the cluster's default."""

    def __post_init__(self) -> None:
        """Refuse what KServe would refuse later, less clearly."""
        if not _NAME.fullmatch(self.name) or len(self.name) > _MAX_NAME_LENGTH:
            raise InputError(
                f"Endpoint name {self.name!r} is not usable: use at most {_MAX_NAME_LENGTH}"
                " lower-case letters, digits and '-', starting with a letter."
            )
        _check_model_uri(self.model_uri)
        for name, count in (
            ("min_replicas", self.min_replicas),
            ("max_replicas", self.max_replicas),
            ("num_gpus", self.num_gpus),
        ):
            if count < 0:
                raise InputError(f"{name} must be 0 or more, not {count!r}.")
        if self.max_replicas and self.min_replicas > self.max_replicas:
            raise InputError(
                f"min_replicas {self.min_replicas!r} is above max_replicas {self.max_replicas!r}."
            )


def _check_model_uri(uri: str) -> None:
    scheme, separator, _ = uri.partition("://")
    usable = scheme in _SCHEMES if separator else uri.startswith("/")
    if not usable:
        raise InputError(
            f"Model URI {uri!r} cannot be served: give an absolute path or a URI of one of "
            + ", ".join(f"{known}://" for known in _SCHEMES)
            + "."
        )


def build_inference_service(config: InferenceServiceConfig) -> V1beta1InferenceService:
    """Build the InferenceService of an endpoint.

    Raises:
        MissingDependencyError: KServe's SDK is not installed.
    """
    with import_from_extra("kserve", why="Endpoints need KServe's SDK"):
        from kserve import V1beta1InferenceService, V1beta1InferenceServiceSpec
        from kubernetes.client import V1ObjectMeta
    return V1beta1InferenceService(
        api_version=API_VERSION,
        kind="InferenceService",
        metadata=V1ObjectMeta(
            name=config.name,
            namespace=config.namespace,
            labels={**config.labels, **config.run_labels} or None,
            annotations=build_annotations(config),
        ),
        spec=V1beta1InferenceServiceSpec(predictor=_build_predictor(config)),
    )


def build_annotations(config: InferenceServiceConfig) -> dict[str, str]:
    """Annotations of the InferenceService: the caller's, the model's origin, the digest."""
    annotations = {
        **config.annotations,
        EndpointAnnotation.MODEL_URI.value: config.model_uri,
        **config.provenance.to_annotations(),
    }
    if config.deployment_mode is not None:
        annotations[DEPLOYMENT_MODE_ANNOTATION] = config.deployment_mode.value
    annotations[CONFIGURATION_ANNOTATION] = digest_configuration(config, annotations)
    return annotations


def digest_configuration(config: InferenceServiceConfig, annotations: Mapping[str, str]) -> str:
    """Digest of everything that shapes the pods, the run that deploys them aside."""
    shape = {
        "model": [config.model_uri, config.model_format, config.runtime, config.protocol.value],
        "replicas": [config.min_replicas, config.max_replicas],
        "resources": [config.cpu, config.memory, config.num_gpus],
        "env": _build_environment(config),
        "service_account": config.service_account,
        "labels": dict(config.labels),
        "annotations": dict(annotations),
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


def _build_environment(config: InferenceServiceConfig) -> dict[str, str]:
    return {**config.env, **({VARIANT_VARIABLE: config.variant} if config.variant else {})}


def _build_predictor(config: InferenceServiceConfig) -> V1beta1PredictorSpec:
    from kserve import V1beta1ModelFormat, V1beta1ModelSpec, V1beta1PredictorSpec
    from kubernetes.client import V1EnvVar, V1ResourceRequirements

    environment = _build_environment(config)
    quantities = {"cpu": config.cpu, "memory": config.memory}
    if config.num_gpus:
        quantities["nvidia.com/gpu"] = str(config.num_gpus)
    return V1beta1PredictorSpec(
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas or None,
        service_account_name=config.service_account or None,
        model=V1beta1ModelSpec(
            model_format=V1beta1ModelFormat(name=config.model_format),
            runtime=config.runtime or None,
            protocol_version=config.protocol.value,
            storage_uri=config.model_uri,
            env=[V1EnvVar(name=name, value=value) for name, value in environment.items()] or None,
            resources=V1ResourceRequirements(requests=dict(quantities), limits=dict(quantities)),
        ),
    )
