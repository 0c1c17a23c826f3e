"""What a container task gets: its executor input, its folder, its Pod.

The contract is that of KFP's launcher. One thing differs: the paths handed to the task lie in the
folder of the attempt, under the run's root, and not in `/tmp`; so two tasks (or two tries of one)
never share a path, and nothing has to be uploaded unless the root is in an object store.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.node import SHUTDOWN_GRACE_ANNOTATION
from kubeloop.local.pipelines.engine.object_stores import parse_location
from kubeloop.local.pipelines.engine.placeholders import (
    Scope,
    resolve_arguments,
    resolve_text,
)
from kubeloop.local.pipelines.engine.task_config import PodParts, find_input, forward
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.kubernetes_config import PodSettings
from kubeloop.local.pipelines.spec.uris import is_local, local_path
from kubeloop.local.pipelines.spec.values import JsonValue
from kubeloop.local.pipelines.storage.records import Artifact, Attempt, Task

RUN_LABEL = "pipeline/runid"
COMPONENT_LABEL = "pipelines.kubeflow.org/v2_component"
TASK_ANNOTATION = "kubeloop.dev/task"
TASK_ID_ANNOTATION = "kubeloop.dev/task-id"
PIPELINE_ANNOTATION = "kubeloop.dev/pipeline"
CONTAINER_NAME = "main"
GRACE_PERIOD_SECONDS = 30

_OUTPUT_FILE = "output_metadata.json"
_PARAMETER_FOLDER = ".parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything about one attempt that is settled before it starts."""

    container: ir.ContainerSpec
    component: ir.Component
    parameters: Mapping[str, JsonValue]
    """The inputs that the component declares."""
    artifacts: Mapping[str, Sequence[Artifact]]
    folder: Path
    uri: str = ""
    """Of the folder, where it is the copy of one in an object store."""
    facts: Mapping[str, str] = field(default_factory=dict)
    extra_parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    """Inputs of the task beside those of the component: for placeholders only."""

    @property
    def output_file(self) -> Path:
        """Where the task may describe its outputs."""
        return self.folder / _OUTPUT_FILE

    def parameter_file(self, name: str) -> Path:
        """Where the task may write an output parameter."""
        return self.folder / _PARAMETER_FOLDER / name

    def artifact_uri(self, name: str) -> str:
        """Where the task is to write an output artifact."""
        return f"{self.uri}/{name}" if self.uri else str(self.folder / name)

    def is_own(self, uri: str) -> bool:
        """Whether a URI is of something in the attempt's folder in an object store."""
        return bool(self.uri) and uri.startswith(f"{self.uri}/")

    def locate(self, uri: str) -> Path | None:
        """The path at which the task wrote an artifact; None where that is not on this machine."""
        if self.is_own(uri):
            return self.folder / uri.removeprefix(f"{self.uri}/")
        return Path(local_path(uri)) if is_local(uri) else None

    @property
    def remote_inputs(self) -> tuple[Artifact, ...]:
        """Input artifacts that are in object stores."""
        given = [artifact for artifacts in self.artifacts.values() for artifact in artifacts]
        return tuple(artifact for artifact in given if parse_location(artifact.uri))

    @property
    def remote_uris(self) -> tuple[str, ...]:
        """Where those are."""
        return tuple(artifact.uri for artifact in self.remote_inputs)


def safe_name(name: str) -> str:
    """A name as one part of a path: what is no letter, digit, dot or dash becomes a dash."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".")
    return cleaned or "unnamed"


def pod_name(task: Task, *, number: int) -> str:
    """The one name of this attempt's Pod, the same whenever it is computed."""
    digest = hashlib.sha256(f"{task.run_id}/{task.path}/{number}".encode()).hexdigest()[:12]
    slug = re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-")[:40].strip("-")
    return f"{slug or 'task'}-{digest}"


def render_artifact(artifact: Artifact) -> dict[str, Any]:
    """A `RuntimeArtifact` of the executor input."""
    return {
        "name": artifact.name,
        "type": {
            "schemaTitle": artifact.schema_title,
            "schemaVersion": artifact.schema_version,
        },
        "uri": artifact.uri,
        "metadata": artifact.metadata,
    }


def build_executor_input(plan: Plan) -> dict[str, Any]:
    """The executor input: what KFP's SDK parses to call the user's function."""
    component = plan.component
    outputs: dict[str, Any] = {"outputFile": str(plan.output_file)}
    if component.output_parameters:
        outputs["parameters"] = {
            name: {"outputFile": str(plan.parameter_file(name))}
            for name in component.output_parameters
        }
    if component.output_artifacts:
        outputs["artifacts"] = {
            name: {"artifacts": [_planned_artifact(plan, name, spec)]}
            for name, spec in component.output_artifacts.items()
        }
    inputs: dict[str, Any] = {}
    if plan.parameters:
        inputs["parameterValues"] = dict(plan.parameters)
    if plan.artifacts:
        inputs["artifacts"] = {
            name: {"artifacts": [render_artifact(artifact) for artifact in artifacts]}
            for name, artifacts in plan.artifacts.items()
        }
    return {"inputs": inputs, "outputs": outputs}


