"""What the store remembers: experiments, pipelines, runs, tasks, artifacts and their relations.

A record holds all that the engine needs to go on after a restart; nothing about a run lives only
in memory. Times are seconds since the epoch.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kubeloop.local.pipelines.spec.values import JsonValue

DEFAULT_EXPERIMENT = "Default"


def new_id() -> str:
    """A random identifier."""
    return str(uuid.uuid4())


class StorageState(StrEnum):
    """Whether something shows in lists by default."""

    AVAILABLE = "AVAILABLE"
    ARCHIVED = "ARCHIVED"


class RuntimeState(StrEnum):
    """State of a run, and of a task as the API has presented it up to KFP 2.17."""

    UNSPECIFIED = "RUNTIME_STATE_UNSPECIFIED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"
    PAUSED = "PAUSED"

    @property
    def is_final(self) -> bool:
        return self in (self.SUCCEEDED, self.SKIPPED, self.FAILED, self.CANCELED)


class TaskState(StrEnum):
    """State of a task as the engine sees it."""

    PENDING = "PENDING"
    """To be started: at once, or after a retry's delay."""
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    CACHED = "CACHED"
    """Succeeded with the outputs of an earlier task."""
    SKIPPED = "SKIPPED"
    """Its condition was false."""
    FAILED = "FAILED"
    NOT_RUN = "NOT_RUN"
    """Something before it failed or was skipped, or the run was terminated before its turn."""

    @property
    def is_done(self) -> bool:
        return self not in (self.PENDING, self.RUNNING)

    @property
    def has_outputs(self) -> bool:
        return self in (self.SUCCEEDED, self.CACHED)


class TaskType(StrEnum):
    """What a task is in the pipeline's structure."""

    ROOT = "ROOT"
    RUNTIME = "RUNTIME"
    CONDITION_BRANCH = "CONDITION_BRANCH"
    CONDITION = "CONDITION"
    LOOP = "LOOP"
    LOOP_ITERATION = "LOOP_ITERATION"
    EXIT_HANDLER = "EXIT_HANDLER"
    DAG = "DAG"


