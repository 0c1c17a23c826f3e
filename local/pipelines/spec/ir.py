"""The compiled pipeline (KFP's intermediate representation) as typed values.

The daemon never imports kfp: it is slow to import and tied to protobuf. `parsing` turns a
compiled file into these dataclasses and refuses what cannot run; the engine only ever sees a
`Pipeline` whose references all resolve and whose tasks stand in an order they can run in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kubeloop.local.pipelines.spec.values import JsonValue, ParameterType


class TriggerStrategy(StrEnum):
    """`triggerPolicy.strategy` of a task."""

    ALL_UPSTREAM_TASKS_SUCCEEDED = "ALL_UPSTREAM_TASKS_SUCCEEDED"
    ALL_UPSTREAM_TASKS_COMPLETED = "ALL_UPSTREAM_TASKS_COMPLETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """A declared input or output parameter."""

    type: ParameterType
    default: JsonValue = None
    has_default: bool = False
    is_optional: bool = False
    description: str = ""

    @property
    def is_required(self) -> bool:
        return not self.has_default and not self.is_optional


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSpec:
    """A declared input or output artifact."""

    schema_title: str
    schema_version: str = "0.0.1"
    is_list: bool = False
    is_optional: bool = False
    description: str = ""
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A value written in the pipeline; its texts may hold placeholders."""

    value: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentInput:
    """An input of the component that the task stands in."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutput:
    """An output of another task of the same DAG."""

    task: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalStatus:
    """How another task of the same DAG ended."""

    task: str


ParameterSource = Constant | ComponentInput | TaskOutput | FinalStatus
ArtifactSource = ComponentInput | TaskOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInput:
    """Where a task's input parameter comes from, and a CEL expression that selects a part."""

    source: ParameterSource
    selector: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after which delays, a failed container is started again."""

    max_retries: int = 0
    backoff_seconds: float = 0.0
    backoff_factor: float = 2.0
    backoff_max_seconds: float = 3600.0

    def delay_seconds(self, retry_index: int) -> float:
        """The delay before retry number `retry_index` (0 for the first)."""
        factor = self.backoff_factor or 2.0
        return min(self.backoff_seconds * factor**retry_index, self.backoff_max_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterIterator:
    """The items a task runs over: a constant list, or one of the task's inputs."""

    item_input: str
    constant_items: JsonValue = None
    items_input: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactIterator:
    """The input artifact list a task runs over."""

    item_input: str
    items_input: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of a DAG."""

    name: str
    display_name: str
    component: str
    parameters: Mapping[str, ParameterInput]
    artifacts: Mapping[str, ArtifactSource]
    upstream: tuple[str, ...]
    """Tasks that come first: those named as dependencies and those whose outputs are taken."""
    condition: str = ""
    strategy: TriggerStrategy = TriggerStrategy.ALL_UPSTREAM_TASKS_SUCCEEDED
    cache_enabled: bool = False
    cache_key: str = ""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    iterator: ParameterIterator | ArtifactIterator | None = None
    parallelism: int = 0
    """Iterations at a time; 0 is no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSelector:
    """An output of a task of the DAG."""

    task: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DagOutput:
    """An output of a DAG: of the first of `selectors` whose task ran."""

    selectors: tuple[OutputSelector, ...]
    is_one_of: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dag:
    """The tasks of a component, each after its upstream, and where its outputs come from."""

    tasks: Mapping[str, Task]
    parameter_outputs: Mapping[str, DagOutput]
    artifact_outputs: Mapping[str, DagOutput]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a container asks for, as Kubernetes quantities; empty is unset."""

    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """An executor that runs a container; command and args may hold placeholders."""

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    resources: Resources = field(default_factory=Resources)
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    """The executor's `platforms.kubernetes` configuration, as compiled."""
    notes: tuple[str, ...] = ()
    """What of it has no effect on this machine, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImporterSpec:
    """An executor that names an artifact which exists already."""

    artifact: ArtifactSpec
    uri: str = ""
    uri_input: str = ""
    """The input parameter that holds the URI, where `uri` is empty."""
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    reimport: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A component: its interface, and either a DAG or an executor."""

    name: str
    input_parameters: Mapping[str, ParameterSpec]
    input_artifacts: Mapping[str, ArtifactSpec]
    output_parameters: Mapping[str, ParameterSpec]
    output_artifacts: Mapping[str, ArtifactSpec]
    passthroughs: Mapping[str, bool] = field(default_factory=dict)
    """Settings of its task that it takes as an input, and whether they are applied all the same."""
    dag: Dag | None = None
    executor: ContainerSpec | ImporterSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A compiled pipeline that can run."""

    name: str
    description: str
    root: Component
    components: Mapping[str, Component]
    default_root: str = ""
    sdk_version: str = ""
    schema_version: str = ""
    has_workspace: bool = False
    """Whether its steps share a folder, at the placeholder for the workspace's path."""
    deadline_seconds: float = 0.0
    """How long a run may take; 0 is no limit."""
    notes: tuple[str, ...] = ()
    """What the pipeline asks for that has no meaning on this machine, one sentence each."""

    @property
    def dag(self) -> Dag:
        """The root component's DAG."""
        assert self.root.dag is not None
        return self.root.dag
