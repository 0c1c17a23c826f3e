"""What the record of runs holds, and the one interface through which it is read.

KFP keeps the record in two forms: ML Metadata up to 2.17, tasks and artifacts of its own API after
it. Readers of the record (lineage, comparing runs, the demo) see neither, only this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_GROUPS = frozenset(
    {"ROOT", "CONDITION_BRANCH", "CONDITION", "LOOP", "LOOP_ITERATION", "EXIT_HANDLER", "DAG"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One artifact of a run; `metadata` is what its producer recorded."""

    artifact_id: str
    name: str
    type: str
    """`Dataset`, `Model`, `Metrics`, …: the schema's title without `system.`."""
    uri: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    digest: str = ""
    """`sha256:…` of the content when it was recorded, where the record holds one."""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One task of a run with what went in and came out, by input and output name."""

    task_id: str
    name: str
    run_id: str
    state: str
    input_parameters: Mapping[str, Any]
    output_parameters: Mapping[str, Any]
    input_artifacts: Mapping[str, tuple[Artifact, ...]]
    output_artifacts: Mapping[str, tuple[Artifact, ...]]
    path: str = ""
    """Names from the root down, joined by dots; iterations are their index. Empty: not told."""
    type: str = ""
    """What it is in the pipeline's structure: RUNTIME for a step."""
    parent_id: str = ""
    is_importer: bool = False
    """Whether it only named artifacts that existed already."""
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    is_cached: bool = False
    """Whether it took the outputs of an earlier task."""
    cached_from: str = ""
    """The identifier of that task; empty where the record does not say."""
    fingerprint: str = ""
    """Of what the cache compares; empty where the task takes no part in caching."""
    fingerprint_parts: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    """What went into the fingerprint; empty where the API does not tell."""
    error: str = ""

    @property
    def is_group(self) -> bool:
        """Whether it stands for other tasks: the pipeline itself, a condition, a loop."""
        return self.type in _GROUPS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run."""

    run_id: str
    name: str
    """As people called it; the run id where the record holds no name."""
    pipeline: str
    """Name of the pipeline; empty where the record does not say."""
    state: str
    namespace: str = ""
    created_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactUse:
    """That a task took or gave an artifact."""

    artifact_id: str
    task_id: str
    run_id: str
    is_output: bool


class MetadataSource(ABC):
    """Reads the record of runs.

    Collections of identifiers may be of any size and hold unknown ones, which are left out of the
    answer; an empty collection asks nothing. Answers are complete, however many pages they take.
    All methods raise `TransientError` where the record cannot be reached. Use as a context manager.
    """

    @abstractmethod
    def get_run(self, run_id: str) -> RunRecord:
        """A run.

        Raises:
            InputError: There is no such run.
        """

    @abstractmethod
    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        """All tasks of a run, groups included, in order of creation.

        Raises:
            InputError: There is no such run.
        """

    @abstractmethod
    def get_task(self, task_id: str) -> TaskRecord:
        """A task.

        Raises:
            InputError: There is no such task.
        """

    @abstractmethod
    def get_artifact(self, artifact_id: str) -> Artifact:
        """An artifact.

        Raises:
            InputError: There is no such artifact.
        """

    @abstractmethod
    def find_artifacts(self, uris: Collection[str]) -> list[Artifact]:
        """All artifacts with one of these URIs, oldest first."""

    @abstractmethod
    def search_artifacts(self, part: str) -> list[Artifact]:
        """All artifacts whose URI contains `part`, oldest first."""

    @abstractmethod
    def list_uses(self, artifact_ids: Collection[str]) -> list[ArtifactUse]:
        """Which tasks, groups included, took or gave these artifacts, in order of creation."""

    def find_producer(self, artifact: Artifact) -> TaskRecord | None:
        """The task that made an artifact, not one that took it from the cache or passed it on.

        None where the record does not say.
        """
        found = [
            self.get_task(use.task_id)
            for use in self.list_uses([artifact.artifact_id])
            if use.is_output
        ]
        made = [task for task in found if not task.is_group]
        return next((task for task in made if not task.is_cached), made[0] if made else None)

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