class InputKind(StrEnum):
    """How an input or output of a task came about (`IOType` of KFP after 2.17, in its order)."""

    COMPONENT_DEFAULT_INPUT = "COMPONENT_DEFAULT_INPUT"
    TASK_OUTPUT_INPUT = "TASK_OUTPUT_INPUT"
    COMPONENT_INPUT = "COMPONENT_INPUT"
    RUNTIME_VALUE_INPUT = "RUNTIME_VALUE_INPUT"
    COLLECTED_INPUTS = "COLLECTED_INPUTS"
    ITERATOR_INPUT = "ITERATOR_INPUT"
    ITERATOR_INPUT_RAW = "ITERATOR_INPUT_RAW"
    ITERATOR_OUTPUT = "ITERATOR_OUTPUT"
    OUTPUT = "OUTPUT"
    ONE_OF_OUTPUT = "ONE_OF_OUTPUT"
    TASK_FINAL_STATUS_OUTPUT = "TASK_FINAL_STATUS_OUTPUT"

    @property
    def is_output(self) -> bool:
        return self in (self.OUTPUT, self.ITERATOR_OUTPUT, self.ONE_OF_OUTPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One entry of a state history."""

    state: str
    time: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A group of runs."""

    experiment_id: str
    display_name: str
    created_at: float
    namespace: str
    description: str = ""
    storage_state: StorageState = StorageState.AVAILABLE
    last_run_created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRecord:
    """An uploaded pipeline; what it does is in its versions."""

    pipeline_id: str
    name: str
    display_name: str
    created_at: float
    namespace: str
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineVersion:
    """One version of an uploaded pipeline."""

    pipeline_version_id: str
    pipeline_id: str
    name: str
    display_name: str
    created_at: float
    spec: dict[str, Any]
    """The package's documents, as the API carries them."""
    description: str = ""
    code_source_url: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a pipeline."""

    run_id: str
    experiment_id: str
    display_name: str
    created_at: float
    scheduled_at: float
    namespace: str
    spec: dict[str, Any]
    """The package's documents, as the API carries them."""
    parameters: dict[str, JsonValue]
    pipeline_name: str
    root: str
    """Folder that holds all outputs of the run."""
    pipeline_root: str = ""
    """As given by the client."""
    description: str = ""
    service_account: str = ""
    pipeline_id: str = ""
    pipeline_version_id: str = ""
    recurring_run_id: str = ""
    storage_state: StorageState = StorageState.AVAILABLE
    state: RuntimeState = RuntimeState.PENDING
    state_history: tuple[StateChange, ...] = ()
    finished_at: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a task's input came from."""

    kind: InputKind
    task_name: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskValues:
    """Inputs or outputs of a task: parameters by value, artifacts by identifier."""

    parameters: dict[str, JsonValue] = field(default_factory=dict)
    artifacts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The latest try at running a task's container.

    Its folder is its own, so that nothing of an earlier try is ever mixed in.
    """

    number: int
    """Counts every try, also those lost to a restart."""
    retry_index: int
    """Counts only the tries that failed by themselves: what the retry policy is about."""
    pod_name: str
    folder: str
    pod_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of a run, of any type."""

    task_id: str
    run_id: str
    parent_id: str
    name: str
    display_name: str
    path: str
    """Names from the root down, joined by dots; iterations are their index."""
    type: TaskType
    state: TaskState
    create_time: float
    start_time: float = 0.0
    end_time: float = 0.0
    state_history: tuple[StateChange, ...] = ()
    inputs: TaskValues = field(default_factory=TaskValues)
    outputs: TaskValues = field(default_factory=TaskValues)
    iteration_index: int = -1
    iteration_count: int = -1
    attempt: Attempt | None = None
    retries_used: int = 0
    next_attempt_at: float = 0.0
    failed_pods: tuple[str, ...] = ()
    pipeline_name: str = ""
    fingerprint: str = ""
    """Of the inputs; empty where the task takes no part in caching."""
    fingerprint_parts: dict[str, str] = field(default_factory=dict)
    """What went into the fingerprint, so that a hit or a miss can be explained."""
    cached_from: str = ""
    """The task whose outputs were taken."""
    error: str = ""
    status_message: str = ""
    is_reported: bool = False
    """Whether a client made it, and keeps its state; the engine knows nothing of it."""
    custom_properties: dict[str, JsonValue] = field(default_factory=dict)
    """What a client that keeps the task says of it."""
    notes: tuple[str, ...] = ()
    """What it asks for that has no effect on this machine, one sentence each."""


def attempt_number(task: Task) -> int:
    """Which attempt at a task is its latest; 0 where it has none."""
    return task.attempt.number if task.attempt is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact: what a task wrote, or an importer named."""

    artifact_id: str
    name: str
    schema_title: str
    schema_version: str
    uri: str
    metadata: dict[str, JsonValue]
    created_at: float
    namespace: str
    run_id: str
    task_id: str
    digest: str = ""
    """Of the content when it was recorded; empty where nothing is at a local path."""
    description: str = ""
    number_value: float | None = None
    """Of a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactTask:
    """That a task took or gave an artifact."""

    id: str
    artifact_id: str
    run_id: str
    task_id: str
    type: InputKind
    key: str
    producer_task_name: str = ""
    producer_key: str = ""
    iteration: int | None = None
    """Of the producer, where it ran in a loop."""
    reported_by: int | None = None
    """The attempt of the task during which a client told of it; None: the engine did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringRun:
    """A run to be repeated by cron or interval."""

    recurring_run_id: str
    experiment_id: str
    display_name: str
    created_at: float
    updated_at: float
    namespace: str
    spec: dict[str, Any]
    """The package's documents; empty where each run takes the pipeline's latest version."""
    parameters: dict[str, JsonValue]
    description: str = ""
    pipeline_id: str = ""
    pipeline_version_id: str = ""
    pipeline_root: str = ""
    service_account: str = ""
    trigger: dict[str, JsonValue] = field(default_factory=dict)
    """As the API carries it."""
    max_concurrency: int = 1
    no_catchup: bool = False
    enabled: bool = True
    last_tick: int | None = None
    """The latest time of the trigger that became a run, whenever that run was made."""
    last_index: int = 0
    """How many runs were made."""
    error: str = ""
    """Why the run that is due cannot be made."""
