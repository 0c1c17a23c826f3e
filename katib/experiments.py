"""Typed configuration of an experiment, and the Katib Experiment it becomes.

A wrong setting is refused here with the name of its field, by Katib's own rules, before anything is
submitted.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NoReturn

from kubeflow.katib import (
    V1beta1AlgorithmSetting,
    V1beta1AlgorithmSpec,
    V1beta1EarlyStoppingSetting,
    V1beta1EarlyStoppingSpec,
    V1beta1Experiment,
    V1beta1ExperimentSpec,
    V1beta1MetricStrategy,
    V1beta1ObjectiveSpec,
    V1beta1TrialTemplate,
)
from kubernetes.client import ApiClient, V1ObjectMeta

from kubeloop.errors import InputError
from kubeloop.katib.architectures import ASSIGNED_NAMES, ArchitectureSpace, build_nas_config
from kubeloop.katib.collectors import MetricsCollector, Push, StdOut, build_collector
from kubeloop.katib.experiment_checks import (
    check_budget,
    check_conditions,
    check_objective,
    check_search_space,
)
from kubeloop.katib.search_space import Categorical, SearchSpace, build_parameters
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.suggestion.early_stopping import EARLY_STOPPING, parse_early_stopping
from kubeloop.katib.suggestion.manifests import parse_experiment
from kubeloop.katib.suggestion.messages import ValidateAlgorithmSettingsRequest
from kubeloop.katib.templates import (
    build_trial_parameters,
    build_trial_spec,
    find_primary_container,
    quote_for_shell,
)

CONFIGURATION_ANNOTATION = "kubeloop.dev/configuration-digest"
"""Digest of the spec that was asked for, so that a retry knows its own experiment."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME_LENGTH = 40
_MAX_FAILED_TRIALS = 3
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class ObjectiveType(StrEnum):
    """Which values of the objective are better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise InputError(f"objective_type must be {' or '.join(cls)}, not {value!r}.")


class MetricStrategy(StrEnum):
    """Which of a metric's reports stands for the trial."""

    MIN = "min"
    MAX = "max"
    LATEST = "latest"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise InputError(f"objective.strategies must be one of {', '.join(cls)}, not {value!r}.")


