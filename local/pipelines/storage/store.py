"""The memory of the pipelines part: one SQLite file.

Written through on every change (write-ahead log, no sync a write: a killed process loses nothing,
a machine that loses power may lose the last moments), so that the engine can start again from the
file alone. Changes that belong together are made under `transaction`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from kubeloop.errors import InputError
from kubeloop.local.pipelines.storage import records
from kubeloop.local.pipelines.storage.records import (
    Artifact,
    ArtifactTask,
    Experiment,
    Origin,
    Run,
    RuntimeState,
    Task,
    TaskValues,
    attempt_number,
)
from kubeloop.local.pipelines.storage.schema import (
    ARTIFACT_TASKS,
    ARTIFACTS,
    EXPERIMENTS,
    PIPELINES,
    RECURRING_RUNS,
    RUNS,
    TASKS,
    VERSIONS,
)
from kubeloop.local.pipelines.storage.tables import Query, Table

_VERSION = 1  # of the form of records
_DEFAULT_DESCRIPTION = "All runs created without specifying an experiment will be grouped here."


class Store:
    """All records, each kind in a table of its own. Use as a context manager."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, or a memory of this object's lifetime where `path` is None."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._connection = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA busy_timeout = 5000")
        self._depth = 0
        self._check_version(path)
        self.experiments = Table(self._connection, EXPERIMENTS)
        self.pipelines = Table(self._connection, PIPELINES)
        self.versions = Table(self._connection, VERSIONS)
        self.runs = Table(self._connection, RUNS)
        self.tasks = Table(self._connection, TASKS)
        self.artifacts = Table(self._connection, ARTIFACTS)
        self.artifact_tasks = Table(self._connection, ARTIFACT_TASKS)
        self.recurring_runs = Table(self._connection, RECURRING_RUNS)

    def _check_version(self, path: Path | None) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            self._connection.close()
            raise InputError(
                f"{path} is of format {version}, which this kubeloop does not read (it reads "
                f"{_VERSION}); use the kubeloop that wrote it, or another state folder."
            )
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")

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
        """The tasks of a run that the engine drives, in the order they were made."""
        return [task for task in self.all_tasks_of(run_id) if not task.is_reported]

    def all_tasks_of(self, run_id: str) -> list[Task]:
        """All tasks of a run, also those that clients reported."""
        return self.tasks.select(
            Query(where="run_id = ?", values=(run_id,), order="create_time, rowid")
        )

    def with_reports(self, tasks: Sequence[Task]) -> list[Task]:
        """Tasks with the artifacts that clients told of, beside those that the engine recorded.

        What was told during an attempt that is not the task's latest is left out.
        """
        by_task: dict[str, list[ArtifactTask]] = {}
        for relation in self._reported_relations(tasks):
            by_task.setdefault(relation.task_id, []).append(relation)
        return [_add_relations(task, by_task.get(task.task_id, ())) for task in tasks]

    def _reported_relations(self, tasks: Sequence[Task]) -> list[ArtifactTask]:
        runs = sorted({task.run_id for task in tasks})
        where = f"run_id IN ({', '.join('?' * len(runs))})"
        relations = self.artifact_tasks.select(
            Query(where=where, values=tuple(runs), order="rowid")
        )
        return [relation for relation in relations if relation.reported_by is not None]

    def find_cached(self, fingerprint: str, *, pipeline_name: str) -> list[Task]:
        """Succeeded tasks with this fingerprint, newest first, with all that they gave."""
        where = "fingerprint = ? AND pipeline_name = ? AND state = ?"
        values = (fingerprint, pipeline_name, records.TaskState.SUCCEEDED)
        return self.with_reports(
            self.tasks.select(Query(where=where, values=values, order="end_time DESC", limit=5))
        )

    def get_artifacts(self, identifiers: tuple[str, ...]) -> list[Artifact]:
        """Artifacts in the order asked for; those that do not exist are left out."""
        found = [self.artifacts.get(identifier) for identifier in identifiers]
        return [artifact for artifact in found if artifact is not None]

    def delete_run(self, run_id: str) -> None:
        """Forget a run, its tasks and relations; artifacts stay, other runs may use them."""
        with self.transaction():
            for table in (self.tasks, self.artifact_tasks, self.runs):
                table.delete("run_id = ?", (run_id,))


def _add_relations(task: Task, relations: Iterable[ArtifactTask]) -> Task:
    for relation in relations:
        if relation.reported_by != attempt_number(task):
            continue
        if relation.type.is_output:
            task = replace(task, outputs=_add_artifact(task.outputs, relation))
        else:
            task = replace(task, inputs=_add_artifact(task.inputs, relation))
    return task


def _add_artifact(values: TaskValues, relation: ArtifactTask) -> TaskValues:
    known = values.artifacts.get(relation.key, ())
    if relation.artifact_id in known:
        return values
    origin = Origin(
        kind=relation.type, task_name=relation.producer_task_name, key=relation.producer_key
    )
    return TaskValues(
        parameters=values.parameters,
        artifacts={**values.artifacts, relation.key: (*known, relation.artifact_id)},
        origins={relation.key: origin, **values.origins},
    )
