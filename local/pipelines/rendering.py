"""Records as JSON of the KFP API (v2beta1).

Tasks and artifacts are rendered twice: as `run_details.task_details`, which clients up to KFP 2.17
read, and as the run-scoped tasks and artifacts that follow the removal of ML Metadata. The latter
changed its names between plan and release; both names are given where they differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubeloop.local.pipelines.engine.facts import format_time
from kubeloop.local.pipelines.rpc_errors import RpcCode
from kubeloop.local.pipelines.storage.records import (
    Artifact,
    ArtifactTask,
    Experiment,
    InputKind,
    PipelineRecord,
    PipelineVersion,
    RecurringRun,
    Run,
    StateChange,
    Task,
    TaskState,
    TaskValues,
)

Json = dict[str, Any]

_RUNTIME_STATES = {
    TaskState.CACHED: "SUCCEEDED",
    TaskState.NOT_RUN: "RUNTIME_STATE_UNSPECIFIED",
}
ARTIFACT_TYPES = {
    "system.Artifact": "Artifact",
    "system.Model": "Model",
    "system.Dataset": "Dataset",
    "system.HTML": "HTML",
    "system.Markdown": "Markdown",
    "system.Metrics": "Metric",
    "system.ClassificationMetrics": "ClassificationMetric",
    "system.SlicedClassificationMetrics": "SlicedClassificationMetric",
}


def _present(values: Mapping[str, Any]) -> Json:
    """Leave out what is unset, as the gateway does."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}


def _time(seconds: float) -> str:
    return format_time(seconds) if seconds else ""


def _error(message: str) -> Json:
    return {"code": int(RpcCode.UNKNOWN), "message": message} if message else {}


def _history(changes: Iterable[StateChange]) -> list[Json]:
    return [
        _present(
            {
                "update_time": _time(change.time),
                "state": _RUNTIME_STATES.get(change.state, change.state),  # type: ignore[call-overload]  # a task's or a run's state
                "error": _error(change.message),
            }
        )
        for change in changes
    ]


def render_experiment(experiment: Experiment) -> Json:
    """An `Experiment`."""
    return _present(
        {
            "experiment_id": experiment.experiment_id,
            "display_name": experiment.display_name,
            "description": experiment.description,
            "created_at": _time(experiment.created_at),
            "namespace": experiment.namespace,
            "storage_state": experiment.storage_state,
            "last_run_created_at": format_time(experiment.last_run_created_at),
        }
    )


def render_pipeline(pipeline: PipelineRecord) -> Json:
    """A `Pipeline`."""
    return _present(
        {
            "pipeline_id": pipeline.pipeline_id,
            "name": pipeline.name,
            "display_name": pipeline.display_name,
            "description": pipeline.description,
            "created_at": _time(pipeline.created_at),
            "namespace": pipeline.namespace,
            "tags": pipeline.tags,
        }
    )


def render_version(version: PipelineVersion) -> Json:
    """A `PipelineVersion`."""
    return _present(
        {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.pipeline_version_id,
            "name": version.name,
            "display_name": version.display_name,
            "description": version.description,
            "created_at": _time(version.created_at),
            "code_source_url": version.code_source_url,
            "pipeline_spec": version.spec,
            "tags": version.tags,
        }
    )


def render_run(run: Run) -> Json:
    """A `Run`, without its tasks."""
    return _present(
        {
            "experiment_id": run.experiment_id,
            "run_id": run.run_id,
            "display_name": run.display_name,
            "storage_state": run.storage_state,
            "description": run.description,
            **_source(run),
            "runtime_config": _runtime_config(run),
            "service_account": run.service_account,
            "created_at": _time(run.created_at),
            "scheduled_at": _time(run.scheduled_at),
            "finished_at": _time(run.finished_at),
            "state": run.state,
            "error": _error(run.error),
            "recurring_run_id": run.recurring_run_id,
            "state_history": _history(run.state_history),
        }
    )


def _source(item: Run | RecurringRun) -> Json:
    if not item.pipeline_id:
        return {"pipeline_spec": item.spec}
    reference = {
        "pipeline_id": item.pipeline_id,
        "pipeline_version_id": item.pipeline_version_id,
    }
    return {"pipeline_version_reference": _present(reference)}


def _runtime_config(item: Run | RecurringRun) -> Json:
    return _present({"parameters": item.parameters, "pipeline_root": item.pipeline_root})


def render_recurring_run(recurring: RecurringRun) -> Json:
    """A `RecurringRun`."""
    return _present(
        {
            "recurring_run_id": recurring.recurring_run_id,
            "display_name": recurring.display_name,
            "description": recurring.description,
            "created_at": _time(recurring.created_at),
            "updated_at": _time(recurring.updated_at),
            "namespace": recurring.namespace,
            "experiment_id": recurring.experiment_id,
            **_source(recurring),
            "runtime_config": _runtime_config(recurring),
            "service_account": recurring.service_account,
            "trigger": recurring.trigger,
            "max_concurrency": str(recurring.max_concurrency),
            "no_catchup": recurring.no_catchup,
            "mode": "ENABLE" if recurring.enabled else "DISABLE",
            "status": "ENABLED" if recurring.enabled else "DISABLED",
            "error": _error(recurring.error),
        }
    )