class ResumePolicy(StrEnum):
    """Whether a finished experiment may be given more trials."""

    NEVER = "Never"
    LONG_RUNNING = "LongRunning"
    FROM_VOLUME = "FromVolume"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise InputError(f"resume_policy must be one of {', '.join(cls)}, not {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """What is optimised."""

    metric: str
    """Name of the metric, as the program prints it: `metric=value`."""
    type: ObjectiveType = ObjectiveType.MAXIMIZE
    """Which values are better."""
    goal: float | None = None
    """Value from which the search is over; unset: it uses its whole budget."""
    additional_metrics: tuple[str, ...] = ()
    """Metrics that are recorded besides."""
    strategies: Mapping[str, MetricStrategy] = field(default_factory=lambda: MappingProxyType({}))
    """By metric, which report counts; unset: the best one."""

    def __post_init__(self) -> None:
        """Refuse what Katib would refuse."""
        check_objective(
            self.metric,
            additional_metrics=self.additional_metrics,
            goal=self.goal,
            strategies=self.strategies,
        )
        strategies = {name: MetricStrategy(value) for name, value in self.strategies.items()}
        object.__setattr__(self, "type", ObjectiveType(self.type))
        object.__setattr__(self, "strategies", MappingProxyType(strategies))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """One experiment: which job, over which space, for which metric, within which budget."""

    name: str
    """Name of the custom resource: a DNS-1035 label of at most 40 characters."""
    job: object
    """The job of a trial: a manifest or an SDK's typed model, such as a PyTorchJob. The values of
    searched hyperparameters in it do not matter."""
    objective: ObjectiveConfig
    """What is optimised."""
    search_space: SearchSpace = field(default_factory=lambda: MappingProxyType({}))
    """What is searched, by name of the hyperparameter."""
    architectures: ArchitectureSpace | None = None
    """The networks that are searched, in place of `search_space`, by `enas` or `darts`. What the
    algorithm tells a trial (see `ASSIGNED_NAMES`) takes the place of values in the job."""
    namespace: str = "default"
    """Namespace of the experiment and its trials."""
    algorithm: str = "tpe"
    """Katib algorithm."""
    algorithm_settings: Mapping[str, str | int | float] = field(
        default_factory=lambda: _NO_SETTINGS
    )
    """Settings of the algorithm, such as `random_state`."""
    early_stopping: str = ""
    """Early stopping algorithm, such as `medianstop`; empty: all trials run to their end."""
    early_stopping_settings: Mapping[str, str | int | float] = field(
        default_factory=lambda: _NO_SETTINGS
    )
    """Settings of the early stopping algorithm, such as `start_step`."""
    max_trial_count: int | None = 12
    """Trials in all; None: until the goal is reached, or the search has no more to suggest."""
    parallel_trial_count: int = 2
    """Trials at a time."""
    max_failed_trial_count: int | None = None
    """Failed trials, or such without metrics, at which the experiment fails; unset: three, or all
    of them where there are fewer."""
    resume_policy: ResumePolicy = ResumePolicy.NEVER
    """Whether the finished experiment may be given more trials."""
    collector: MetricsCollector = field(default_factory=StdOut)
    """Where the metrics come from."""
    primary_container: str = ""
    """Container that prints the metrics; empty: the job's only one, or the usual of its kind."""
    success_condition: str = ""
    """GJSON path that says that a job has succeeded; empty: the usual of its kind."""
    failure_condition: str = ""
    """GJSON path that says that a job has failed; empty: the usual of its kind."""
    retain_trials: bool = False
    """Whether the jobs of finished trials stay."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_SETTINGS)
    """Labels of the experiment, its trials and their pods."""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_SETTINGS)
    """Annotations of the experiment."""

    def __post_init__(self) -> None:
        """Refuse what Katib would refuse later, less clearly."""
        if len(self.name) > _MAX_NAME_LENGTH or not _NAME.fullmatch(self.name):
            raise InputError(
                f"name must be at most {_MAX_NAME_LENGTH} lower-case letters, digits and '-', "
                f"starting with a letter, not {self.name!r}."
            )
        check_budget(
            max_trial_count=self.max_trial_count,
            parallel_trial_count=self.parallel_trial_count,
            max_failed_trial_count=self.max_failed_trial_count,
        )
        object.__setattr__(self, "resume_policy", ResumePolicy(self.resume_policy))
        if not isinstance(self.objective, ObjectiveConfig):
            raise InputError(f"objective must be an ObjectiveConfig, not {self.objective!r}.")
        if not self.algorithm:
            raise InputError("algorithm must name an algorithm of Katib's, such as 'tpe'.")
        if self.architectures is None:
            check_search_space(self.search_space)
        elif self.search_space:
            raise InputError("search_space must be empty where architectures is given.")
        elif self.algorithm not in ASSIGNED_NAMES:
            raise InputError(
                f"algorithm must be one of {', '.join(ASSIGNED_NAMES)} where architectures is "
                f"given, not {self.algorithm!r}."
            )


def build_experiment(config: ExperimentConfig) -> V1beta1Experiment:
    """Build the custom resource.

    Raises:
        InputError: The job does not take a searched hyperparameter, or the algorithm cannot work
            with its settings or the search space.
    """
    spec = V1beta1ExperimentSpec(
        objective=_build_objective(config.objective),
        algorithm=_build_algorithm(config),
        early_stopping=_build_early_stopping(config),
        parallel_trial_count=config.parallel_trial_count,
        max_trial_count=config.max_trial_count,
        max_failed_trial_count=_count_tolerated(config),
        resume_policy=config.resume_policy.value,
        parameters=build_parameters(config.search_space) or None,
        nas_config=config.architectures and build_nas_config(config.architectures),
        trial_template=_build_template(config),
        metrics_collector_spec=build_collector(config.collector),
    )
    experiment = V1beta1Experiment(
        api_version="kubeflow.org/v1beta1",
        kind="Experiment",
        metadata=V1ObjectMeta(
            name=config.name,
            namespace=config.namespace,
            labels=dict(config.labels) or None,
            annotations={**config.annotations, CONFIGURATION_ANNOTATION: _digest(spec)},
        ),
        spec=spec,
    )
    _check_algorithm(experiment)
    return experiment


def _count_tolerated(config: ExperimentConfig) -> int:
    if config.max_failed_trial_count is not None:
        return config.max_failed_trial_count
    return min(_MAX_FAILED_TRIALS, config.max_trial_count or _MAX_FAILED_TRIALS)


def _check_algorithm(experiment: V1beta1Experiment) -> None:
    """Ask the algorithms, where they are such that we have; Katib may know others."""
    manifest = ApiClient().sanitize_for_serialization(experiment)
    asked = parse_experiment(manifest)
    name = asked.spec.algorithm.algorithm_name
    if name in ALGORITHMS:
        try:
            ALGORITHMS[name]().validate_algorithm_settings(
                ValidateAlgorithmSettingsRequest(experiment=asked)
            )
        except InputError as error:
            raise InputError(f"algorithm {name}: {error}.") from error
    stopping = asked.spec.early_stopping
    if stopping is not None and stopping.algorithm_name in EARLY_STOPPING:
        try:
            parse_early_stopping(stopping)
        except InputError as error:
            raise InputError(f"early_stopping {stopping.algorithm_name}: {error}.") from error


def _build_objective(config: ObjectiveConfig) -> V1beta1ObjectiveSpec:
    best = MetricStrategy.MAX if config.type is ObjectiveType.MAXIMIZE else MetricStrategy.MIN
    names = (config.metric, *config.additional_metrics)
    return V1beta1ObjectiveSpec(
        type=config.type.value,
        goal=config.goal,
        objective_metric_name=config.metric,
        additional_metric_names=list(config.additional_metrics) or None,
        metric_strategies=[
            V1beta1MetricStrategy(name=name, value=config.strategies.get(name, best).value)
            for name in names
        ],
    )


def _build_algorithm(config: ExperimentConfig) -> V1beta1AlgorithmSpec:
    return V1beta1AlgorithmSpec(
        algorithm_name=config.algorithm,
        algorithm_settings=[
            V1beta1AlgorithmSetting(name=name, value=str(value))
            for name, value in config.algorithm_settings.items()
        ],
    )


def _build_early_stopping(config: ExperimentConfig) -> V1beta1EarlyStoppingSpec | None:
    if not config.early_stopping:
        return None
    return V1beta1EarlyStoppingSpec(
        algorithm_name=config.early_stopping,
        algorithm_settings=[
            V1beta1EarlyStoppingSetting(name=name, value=str(value))
            for name, value in config.early_stopping_settings.items()
        ],
    )


def _build_template(config: ExperimentConfig) -> V1beta1TrialTemplate:
    names = ASSIGNED_NAMES[config.algorithm] if config.architectures else config.search_space
    template = build_trial_spec(config.job, names)
    container = find_primary_container(template, wanted=config.primary_container)
    check_conditions(
        template["kind"],
        success_condition=config.success_condition,
        failure_condition=config.failure_condition,
    )
    if not isinstance(config.collector, Push):
        texts = names if config.architectures else _find_texts(config.search_space)
        quote_for_shell(template, container=container, texts=texts)
    return V1beta1TrialTemplate(
        trial_spec=template,
        trial_parameters=build_trial_parameters(template, names),
        primary_container_name=container,
        success_condition=config.success_condition or None,
        failure_condition=config.failure_condition or None,
        retain=config.retain_trials,
    )


def _find_texts(space: SearchSpace) -> list[str]:
    """Parameters with values that a shell would not pass on as they are."""
    return [
        name
        for name, parameter in space.items()
        if isinstance(parameter, Categorical)
        and any(shlex.quote(value) != value for value in parameter.values)
    ]


def _digest(spec: V1beta1ExperimentSpec) -> str:
    manifest: Any = ApiClient().sanitize_for_serialization(spec)
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
