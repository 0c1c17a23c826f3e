"""What an experiment has found, read from its custom resources through Katib's client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from kubeloop.errors import PermanentError
from kubeloop.katib.clients import Client, find_experiment, find_suggestion, list_trials

UNAVAILABLE = "unavailable"
ParameterValue = str | int | float


class ExperimentStatus(StrEnum):
    """How far an experiment is."""

    CREATED = "Created"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class TrialStatus(StrEnum):
    """How far a trial is; Pending until Katib says otherwise."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    KILLED = "Killed"
    EARLY_STOPPED = "EarlyStopped"
    METRICS_UNAVAILABLE = "MetricsUnavailable"


_ACTIVE = (TrialStatus.PENDING, TrialStatus.RUNNING)
_BAD = (TrialStatus.FAILED, TrialStatus.METRICS_UNAVAILABLE, TrialStatus.KILLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One trial."""

    name: str
    status: TrialStatus
    parameters: Mapping[str, ParameterValue]
    """Values in the types of the search space."""
    metrics: Mapping[str, float]
    """By metric, the value that its strategy chooses; without those that were never reported."""
    objective: float | None
    """The objective's value, None while there is none."""
    message: str
    """What Katib says of its state."""
    started_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits to."""
        return self.status in _ACTIVE

    @property
    def is_bad(self) -> bool:
        """Whether it ended without a result."""
        return self.status in _BAD


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpace:
    """What a parameter may be: numbers between bounds, or one of some values."""

    kind: str
    """Katib's parameter type: double, int, categorical or discrete."""
    min: float | None = None
    max: float | None = None
    values: tuple[ParameterValue, ...] = ()
    is_log: bool = False
    """Whether orders of magnitude count."""

    @property
    def text(self) -> str:
        """The space in a few words."""
        if self.min is None or self.max is None:
            return ", ".join(map(str, self.values))
        return f"{self.min:g} to {self.max:g}{' (log)' if self.is_log else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """An experiment and its trials, in the order in which they were suggested."""

    name: str
    namespace: str
    status: ExperimentStatus
    reason: str
    message: str
    objective_metric: str
    is_maximized: bool
    max_trial_count: int | None
    trials: tuple[TrialResult, ...]
    parallel_trial_count: int | None = None
    algorithm: str = ""
    resume_policy: str = ""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    search_space: Mapping[str, ParameterSpace] = field(default_factory=dict)
    """What was searched, by parameter."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.status in (ExperimentStatus.SUCCEEDED, ExperimentStatus.FAILED)

    @property
    def best(self) -> TrialResult | None:
        """The trial with the best objective, the first of equals; None while there is none."""
        return self.best_of(self.trials)

    def best_of(self, trials: Iterable[TrialResult]) -> TrialResult | None:
        """The one of `trials` with the best objective, the first of equals."""
        found = [trial for trial in trials if trial.objective is not None]
        sign = 1 if self.is_maximized else -1
        return max(found, key=lambda trial: sign * (trial.objective or 0.0), default=None)

    @property
    def num_done(self) -> int:
        """Trials that have ended, well or badly."""
        return sum(not trial.is_active for trial in self.trials)

    def require_best(self) -> TrialResult:
        """The best trial.

        Raises:
            PermanentError: No trial has reported the objective.
        """
        if self.best is None:
            raise PermanentError(
                f"Experiment {self.namespace}/{self.name} has no best trial: none of its "
                f"{len(self.trials)} trials reported {self.objective_metric}."
            )
        return self.best


def read_results(name: str, *, namespace: str, client: Client) -> ExperimentResult | None:
    """Read an experiment and its trials; None when there is no such experiment."""
    experiment = find_experiment(client, name, namespace=namespace)
    return None if experiment is None else read_trials(experiment, client=client)


def read_trials(experiment: Any, *, client: Client) -> ExperimentResult:  # V1beta1Experiment
    """Read the trials of an experiment that was read before."""
    metadata, spec = experiment.metadata, experiment.spec
    trials = list_trials(client, metadata.name, namespace=metadata.namespace)
    suggestion = find_suggestion(client, metadata.name, namespace=metadata.namespace)
    suggested = (suggestion.status.suggestions if suggestion and suggestion.status else None) or ()
    order = {assignment.name: index for index, assignment in enumerate(suggested)}
    trials.sort(key=lambda trial: (order.get(trial.metadata.name, len(order)), trial.metadata.name))
    kinds = {p.name: p.parameter_type for p in spec.parameters or ()}
    last = _last_condition(experiment)
    return ExperimentResult(
        name=metadata.name,
        namespace=metadata.namespace,
        status=parse_status(experiment),
        reason=(last.reason if last else None) or "",
        message=(last.message if last else None) or "",
        objective_metric=spec.objective.objective_metric_name,
        is_maximized=spec.objective.type == "maximize",
        max_trial_count=spec.max_trial_count,
        trials=tuple(_parse_trial(trial, kinds) for trial in trials),
        parallel_trial_count=spec.parallel_trial_count,
        algorithm=spec.algorithm.algorithm_name if spec.algorithm else "",
        resume_policy=spec.resume_policy or "",
        started_at=experiment.status.start_time if experiment.status else None,
        completed_at=experiment.status.completion_time if experiment.status else None,
        search_space={p.name: _parse_space(p) for p in spec.parameters or ()},
        annotations=dict(metadata.annotations or {}),
        labels=dict(metadata.labels or {}),
    )


def _parse_space(parameter: Any) -> ParameterSpace:  # V1beta1ParameterSpec
    space, kind = parameter.feasible_space, parameter.parameter_type
    low, high = (_parse_value(str(text), "double") for text in (space.min, space.max))
    return ParameterSpace(
        kind=kind,
        min=low if isinstance(low, float) else None,
        max=high if isinstance(high, float) else None,
        values=tuple(_parse_value(text, kind) for text in space.list or ()),
        is_log=(space.distribution or "").lower().startswith("log"),
    )


def _last_condition(resource: Any) -> Any:  # an SDK's model → its condition
    conditions = (resource.status.conditions if resource.status else None) or ()
    return conditions[-1] if conditions else None


def parse_status(experiment: Any) -> ExperimentStatus:  # V1beta1Experiment
    """How far an experiment is, by its last condition."""
    condition = _last_condition(experiment)
    known = ExperimentStatus.__members__.values()
    name = condition.type if condition is not None and condition.status == "True" else ""
    return next((status for status in known if status == name), ExperimentStatus.CREATED)


def _parse_trial(trial: Any, kinds: Mapping[str, str]) -> TrialResult:  # V1beta1Trial
    status, last = trial.status, _last_condition(trial)
    strategies = {s.name: s.value for s in trial.spec.objective.metric_strategies or ()}
    observation = status.observation if status else None
    metrics = _parse_metrics((observation.metrics if observation else None) or (), strategies)
    known = TrialStatus.__members__.values()
    kind = last.type if last is not None else ""
    return TrialResult(
        name=trial.metadata.name,
        status=next((status for status in known if status == kind), TrialStatus.PENDING),
        parameters={
            assignment.name: _parse_value(assignment.value, kinds.get(assignment.name, ""))
            for assignment in trial.spec.parameter_assignments or ()
        },
        metrics=metrics,
        objective=metrics.get(trial.spec.objective.objective_metric_name),
        message=(last.message if last else None) or "",
        started_at=status.start_time if status else None,
        completed_at=status.completion_time if status else None,
    )


def _parse_metrics(metrics: Sequence[Any], strategies: Mapping[str, str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric in metrics:  # V1beta1Metric
        chosen = getattr(metric, strategies.get(metric.name, "latest"))
        text = metric.latest if chosen in (None, UNAVAILABLE) else chosen
        try:
            value = float(text)
        except (TypeError, ValueError):
            continue
        if not math.isnan(value):
            values[metric.name] = value
    return values


def _parse_value(text: str, kind: str) -> ParameterValue:
    """The value in the type of its parameter; a text stays one."""
    try:
        if kind == "int":
            return int(text)
        if kind in ("double", "discrete"):
            value = float(text)
            return int(value) if kind == "discrete" and text == str(int(value)) else value
    except (ValueError, OverflowError):
        pass
    return text