def render_task_details(tasks: Sequence[Task]) -> list[Json]:
    """`run_details.task_details` of a run."""
    children = _children(tasks)
    return [
        _present(
            {
                "run_id": task.run_id,
                "task_id": task.task_id,
                "display_name": task.display_name,
                "create_time": _time(task.create_time),
                "start_time": _time(task.start_time),
                "end_time": _time(task.end_time),
                "executor_detail": _present(
                    {
                        "main_job": task.attempt.pod_name if task.attempt else "",
                        "failed_main_jobs": list(task.failed_pods),
                    }
                ),
                "state": _RUNTIME_STATES.get(task.state, task.state),
                "error": _error(task.error),
                "inputs": _artifact_lists(task.inputs),
                "outputs": _artifact_lists(task.outputs),
                "parent_task_id": task.parent_id,
                "state_history": _history(task.state_history),
                "pod_name": task.attempt.pod_name if task.attempt else "",
                "child_tasks": [
                    {"task_id": child.task_id} for child in children.get(task.task_id, ())
                ],
            }
        )
        for task in tasks
    ]


def _children(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    children: dict[str, list[Task]] = {}
    for task in tasks:
        children.setdefault(task.parent_id, []).append(task)
    return children


def _artifact_lists(values: TaskValues) -> Json:
    return {name: {"artifact_ids": list(found)} for name, found in values.artifacts.items()}


def render_tasks(tasks: Sequence[Task], *, artifacts: Mapping[str, Artifact]) -> list[Json]:
    """Run-scoped tasks, with their children among `tasks`."""
    children = _children(tasks)
    return [
        render_task(task, children=children.get(task.task_id, ()), artifacts=artifacts)
        for task in tasks
    ]


def render_task(task: Task, *, children: Iterable[Task], artifacts: Mapping[str, Artifact]) -> Json:
    """A run-scoped task."""
    return _present(
        {
            "name": task.name,
            "display_name": task.display_name,
            "task_id": task.task_id,
            "run_id": task.run_id,
            "pods": _pods(task),
            "cache_fingerprint": task.fingerprint,
            "create_time": _time(task.create_time),
            "start_time": _time(task.start_time),
            "end_time": _time(task.end_time),
            "status": _RUNTIME_STATES.get(task.state, task.state),
            "state": "RUNTIME_STATE_UNSPECIFIED" if task.state is TaskState.NOT_RUN else task.state,
            "status_metadata": _present(
                {
                    "message": task.status_message,
                    "custom_properties": _present(
                        {
                            "notes": list(task.notes),
                            "cached_from_task_id": task.cached_from,
                            "fingerprint_parts": task.fingerprint_parts,
                            **task.custom_properties,
                        }
                    ),
                }
            ),
            "state_history": _history(task.state_history),
            "type": task.type,
            "type_attributes": _type_attributes(task),
            "error": _error(task.error),
            "parent_task_id": task.parent_id,
            "scope_path": task.path,
            "child_tasks": [
                _present({"task_id": child.task_id, "name": child.name, "pods": _pods(child)})
                for child in children
            ],
            "inputs": _values(task, task.inputs, artifacts=artifacts, kind=None),
            "outputs": _values(task, task.outputs, artifacts=artifacts, kind=InputKind.OUTPUT),
        }
    )


def _type_attributes(task: Task) -> Json:
    attributes: Json = {}
    if task.iteration_index >= 0:
        attributes["iteration_index"] = str(task.iteration_index)
    if task.iteration_count >= 0:
        attributes["iteration_count"] = str(task.iteration_count)
    return attributes


def _pods(task: Task) -> list[Json]:
    if task.attempt is None:
        return []
    return [
        _present({"name": task.attempt.pod_name, "uid": task.attempt.pod_uid, "type": "EXECUTOR"})
    ]


def _values(
    task: Task, values: TaskValues, *, artifacts: Mapping[str, Artifact], kind: InputKind | None
) -> Json:
    parameters = [
        {"value": value, "name": name, "parameter_key": name, **_origin(task, values, name, kind)}
        for name, value in values.parameters.items()
    ]
    given = []
    for name, identifiers in values.artifacts.items():
        found = [render_artifact(artifacts[key]) for key in identifiers if key in artifacts]
        entry: Json = {"parameter_name": name, "artifact_key": name, "artifacts": found}
        if len(found) == 1:
            entry["value"] = found[0]
        given.append({**entry, **_origin(task, values, name, kind)})
    return _present({"parameters": parameters, "artifacts": given})


def _origin(task: Task, values: TaskValues, name: str, kind: InputKind | None) -> Json:
    origin = values.origins.get(name)
    if origin is None:
        return {"type": kind, "producer": {"task_name": task.name, "key": name}} if kind else {}
    producer = _present({"task_name": origin.task_name, "key": origin.key})
    return _present({"type": origin.kind, "producer": producer})


def render_artifact(artifact: Artifact) -> Json:
    """A run-scoped artifact; `digest` is of its content when it was recorded."""
    return _present(
        {
            "artifact_id": artifact.artifact_id,
            "name": artifact.name,
            "description": artifact.description,
            "type": ARTIFACT_TYPES.get(artifact.schema_title, "Artifact"),
            "schema_title": artifact.schema_title,
            "uri": artifact.uri,
            "metadata": artifact.metadata,
            "number_value": artifact.number_value,
            "created_at": _time(artifact.created_at),
            "namespace": artifact.namespace,
            "digest": artifact.digest,
        }
    )


def render_artifact_task(relation: ArtifactTask) -> Json:
    """That a task took or gave an artifact."""
    producer = _present(
        {
            "task_name": relation.producer_task_name,
            "key": relation.producer_key,
            "iteration": None if relation.iteration is None else str(relation.iteration),
        }
    )
    return _present(
        {
            "id": relation.id,
            "artifact_id": relation.artifact_id,
            "run_id": relation.run_id,
            "task_id": relation.task_id,
            "type": relation.type,
            "producer": producer,
            "producer_task_name": relation.producer_task_name,
            "producer_key": relation.producer_key,
            "key": relation.key,
            "artifact_key": relation.key,
        }
    )
