"""What an InferenceService says about itself, in types.

Everybody who shows or waits for endpoints (CLI, components, lineage) reads them through
`parse_endpoint`, whichever client fetched the object. No SDK is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Manifest = Mapping[str, Any]  # raw JSON of one object


class EndpointAnnotation(StrEnum):
    """Annotations that say where an InferenceService's model came from."""

    MODEL_URI = "kubeloop.dev/model-uri"
    MODEL_DIGEST = "kubeloop.dev/model-digest"
    RUN_ID = "kubeloop.dev/run-id"
    TRAINING_JOB = "kubeloop.dev/training-job"
    VERSION_HASH = "kubeloop.dev/dataset-version"


class TransitionStatus(StrEnum):
    """`status.modelStatus.transitionStatus`."""

    UP_TO_DATE = "UpToDate"
    IN_PROGRESS = "InProgress"
    BLOCKED = "BlockedByFailedLoad"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """`status.modelStatus.lastFailureInfo`."""

    reason: str
    message: str
    exit_code: int | None = None

    def __str__(self) -> str:
        code = "" if self.exit_code is None else f" (exit code {self.exit_code})"
        return f"{self.reason}: {self.message or 'no message'}{code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One InferenceService, as its status describes it."""

    name: str
    namespace: str
    url: str
    """Where it is called; empty until it was ready once."""
    is_ready: bool
    message: str
    """Why it is not ready; empty when it is, or when nobody knows."""
    generation: int
    observed_generation: int
    transition: TransitionStatus
    target_state: str
    """State of the model being rolled out: Pending, Loading, Loaded, FailedToLoad."""
    failure: Failure | None
    model_uri: str
    protocol: str
    deployment_mode: str
    created_at: str
    latest_created_revision: str
    latest_ready_revision: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def predict_path(self) -> str:
        """Path of predictions below `url`."""
        if self.protocol == "v1":
            return f"/v1/models/{self.name}:predict"
        return f"/v2/models/{self.name}/infer"


def parse_endpoint(manifest: Manifest) -> Endpoint:
    """Read an InferenceService, with or without a status."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    predictor = (manifest.get("spec") or {}).get("predictor") or {}
    model = predictor.get("model") or {}
    model_status = status.get("modelStatus") or {}
    revisions = (status.get("components") or {}).get("predictor") or {}
    ready = _find_condition(status, "Ready")
    annotations = metadata.get("annotations") or {}
    return Endpoint(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        url=status.get("url", ""),
        is_ready=ready.get("status") == "True",
        message=_describe(ready),
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        transition=_parse_transition(model_status.get("transitionStatus", "")),
        target_state=(model_status.get("states") or {}).get("targetModelState", ""),
        failure=_parse_failure(model_status.get("lastFailureInfo")),
        model_uri=model.get("storageUri") or annotations.get(EndpointAnnotation.MODEL_URI, ""),
        protocol=model.get("protocolVersion") or "v1",
        deployment_mode=status.get("deploymentMode", ""),
        created_at=metadata.get("creationTimestamp", ""),
        latest_created_revision=revisions.get("latestCreatedRevision", ""),
        latest_ready_revision=revisions.get("latestReadyRevision", ""),
        annotations=annotations,
    )


def _find_condition(status: Manifest, condition_type: str) -> Manifest:
    conditions = status.get("conditions") or []
    return next((entry for entry in conditions if entry.get("type") == condition_type), {})


def _describe(condition: Manifest) -> str:
    if condition.get("status") == "True":
        return ""
    parts = [condition.get("reason", ""), condition.get("message", "")]
    return ": ".join(part for part in parts if part)


def _parse_transition(text: str) -> TransitionStatus:
    known = {status.value for status in TransitionStatus}
    return TransitionStatus(text) if text in known else TransitionStatus.UNKNOWN


def _parse_failure(info: Manifest | None) -> Failure | None:
    if not info:
        return None
    return Failure(
        reason=info.get("reason", ""),
        message=info.get("message", ""),
        exit_code=info.get("exitCode"),
    )