def _planned_artifact(plan: Plan, name: str, spec: ir.ArtifactSpec) -> dict[str, Any]:
    return {
        "name": name,
        "type": {"schemaTitle": spec.schema_title, "schemaVersion": spec.schema_version},
        "uri": plan.artifact_uri(name),
        "metadata": dict(spec.metadata),
    }


def prepare_folder(plan: Plan) -> None:
    """Make the folders that the task writes into."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    if plan.component.output_parameters:
        (plan.folder / _PARAMETER_FOLDER).mkdir(exist_ok=True)


def _build_scope(plan: Plan, executor_input: dict[str, Any]) -> Scope:
    inputs, outputs = executor_input["inputs"], executor_input["outputs"]
    return Scope(
        parameters={**plan.extra_parameters, **plan.parameters},
        facts={**plan.facts, "outputs.output_file": str(plan.output_file)},
        input_artifacts={
            name: found["artifacts"] for name, found in inputs.get("artifacts", {}).items()
        },
        output_artifacts={
            name: found["artifacts"] for name, found in outputs.get("artifacts", {}).items()
        },
        output_files={
            name: found["outputFile"] for name, found in outputs.get("parameters", {}).items()
        },
        executor_input=json.dumps(executor_input, ensure_ascii=False, separators=(",", ":")),
    )


def build_pod(
    plan: Plan, *, task: Task, attempt: Attempt, settings: PodSettings, namespace: str
) -> Manifest:
    """Render the Pod that runs one attempt.

    Raises:
        InputError: The command names an input or output that has no value.
    """
    scope = _build_scope(plan, build_executor_input(plan))
    parts = PodParts(
        env=[*_build_given_env(plan, scope), *settings.env],
        resources=_build_resources(plan.container.resources, scope),
        volumes=settings.volumes,
        mounts=settings.mounts,
    )
    if name := find_input(plan.component):
        value, parts = forward(plan.component, parts, kubernetes=plan.container.kubernetes)
        plan = replace(plan, parameters={**plan.parameters, name: value})
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_PERIOD_SECONDS,
        "activeDeadlineSeconds": settings.active_deadline_seconds,
        "containers": [_build_container(plan, attempt, settings, parts)],
        "volumes": parts.volumes,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": attempt.pod_name,
            "namespace": namespace,
            "labels": {**settings.labels, RUN_LABEL: task.run_id, COMPONENT_LABEL: "true"},
            "annotations": {
                **settings.annotations,
                # NB: a step takes SIGTERM for the end of its run, and deletes what it made.
                SHUTDOWN_GRACE_ANNOTATION: "0",
                TASK_ANNOTATION: task.name,
                TASK_ID_ANNOTATION: task.task_id,
                PIPELINE_ANNOTATION: task.pipeline_name,
            },
        },
        "spec": _present(spec),
    }


def _build_container(
    plan: Plan, attempt: Attempt, settings: PodSettings, parts: PodParts
) -> Manifest:
    scope = _build_scope(plan, build_executor_input(plan))
    return _present(
        {
            "name": CONTAINER_NAME,
            "image": resolve_text(plan.container.image, scope),
            "imagePullPolicy": settings.image_pull_policy,
            "command": resolve_arguments(plan.container.command, scope),
            "args": resolve_arguments(plan.container.args, scope),
            "env": [*_build_own_env(plan, attempt), *parts.env],
            "resources": parts.resources,
            "volumeMounts": parts.mounts,
        }
    )


def _present(values: Manifest) -> Manifest:
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}


def _build_given_env(plan: Plan, scope: Scope) -> list[Manifest]:
    return [
        {"name": name, "value": resolve_text(value, scope)} for name, value in plan.container.env
    ]


def _build_own_env(plan: Plan, attempt: Attempt) -> list[Manifest]:
    return [
        {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KFP_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "KFP_RETRY_INDEX", "value": str(attempt.retry_index)},
        {"name": "KFP_RUN_ID", "value": plan.facts.get("pipeline_job_uuid", "")},
    ]


def _build_resources(resources: ir.Resources, scope: Scope) -> Manifest:
    rendered: Manifest = {}
    for key, quantities in (("requests", resources.requests), ("limits", resources.limits)):
        values = {
            resolve_text(name, scope): resolve_text(quantity, scope)
            for name, quantity in quantities.items()
        }
        if values := {name: quantity for name, quantity in values.items() if quantity != "0"}:
            rendered[key] = values
    return rendered
