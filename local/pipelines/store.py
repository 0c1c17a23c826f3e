"""The memory of the pipelines part: one SQLite file.

Written through on every change (write-ahead log, no sync a write: a killed process loses nothing,
a machine that loses power may lose the last moments), so that the engine can start again from the
file alone. Changes that belong together are made under `transaction`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubeloop.local.pipelines import records
from kubeloop.local.pipelines.records import (
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
from kubeloop.local.pipelines.tables import Query, Table

_DEFAULT_DESCRIPTION = "All runs created without specifying an experiment will be grouped here."


class Store:
    """All records, each kind in a table of its own. Use as a context manager."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, or a memory of this object's lifetime where `path` is None."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA busy_timeout = 5000")
        self._depth = 0
        self._open_tables()

    def _open_tables(self) -> None:
        connection = self._connection
        named = ("display_name", "created_at", "namespace", "description")
        self.experiments = Table[Experiment](
            connection,
            name="experiments",
            decode=_decode_experiment,
            key="experiment_id",
            columns=(*named, "storage_state", "last_run_created_at"),
        )
        self.pipelines = Table[PipelineRecord](
            connection,
            name="pipelines",
            decode=lambda row: PipelineRecord(**row),
            key="pipeline_id",
            columns=("name", *named),
        )
        self.versions = Table[PipelineVersion](
            connection,
            name="pipeline_versions",
            decode=lambda row: PipelineVersion(**row),
            key="pipeline_version_id",
            columns=("pipeline_id", "name", "display_name", "created_at", "description"),
            indexes=("pipeline_id",),
        )
        self.runs = Table[Run](
            connection,
            name="runs",
            decode=_decode_run,
            key="run_id",
            columns=(
                *named,
                "scheduled_at",
                "finished_at",
                "experiment_id",
                "storage_state",
                "state",
                "recurring_run_id",
            ),
            indexes=("experiment_id", "created_at"),
        )
        self.tasks = Table[Task](
            connection,
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
        self.artifacts = Table[Artifact](
            connection,
            name="artifacts",
            decode=lambda row: Artifact(**row),
            key="artifact_id",
            columns=("name", "schema_title", "uri", "created_at", "namespace", "run_id", "task_id"),
            indexes=("uri", "run_id"),
        )
        self.artifact_tasks = Table[ArtifactTask](
            connection,
            name="artifact_tasks",
            decode=lambda row: ArtifactTask(**{**row, "type": records.InputKind(row["type"])}),
            key="id",
            columns=("artifact_id", "run_id", "task_id", "type"),
            indexes=("artifact_id", "run_id", "task_id"),
        )
        self.recurring_runs = Table[RecurringRun](
            connection,
            name="recurring_runs",
            decode=lambda row: RecurringRun(**row),
            key="recurring_run_id",
            columns=(*named, "updated_at", "experiment_id", "enabled"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes inside all or none. The body must not wait for anything."""
        if self._depth:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        else:
            self._connection.execute("COMMIT")
        finally:
            self._depth = 0

    def default_experiment(self, *, namespace: str, now: float) -> Experiment:
        """The experiment of runs that name none, made where it does not exist."""
        found = self.experiments.select(
            Query(where="display_name = ?", values=(records.DEFAULT_EXPERIMENT,), limit=1)
        )
        if found:
            return found[0]
        experiment = Experiment(
            experiment_id=records.new_id(),
            display_name=records.DEFAULT_EXPERIMENT,
            description=_DEFAULT_DESCRIPTION,
            created_at=now,
            namespace=namespace,
        )
        self.experiments.put(experiment)
        return experiment

    def unfinished_runs(self) -> list[Run]:
        """Runs that the engine has to go on with."""
        states = (RuntimeState.PENDING, RuntimeState.RUNNING, RuntimeState.CANCELING)
        return self.runs.select(
            Query(where="state IN (?, ?, ?)", values=states, order="created_at, run_id")
        )

    def tasks_of(self, run_id: str) -> list[Task]:
        """All tasks of a run, in the order they were made."""
        return self.tasks.select(
            Query(where="run_id = ?", values=(run_id,), order="create_time, rowid")
        )

    def find_cached(self, fingerprint: str, *, pipeline_name: str) -> list[Task]:
        """Succeeded tasks with this fingerprint, newest first."""
        where = "fingerprint = ? AND pipeline_name = ? AND state = ?"
        values = (fingerprint, pipeline_name, records.TaskState.SUCCEEDED)
        return self.tasks.select(Query(where=where, values=values, order="end_time DESC", limit=5))

    def get_artifacts(self, identifiers: tuple[str, ...]) -> list[Artifact]:
        """Artifacts in the order asked for; those that do not exist are left out."""
        found = [self.artifacts.get(identifier) for identifier in identifiers]
        return [artifact for artifact in found if artifact is not None]

    def delete_run(self, run_id: str) -> None:
        """Forget a run, its tasks and relations; artifacts stay, other runs may use them."""
        with self.transaction():
            for table in (self.tasks, self.artifact_tasks, self.runs):
                table.delete("run_id = ?", (run_id,))


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
    if row["attempt"] is not None:
        row["attempt"] = records.Attempt(**row["attempt"])
    return Task(**row)
