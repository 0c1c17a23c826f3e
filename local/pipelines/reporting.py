"""What clients report of artifacts, checked and turned into records.

A step may tell of artifacts that it made or took beside those that the pipeline declares.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeloop.local.pipelines.messages import as_message, choice, optional_number, required, text
from kubeloop.local.pipelines.rendering import ARTIFACT_TYPES
from kubeloop.local.pipelines.rpc_errors import invalid, not_found
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.spec.values import canonical
from kubeloop.local.pipelines.storage.records import (
    Artifact,
    ArtifactTask,
    InputKind,
    Origin,
    Task,
    attempt_number,
    new_id,
)

_ARTIFACT_REQUEST = (
    "artifact",
    "run_id",
    "task_id",
    "type",
    "producer_task_name",
    "producer_key",
    "iteration_index",
)
_ARTIFACT = (
    "artifact_id",
    "name",
    "description",
    "type",
    "uri",
    "metadata",
    "number_value",
    "created_at",
    "namespace",
)
_RELATION = (
    "id",
    "artifact_id",
    "run_id",
    "task_id",
    "type",
    "producer",
    "producer_task_name",
    "producer_key",
    "key",
    "artifact_key",
)
PRODUCER_FIELDS = ("task_name", "key", "iteration")
_ARTIFACT_KINDS = {name: title for title, name in ARTIFACT_TYPES.items()}
IO_KINDS = ("UNSPECIFIED", *InputKind, "INPUT")
_NEEDS_METADATA = ("ClassificationMetric", "SlicedClassificationMetric")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedArtifact:
    """A new artifact, whose content nobody has looked at, and that its task gave it."""

    artifact: Artifact
    relation: ArtifactTask


class ArtifactReports:
    """Reads reports against what the store holds."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store

    def read_artifact(self, value: Any) -> ReportedArtifact:  # any JSON a client sent
        """Read a `CreateArtifactRequest`.

        Raises:
            RpcError: Something is missing, or the task does not exist.
        """
        message = as_message(value, kind="CreateArtifactRequest", fields=_ARTIFACT_REQUEST)
        written = as_message(message.get("artifact", {}), kind="Artifact", fields=_ARTIFACT)
        if text(written, "artifact_id"):
            raise invalid("The artifact_id of a new artifact is given by the server; leave it out.")
        kind = choice(written, "type", ("TYPE_UNSPECIFIED", *_ARTIFACT_KINDS))
        number = optional_number(written, "number_value")
        metadata = written.get("metadata", {})
        _check_artifact(written, kind=kind, number=number)
        key = required(message, "producer_key", of="an artifact")
        task = self._find_task(message, of="an artifact")
        artifact = Artifact(
            artifact_id=new_id(),
            name=text(written, "name"),
            schema_title=_ARTIFACT_KINDS[kind],
            schema_version="0.0.1",
            uri=text(written, "uri"),
            metadata=canonical(metadata),
            created_at=self._service.clock(),
            namespace=text(written, "namespace"),
            run_id=task.run_id,
            task_id=task.task_id,
            description=text(written, "description"),
            number_value=number,
        )
        relation = _relate(
            task,
            artifact.artifact_id,
            kind=InputKind.OUTPUT,
            key=key,
            producer=Origin(kind=InputKind.OUTPUT, task_name=task.name, key=key),
            iteration=_iteration(message, "iteration_index"),
        )
        return ReportedArtifact(artifact=artifact, relation=relation)

    def read_relation(self, value: Any) -> ArtifactTask:  # any JSON a client sent
        """Read an `ArtifactTask`.

        Raises:
            RpcError: Something is missing, or the task or the artifact does not exist.
        """
        message = as_message(value, kind="ArtifactTask", fields=_RELATION)
        artifact_id = required(message, "artifact_id", of="an artifact_task")
        kind = choice(message, "type", IO_KINDS)
        if kind == "UNSPECIFIED":
            raise invalid(f"The type of an artifact_task is missing; give one of {IO_KINDS[1:]}.")
        producer = as_message(
            message.get("producer", {}), kind="IOProducer", fields=PRODUCER_FIELDS
        )
        producer_name = text(producer, "task_name") or text(message, "producer_task_name")
        if not producer_name:
            raise invalid("The producer of an artifact_task is missing; give its task_name.")
        key = text(message, "key") or text(message, "artifact_key")
        if not key:
            raise invalid(
                "The key of an artifact_task is missing: the name of the input or output."
            )
        task = self._find_task(message, of="an artifact_task")
        if self._store.artifacts.get(artifact_id) is None:
            raise not_found("Artifact", artifact_id)
        known = InputKind.COMPONENT_INPUT if kind == "INPUT" else InputKind(kind)
        producer_key = text(producer, "key") or text(message, "producer_key") or key
        return _relate(
            task,
            artifact_id,
            kind=known,
            key=key,
            producer=Origin(kind=known, task_name=producer_name, key=producer_key),
            iteration=_iteration(producer, "iteration"),
        )

    def _find_task(self, message: Mapping[str, Any], *, of: str) -> Task:
        run_id = required(message, "run_id", of=of)
        task_id = required(message, "task_id", of=of)
        task = self._store.tasks.get(task_id)
        if task is None:
            raise not_found("Task", task_id)
        if task.run_id != run_id:
            raise invalid(f"Task {task_id!r} belongs to run {task.run_id!r}, not to {run_id!r}.")
        return task


def _check_artifact(written: Mapping[str, Any], *, kind: str, number: float | None) -> None:
    for name in ("name", "namespace"):
        required(written, name, of="an artifact")
    if kind == "TYPE_UNSPECIFIED":
        raise invalid(f"The type of an artifact is missing; give one of {list(_ARTIFACT_KINDS)}.")
    metadata = written.get("metadata", {})
    if not isinstance(metadata, dict):
        raise invalid(f"The metadata of an artifact is an object, not {metadata!r}.")
    if kind == "Metric" and number is None:
        raise invalid("An artifact of type Metric needs a number_value.")
    if kind in _NEEDS_METADATA and not metadata:
        raise invalid(f"An artifact of type {kind} needs metadata.")


def _relate(
    task: Task,
    artifact_id: str,
    *,
    kind: InputKind,
    key: str,
    producer: Origin,
    iteration: int | None,
) -> ArtifactTask:
    identity = f"{kind}/{key}/{artifact_id}"
    return ArtifactTask(
        id=str(uuid.uuid5(uuid.UUID(task.task_id), identity)),
        artifact_id=artifact_id,
        run_id=task.run_id,
        task_id=task.task_id,
        type=kind,
        key=key,
        producer_task_name=producer.task_name,
        producer_key=producer.key,
        iteration=iteration,
        reported_by=attempt_number(task),
    )


def _iteration(message: Mapping[str, Any], name: str) -> int | None:
    number = optional_number(message, name)
    return None if number is None else int(number)
