"""The tables of the store: which fields of a record are columns, and how a row is read back."""

from __future__ import annotations

from typing import Any

from kubeloop.local.pipelines.storage import records
from kubeloop.local.pipelines.storage.records import (
    Artifact,
    ArtifactTask,
    Experiment,
    PipelineRecord,
    PipelineVersion,
    RecurringRun,
    Run,
    RuntimeState,
    StorageState,
    Task,
)
from kubeloop.local.pipelines.storage.tables import Schema

_NAMED = ("display_name", "created_at", "namespace", "description")


def _history(row: dict[str, Any]) -> tuple[records.StateChange, ...]:
    return tuple(records.StateChange(**item) for item in row["state_history"])


def _decode_experiment(row: dict[str, Any]) -> Experiment:
    return Experiment(**{**row, "storage_state": StorageState(row["storage_state"])})


def _decode_run(row: dict[str, Any]) -> Run:
    row["storage_state"] = StorageState(row["storage_state"])
    row["state"] = RuntimeState(row["state"])
    row["state_history"] = _history(row)
    return Run(**row)


def _decode_values(row: dict[str, Any]) -> records.TaskValues:
    return records.TaskValues(
        parameters=row["parameters"],
        artifacts={name: tuple(found) for name, found in row["artifacts"].items()},
        origins={
            name: records.Origin(**{**item, "kind": records.InputKind(item["kind"])})
            for name, item in row["origins"].items()
        },
    )


def _decode_task(row: dict[str, Any]) -> Task:
    row["type"] = records.TaskType(row["type"])
    row["state"] = records.TaskState(row["state"])
    row["state_history"] = _history(row)
    row["inputs"] = _decode_values(row["inputs"])
    row["outputs"] = _decode_values(row["outputs"])
    row["failed_pods"] = tuple(row["failed_pods"])
    row["notes"] = tuple(row.get("notes", ()))
    if row["attempt"] is not None:
        row["attempt"] = records.Attempt(**row["attempt"])
    return Task(**row)


EXPERIMENTS = Schema(
    name="experiments",
    decode=_decode_experiment,
    key="experiment_id",
    columns=(*_NAMED, "storage_state", "last_run_created_at"),
)
PIPELINES = Schema(
    name="pipelines",
    decode=lambda row: PipelineRecord(**row),
    key="pipeline_id",
    columns=("name", *_NAMED),
)
VERSIONS = Schema(
    name="pipeline_versions",
    decode=lambda row: PipelineVersion(**row),
    key="pipeline_version_id",
    columns=("pipeline_id", "name", "display_name", "created_at", "description"),
    indexes=("pipeline_id",),
)
RUNS = Schema(
    name="runs",
    decode=_decode_run,
    key="run_id",
    columns=(
        *_NAMED,
        "scheduled_at",
        "finished_at",
        "experiment_id",
        "storage_state",
        "state",
        "recurring_run_id",
    ),
    indexes=("experiment_id", "created_at", "recurring_run_id"),
)
TASKS = Schema(
    name="tasks",
    decode=_decode_task,
    key="task_id",
    columns=(
        "run_id",
        "parent_id",
        "name",
        "display_name",
        "state",
        "type",
        "create_time",
        "start_time",
        "end_time",
        "pipeline_name",
        "fingerprint",
    ),
    indexes=("run_id", "parent_id", "fingerprint, pipeline_name"),
)
ARTIFACTS = Schema(
    name="artifacts",
    decode=lambda row: Artifact(**row),
    key="artifact_id",
    columns=("name", "schema_title", "uri", "created_at", "namespace", "run_id", "task_id"),
    indexes=("uri", "run_id"),
)
ARTIFACT_TASKS = Schema(
    name="artifact_tasks",
    decode=lambda row: ArtifactTask(**{**row, "type": records.InputKind(row["type"])}),
    key="id",
    columns=("artifact_id", "run_id", "task_id", "type"),
    indexes=("artifact_id", "run_id", "task_id"),
)
RECURRING_RUNS = Schema(
    name="recurring_runs",
    decode=lambda row: RecurringRun(**row),
    key="recurring_run_id",
    columns=(*_NAMED, "updated_at", "experiment_id", "enabled"),
)
