"""Records as nodes: what an artifact, a task, a run or an endpoint is called and identified by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubeloop.components.provenance import DatasetKey, ModelKey, TrialsKey, digest_of
from kubeloop.kserve.endpoints import Endpoint, EndpointAnnotation
from kubeloop.pipelines.lineage.graph import LineageKind, LineageNode
from kubeloop.pipelines.metadata import Artifact, RunRecord, TaskRecord

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_KINDS = {"Model": LineageKind.MODEL, "Dataset": LineageKind.DATASET}


def describe_artifact(artifact: Artifact) -> LineageNode:
    """An artifact: by URI and digest, or by its identifier where it has no URI."""
    kind = _KINDS.get(artifact.type, LineageKind.ARTIFACT)
    digest = digest_of_artifact(artifact)
    place = f"{artifact.uri}#{digest}" if artifact.uri else artifact.artifact_id
    return LineageNode(
        key=f"artifact:{place}",
        kind=kind,
        id=_name_artifact(artifact, digest),
        uri=artifact.uri,
        digest=digest,
        details={"type": artifact.type, "name": artifact.name, "metadata": dict(artifact.metadata)},
    )


def _name_artifact(artifact: Artifact, digest: str) -> str:
    recorded = artifact.metadata
    if DatasetKey.VERSION_HASH in recorded and recorded.get(DatasetKey.NAME):
        return f"{recorded[DatasetKey.NAME]}@{recorded[DatasetKey.VERSION_HASH]}"
    if ModelKey.JOB in recorded and digest:
        return artifact.uri.rstrip("/").rpartition("/")[2]
    return artifact.name or artifact.uri.rstrip("/").rpartition("/")[2] or artifact.artifact_id


def digest_of_artifact(artifact: Artifact) -> str:
    """The digest by which an artifact is recorded: its producer's, else the backend's."""
    for key in (ModelKey.DIGEST, DatasetKey.VERSION_HASH, "sha256"):
        found = _DIGEST.fullmatch(str(artifact.metadata.get(key, "")))
        if found:
            return f"sha256:{found[1]}"
    return artifact.digest


def describe_task(task: TaskRecord) -> LineageNode:
    """A task of a run."""
    facts = {
        "run_id": task.run_id,
        "task_id": task.task_id,
        "state": task.state,
        "is_cached": task.is_cached,
        "started": task.start_time,
        "ended": task.end_time,
        "inputs": dict(task.input_parameters),
        "outputs": dict(task.output_parameters),
        "error": task.error,
    }
    return LineageNode(
        key=f"task:{task.task_id}",
        kind=LineageKind.TASK,
        id=task.name,
        details=_present(facts),
    )


def describe_run(run_id: str, run: RunRecord | None = None) -> LineageNode:
    """A run; with its facts where they were read."""
    facts: dict[str, Any] = {}
    if run is not None:
        facts = {
            "name": run.name,
            "pipeline": run.pipeline,
            "state": run.state,
            "created": run.created_at,
            "finished": run.finished_at,
            "error": run.error,
        }
    return LineageNode(
        key=f"run:{run_id}", kind=LineageKind.RUN, id=run_id, details=_present(facts)
    )


def describe_endpoint(endpoint: Endpoint) -> LineageNode:
    """An InferenceService; its digest is of the model's URI and digest that it names."""
    annotations = endpoint.annotations
    model_digest = annotations.get(EndpointAnnotation.MODEL_DIGEST, "")
    identity = f"{endpoint.namespace}/{endpoint.name}"
    return LineageNode(
        key=f"endpoint:{identity}",
        kind=LineageKind.ENDPOINT,
        id=identity,
        uri=endpoint.url,
        digest=digest_of([model_uri_of(endpoint), model_digest]),
        details=_present(
            {
                "run_id": annotations.get(EndpointAnnotation.RUN_ID, ""),
                "model_digest": model_digest,
                "ready": endpoint.is_ready,
                "created": endpoint.created_at,
            }
        ),
    )


def model_uri_of(endpoint: Endpoint) -> str:
    """Where the model lies that an endpoint serves."""
    return endpoint.annotations.get(EndpointAnnotation.MODEL_URI, "") or endpoint.model_uri


def describe_unknown_model(endpoint: Endpoint) -> LineageNode:
    """The model of an endpoint that no artifact of the record is."""
    uri = model_uri_of(endpoint)
    digest = endpoint.annotations.get(EndpointAnnotation.MODEL_DIGEST, "")
    return LineageNode(
        key=f"artifact:{uri}#{digest}",
        kind=LineageKind.MODEL,
        id=uri.rstrip("/").rpartition("/")[2],
        uri=uri,
        digest=digest,
        note="the record holds no artifact at this URI",
    )


def describe_job(model: Artifact) -> LineageNode | None:
    """The training job that a model names."""
    name = str(model.metadata.get(ModelKey.JOB, ""))
    if not name:
        return None
    return LineageNode(
        key=f"training_job:{name}",
        kind=LineageKind.TRAINING_JOB,
        id=name,
        uri=f"pytorchjobs/{name}",
        digest=str(model.metadata.get(ModelKey.JOB_DIGEST, "")),
        details={"hyperparameters": model.metadata.get(ModelKey.HYPERPARAMETERS, {})},
    )


def describe_code(model: Artifact) -> LineageNode | None:
    """The user's own program that a model's training job ran; the archive's name is its hash."""
    uri = str(model.metadata.get(ModelKey.CODE_URI, ""))
    if not uri:
        return None
    name = uri.rpartition("/")[2].removesuffix(".zip")
    digest = _DIGEST.fullmatch(name)
    return LineageNode(
        key=f"code:{uri}",
        kind=LineageKind.CODE,
        id=name,
        uri=uri,
        digest=f"sha256:{digest[1]}" if digest else "",
    )


def describe_search(trials: Artifact) -> tuple[LineageNode, LineageNode]:
    """The experiment and the best trial that a table of trials names."""
    recorded = trials.metadata
    experiment = str(recorded.get(TrialsKey.EXPERIMENT, ""))
    trial = str(recorded[TrialsKey.TRIAL])
    return (
        LineageNode(
            key=f"experiment:{experiment}",
            kind=LineageKind.EXPERIMENT,
            id=experiment,
            uri=f"experiments/{experiment}",
            details=_present({"num_trials": recorded.get("num_trials")}),
        ),
        LineageNode(
            key=f"trial:{experiment}/{trial}",
            kind=LineageKind.TRIAL,
            id=trial,
            uri=f"experiments/{experiment}/trials/{trial}",
            digest=str(recorded.get(TrialsKey.TRIAL_DIGEST, "")),
            details={"parameters": recorded.get(TrialsKey.PARAMETERS, {})},
        ),
    )


def describe_unknown_trial(name: str) -> LineageNode:
    """A trial that a model names and no table of trials holds."""
    return LineageNode(
        key=f"trial:{name}",
        kind=LineageKind.TRIAL,
        id=name,
        note="the record of the run holds no experiment with this trial",
    )


def describe_source(dataset: Artifact) -> LineageNode | None:
    """The raw data that a dataset names."""
    uri = str(dataset.metadata.get(DatasetKey.SOURCE_URI, ""))
    if not uri:
        return None
    digest = _DIGEST.fullmatch(str(dataset.metadata.get(DatasetKey.SOURCE_DIGEST, "")))
    return LineageNode(
        key=f"source:{uri}#{digest[1] if digest else ''}",
        kind=LineageKind.SOURCE,
        id=uri.rstrip("/").rpartition("/")[2],
        uri=uri,
        digest=f"sha256:{digest[1]}" if digest else "",
    )


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", {}, False)}
