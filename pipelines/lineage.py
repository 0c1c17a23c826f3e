"""Where an endpoint comes from: model, training job, trial, dataset commit, source.

The chain is read from the InferenceService's annotations and from KFP's record of the run that they
name; nothing is guessed from names. A link that the record does not hold ends the chain there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from kubeloop.components.provenance import (
    DatasetKey,
    ModelKey,
    TrialsKey,
    digest_of,
)
from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import Endpoint, EndpointAnnotation
from kubeloop.pipelines.metadata import Artifact, MetadataSource, TaskRecord


class LineageKind(StrEnum):
    """What a link of the chain is."""

    ENDPOINT = "endpoint"
    MODEL = "model"
    TRAINING_JOB = "training_job"
    TRIAL = "trial"
    DATASET = "dataset"
    SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One link: `digest` is `sha256:…` of its content, empty where nothing was recorded."""

    kind: LineageKind
    id: str
    uri: str
    digest: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The link as JSON."""
        return asdict(self)


def trace_endpoint(endpoint: Endpoint, source: MetadataSource) -> list[LineageNode]:
    """Follow an endpoint back to its raw data.

    Raises:
        InputError: The endpoint was not deployed by a pipeline, or the record has lost its run.
    """
    annotations = endpoint.annotations
    run_id = annotations.get(EndpointAnnotation.RUN_ID, "")
    if not run_id:
        msg = (
            f"Endpoint {endpoint.namespace}/{endpoint.name} has no annotation"
            f" {EndpointAnnotation.RUN_ID}: it was not deployed by a kubeloop pipeline, so nothing"
            " recorded where its model comes from."
        )
        raise InputError(msg)
    model_uri = annotations.get(EndpointAnnotation.MODEL_URI, endpoint.model_uri)
    first = LineageNode(
        kind=LineageKind.ENDPOINT,
        id=f"{endpoint.namespace}/{endpoint.name}",
        uri=endpoint.url,
        digest=digest_of([model_uri, annotations.get(EndpointAnnotation.MODEL_DIGEST, "")]),
        details={"run_id": run_id, "ready": endpoint.is_ready},
    )
    tasks = source.list_tasks(run_id)
    producer, model = _find_model(tasks, model_uri=model_uri, run_id=run_id)
    return [first, *_trace_model(model, producer, tasks=tasks, source=source)]


def _find_model(
    tasks: list[TaskRecord], *, model_uri: str, run_id: str
) -> tuple[TaskRecord, Artifact]:
    for task in tasks:
        for artifacts in task.output_artifacts.values():
            for artifact in artifacts:
                if artifact.uri == model_uri and ModelKey.DIGEST in artifact.metadata:
                    return task, artifact
    msg = f"Run {run_id} has no record of a model at {model_uri}; its record may have been deleted."
    raise InputError(msg)


def _trace_model(
    model: Artifact, producer: TaskRecord, *, tasks: list[TaskRecord], source: MetadataSource
) -> list[LineageNode]:
    recorded = model.metadata
    chain = [
        LineageNode(
            kind=LineageKind.MODEL,
            id=model.uri.rstrip("/").rsplit("/", 1)[-1],
            uri=model.uri,
            digest=str(recorded.get(ModelKey.DIGEST, "")),
            details={"hyperparameters": recorded.get(ModelKey.HYPERPARAMETERS, {})},
        ),
        LineageNode(
            kind=LineageKind.TRAINING_JOB,
            id=str(recorded.get(ModelKey.JOB, "")),
            uri=f"pytorchjobs/{recorded.get(ModelKey.JOB, '')}",
            digest=str(recorded.get(ModelKey.JOB_DIGEST, "")),
            details={"task": producer.name, "run_id": producer.run_id},
        ),
    ]
    chain += _trace_trial(str(recorded.get(ModelKey.TRIAL, "")), tasks=tasks)
    inputs = [artifact for found in producer.input_artifacts.values() for artifact in found]
    for artifact in inputs:
        if DatasetKey.VERSION_HASH in artifact.metadata:
            chain += _trace_dataset(artifact, source=source)
    return chain


def _trace_trial(trial: str, *, tasks: list[TaskRecord]) -> list[LineageNode]:
    for task in tasks:
        for artifacts in task.output_artifacts.values():
            for artifact in artifacts:
                if trial and artifact.metadata.get(TrialsKey.TRIAL) == trial:
                    experiment = artifact.metadata.get(TrialsKey.EXPERIMENT, "")
                    return [
                        LineageNode(
                            kind=LineageKind.TRIAL,
                            id=trial,
                            uri=f"experiments/{experiment}/trials/{trial}",
                            digest=str(artifact.metadata.get(TrialsKey.TRIAL_DIGEST, "")),
                            details={"parameters": artifact.metadata.get(TrialsKey.PARAMETERS, {})},
                        )
                    ]
    return []


def _trace_dataset(dataset: Artifact, *, source: MetadataSource) -> list[LineageNode]:
    recorded = dataset.metadata
    producer = source.find_producer(dataset)
    return [
        LineageNode(
            kind=LineageKind.DATASET,
            id=f"{recorded.get(DatasetKey.NAME, '')}@{recorded[DatasetKey.VERSION_HASH]}",
            uri=dataset.uri,
            digest=_as_digest(recorded[DatasetKey.VERSION_HASH]),
            details={"task": producer.name, "run_id": producer.run_id} if producer else {},
        ),
        LineageNode(
            kind=LineageKind.SOURCE,
            id=str(recorded.get(DatasetKey.SOURCE_URI, "")).rstrip("/").rsplit("/", 1)[-1],
            uri=str(recorded.get(DatasetKey.SOURCE_URI, "")),
            digest=_as_digest(recorded.get(DatasetKey.SOURCE_DIGEST, "")),
        ),
    ]


def _as_digest(text: object) -> str:
    digest = str(text)
    return digest if not digest or ":" in digest else f"sha256:{digest}"
