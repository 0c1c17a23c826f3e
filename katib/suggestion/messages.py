"""The messages of Katib's suggestion service, as frozen dataclasses.

Field for field and number for number they mirror the protocol (package api.v1.beta1), so that the
same algorithm is called in process by the embedded plane and over gRPC on a cluster, and the
conversion between the two is mechanical. Values are texts, as Katib passes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class ParameterType(IntEnum):
    """What a parameter's values are."""

    UNKNOWN_TYPE = 0
    DOUBLE = 1
    INT = 2
    DISCRETE = 3
    CATEGORICAL = 4


class Distribution(IntEnum):
    """How numbers are drawn between the bounds."""

    DISTRIBUTION_UNSPECIFIED = 0
    UNIFORM = 1
    LOG_UNIFORM = 2
    NORMAL = 3
    LOG_NORMAL = 4


class ObjectiveType(IntEnum):
    """Which values of the objective are better."""

    UNKNOWN = 0
    MINIMIZE = 1
    MAXIMIZE = 2


class TrialConditionType(IntEnum):
    """The last condition of a trial."""

    CREATED = 0
    RUNNING = 1
    SUCCEEDED = 2
    KILLED = 3
    FAILED = 4
    METRICSUNAVAILABLE = 5
    EARLYSTOPPED = 6
    UNKNOWN = 7


class ComparisonType(IntEnum):
    """How an early stopping rule compares."""

    UNKNOWN_COMPARISON = 0
    EQUAL = 1
    LESS = 2
    GREATER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FeasibleSpace:
    """Bounds of numbers, or the list of choices; an empty text means absent."""

    max: str = ""
    min: str = ""
    list: tuple[str, ...] = ()
    step: str = ""
    distribution: Distribution = Distribution.DISTRIBUTION_UNSPECIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One parameter to search over."""

    name: str
    parameter_type: ParameterType
    feasible_space: FeasibleSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """What is optimised; `goal` is None when there is none."""

    type: ObjectiveType
    objective_metric_name: str
    goal: float | None = None
    additional_metric_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSetting:
    """One setting of an algorithm."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """The algorithm and its settings."""

    algorithm_name: str
    algorithm_settings: tuple[AlgorithmSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStoppingRule:
    """A trial that meets the rule from `start_step` reports on may be stopped."""

    name: str
    value: str
    comparison: ComparisonType
    start_step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStoppingSpec:
    """The early stopping algorithm and its settings."""

    algorithm_name: str
    algorithm_settings: tuple[AlgorithmSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig:
    """The network that an architecture search builds."""

    num_layers: int = 0
    input_sizes: tuple[int, ...] = ()
    output_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a layer of the network may do, and what of it is searched."""

    operation_type: str
    parameters: tuple[ParameterSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NasConfig:
    """The space of a neural architecture search."""

    graph_config: GraphConfig
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSpec:
    """What the algorithm has to know of an experiment; a count of 0 means unlimited."""

    parameters: tuple[ParameterSpec, ...]
    objective: ObjectiveSpec
    algorithm: AlgorithmSpec
    early_stopping: EarlyStoppingSpec | None = None
    parallel_trial_count: int = 0
    max_trial_count: int = 0
    nas_config: NasConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment."""

    name: str
    spec: ExperimentSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterAssignment:
    """The value of one parameter."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A value that a trial reached, chosen by the metric's strategy."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What a trial was given."""

    objective: ObjectiveSpec
    parameter_assignments: tuple[ParameterAssignment, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStatus:
    """How far a trial is; times are RFC 3339 texts, empty when unknown."""

    condition: TrialConditionType
    observation: tuple[Metric, ...] = ()
    start_time: str = ""
    completion_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial that exists."""

    name: str
    spec: TrialSpec
    status: TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class GetSuggestionsRequest:
    """Asks for `current_request_number` new assignments, the last of `total_request_number`."""

    experiment: Experiment
    trials: tuple[Trial, ...] = ()
    current_request_number: int = 1
    total_request_number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterAssignments:
    """One suggestion; an algorithm that names its trials says so, others leave it empty."""

    assignments: tuple[ParameterAssignment, ...]
    trial_name: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetSuggestionsReply:
    """As many suggestions as were asked for; `algorithm` carries settings to be kept."""

    parameter_assignments: tuple[ParameterAssignments, ...]
    algorithm: AlgorithmSpec | None = None
    early_stopping_rules: tuple[EarlyStoppingRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateAlgorithmSettingsRequest:
    """Asks whether the algorithm can work on this experiment."""

    experiment: Experiment
