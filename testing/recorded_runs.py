"""Runs as tests describe them, and a record of them in memory.

The same description is written into every kind of record, so that all readers can be held to one
contract and lineage can be tested without any server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kubeloop.errors import InputError
from kubeloop.pipelines.metadata import (
    Artifact,
    ArtifactUse,
    MetadataSource,
    RunRecord,
    TaskRecord,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class GivenArtifact:
    """An artifact that a task gives."""

    name: str
    uri: str = ""
    type: str = "Artifact"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class GivenTask:
    """A task; what it takes names a task of this or an earlier run, and one of its outputs."""

    name: str
    takes: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """Input name → `(task id, output name)` of every artifact."""
    gives: Mapping[str, Sequence[GivenArtifact]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    cached_from: str = ""
    """Id of the task whose outputs are taken instead of `gives`."""
    is_importer: bool = False
    is_failed: bool = False
    group: str = ""
    """Name of the nested pipeline that the task is in."""


@dataclass(frozen=True, kw_only=True)
class GivenRun:
    """A run; its tasks have the ids `<run id>/<task name>` here, and others in other records."""

    run_id: str
    pipeline: str = "pipeline"
    tasks: Sequence[GivenTask] = ()
    state: str = "SUCCEEDED"


class MemoryMetadata(MetadataSource):
    """The record in memory; task ids are `<run id>/<task name>`, artifact ids count up."""

    def __init__(self, runs: Sequence[GivenRun]) -> None:
        self.num_requests = 0
        self.runs = {run.run_id: run for run in runs}
        self._tasks: dict[str, dict[str, TaskRecord]] = {}
        self._artifacts: dict[str, Artifact] = {}
        self._uses: dict[str, list[ArtifactUse]] = {}
        for run in runs:
            root = _build_task(run, GivenTask(name="root"), type="ROOT")
            self._tasks[run.run_id] = {root.task_id: root}
            for task in run.tasks:
                self._add(run, task)

    def _add(self, run: GivenRun, given: GivenTask) -> None:
        taken = {
            key: tuple(self._output(task_id, name) for task_id, name in wanted)
            for key, wanted in given.takes.items()
        }
        if given.cached_from:
            made: dict[str, tuple[Artifact, ...]] = dict(
                self._task(given.cached_from).output_artifacts
            )
        else:
            made = {key: tuple(map(self._create, items)) for key, items in given.gives.items()}
        group = f"{run.run_id}/{given.group or 'root'}"
        if group not in self._tasks[run.run_id]:
            self._tasks[run.run_id][group] = _build_task(
                run, GivenTask(name=given.group), type="DAG", parent_id=f"{run.run_id}/root"
            )
        task = _build_task(run, given, taken=taken, made=made, parent_id=group)
        self._tasks[run.run_id][task.task_id] = task
        for is_output, side in ((False, taken), (True, made)):
            for artifact in (artifact for items in side.values() for artifact in items):
                self._uses.setdefault(artifact.artifact_id, []).append(
                    ArtifactUse(
                        artifact_id=artifact.artifact_id,
                        task_id=task.task_id,
                        run_id=run.run_id,
                        is_output=is_output,
                    )
                )

    def _output(self, task_id: str, name: str) -> Artifact:
        return self._task(task_id).output_artifacts[name][0]

    def _task(self, task_id: str) -> TaskRecord:
        return self._tasks[task_id.partition("/")[0]][task_id]

    def _create(self, given: GivenArtifact) -> Artifact:
        artifact = Artifact(
            artifact_id=str(len(self._artifacts) + 1),
            name=given.name,
            type=given.type,
            uri=given.uri,
            metadata=given.metadata,
            digest=given.digest,
            created_at=START + timedelta(seconds=len(self._artifacts)),
        )
        self._artifacts[artifact.artifact_id] = artifact
        return artifact

    def get_run(self, run_id: str) -> RunRecord:
        """A run."""
        self.num_requests += 1
        if run_id not in self.runs:
            raise InputError(f"Run {run_id!r} not found.")
        pipeline = self.runs[run_id].pipeline
        return RunRecord(
            run_id=run_id,
            name=f"{pipeline} of today",
            pipeline=pipeline,
            state=self.runs[run_id].state,
            created_at=START,
            finished_at=START + timedelta(minutes=5),
        )

    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        """All tasks of a run."""
        self.num_requests += 1
        if run_id not in self._tasks:
            raise InputError(f"Run {run_id!r} not found.")
        return list(self._tasks[run_id].values())

    def get_task(self, task_id: str) -> TaskRecord:
        """A task."""
        self.num_requests += 1
        for tasks in self._tasks.values():
            if task_id in tasks:
                return tasks[task_id]
        raise InputError(f"Task {task_id!r} not found.")

    def get_artifact(self, artifact_id: str) -> Artifact:
        """An artifact."""
        self.num_requests += 1
        if artifact_id not in self._artifacts:
            raise InputError(f"Artifact {artifact_id!r} not found.")
        return self._artifacts[artifact_id]

    def find_artifacts(self, uris: Collection[str]) -> list[Artifact]:
        """All artifacts with one of these URIs."""
        self.num_requests += bool(uris)
        return [a for a in self._artifacts.values() if a.uri and a.uri in uris]

    def search_artifacts(self, part: str) -> list[Artifact]:
        """All artifacts whose URI contains `part`."""
        self.num_requests += 1
        return [a for a in self._artifacts.values() if part and part in a.uri]

    def list_uses(self, artifact_ids: Collection[str]) -> list[ArtifactUse]:
        """Which tasks took or gave these artifacts."""
        self.num_requests += bool(artifact_ids)
        return [use for identifier in artifact_ids for use in self._uses.get(identifier, [])]

    def close(self) -> None:
        """Nothing is open."""


def _build_task(
    run: GivenRun,
    given: GivenTask,
    *,
    type: str = "RUNTIME",  # noqa: A002  # the field's name
    taken: Mapping[str, tuple[Artifact, ...]] | None = None,
    made: Mapping[str, tuple[Artifact, ...]] | None = None,
    parent_id: str = "",
) -> TaskRecord:
    return TaskRecord(
        task_id=f"{run.run_id}/{given.name}",
        name=given.name,
        run_id=run.run_id,
        state="FAILED" if given.is_failed else "SUCCEEDED",
        input_parameters=given.inputs,
        output_parameters=given.outputs,
        input_artifacts=taken or {},
        output_artifacts=made or {},
        type=type,
        parent_id=parent_id,
        is_importer=given.is_importer,
        is_cached=bool(given.cached_from),
        cached_from=given.cached_from,
        create_time=START,
        start_time=START,
        end_time=START + timedelta(seconds=2),
        error="it broke" if given.is_failed else "",
    )


def digits_run(
    number: int, *, run_id: str = "", version: str = "a" * 64, cached_from: str = ""
) -> GivenRun:
    """A run of the image pipeline: ingest, tune, train, evaluate.

    Args:
        number: Tells runs apart; the model's digest depends on it.
        run_id: Its id; empty: `run-<number>`.
        version: The dataset's version hash.
        cached_from: Id of an earlier run from whose cache tuning and training are taken.
    """
    run_id, digest = run_id or f"run-{number}", f"{number:064x}"
    dataset = {"dataset": [(f"{run_id}/ingest-dataset", "dataset")]}
    return GivenRun(
        run_id=run_id,
        pipeline="image-classification",
        tasks=[
            GivenTask(
                name="ingest-dataset",
                inputs={"source": "/data/digits"},
                gives={"dataset": [_dataset(version)]},
            ),
            GivenTask(
                name="tune-hyperparameters",
                takes=dataset,
                gives={"trials": [_trials(number)]},
                cached_from=cached_from and f"{cached_from}/tune-hyperparameters",
            ),
            GivenTask(
                name="train-model",
                takes=dataset,
                gives={"model": [_model(number, digest)]},
                cached_from=cached_from and f"{cached_from}/train-model",
            ),
            GivenTask(
                name="evaluate-model",
                takes={**dataset, "model": [(f"{run_id}/train-model", "model")]},
                gives={
                    "metrics": [
                        GivenArtifact(name="metrics", type="Metrics", metadata={"accuracy": 0.98})
                    ]
                },
            ),
        ],
    )


def _dataset(version: str) -> GivenArtifact:
    return GivenArtifact(
        name="dataset",
        type="Dataset",
        uri=f"/store/datasets/digits/commits/{version}.json",
        metadata={
            "dataset": "digits",
            "version_hash": version,
            "source_uri": "/data/digits",
            "source_digest": "f" * 64,
        },
    )


def _trials(number: int) -> GivenArtifact:
    return GivenArtifact(
        name="trials",
        uri=f"/store/run-{number}/trials",
        metadata={
            "experiment": f"default/tune-{number}",
            "best_trial": f"tune-{number}-x",
            "best_trial_digest": "sha256:" + "7" * 64,
            "best_parameters": {"learning_rate": 0.01},
        },
    )


def _model(number: int, digest: str) -> GivenArtifact:
    return GivenArtifact(
        name="model",
        type="Model",
        uri=f"/store/models/digits/{digest}",
        metadata={
            "digest": f"sha256:{digest}",
            "training_job": f"default/train-{number}",
            "training_job_digest": "sha256:" + "9" * 64,
            "trial": f"tune-{number}-x",
            "hyperparameters": {"learning_rate": 0.01},
        },
    )
