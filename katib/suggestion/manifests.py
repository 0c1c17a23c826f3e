"""Reads Katib's custom resources as the messages of the suggestion service.

Source: katib v0.19 `suggestionclient/suggestionclient.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    Distribution,
    EarlyStoppingSpec,
    Experiment,
    ExperimentSpec,
    FeasibleSpace,
    GraphConfig,
    Metric,
    NasConfig,
    ObjectiveSpec,
    ObjectiveType,
    Operation,
    ParameterAssignment,
    ParameterSpec,
    ParameterType,
    Trial,
    TrialConditionType,
    TrialSpec,
    TrialStatus,
)

Manifest = Mapping[str, Any]  # raw JSON of one object

UNAVAILABLE = "unavailable"
"""What Katib writes in place of a metric's value that was never reported."""

_STOPPED = TrialConditionType.EARLYSTOPPED
_DISTRIBUTIONS = {
    "uniform": Distribution.UNIFORM,
    "logUniform": Distribution.LOG_UNIFORM,
    "normal": Distribution.NORMAL,
    "logNormal": Distribution.LOG_NORMAL,
}


def parse_experiment(manifest: Manifest, *, settings: Iterable[Manifest] = ()) -> Experiment:
    """An Experiment as the algorithm sees it.

    Args:
        manifest: The custom resource.
        settings: Settings that an earlier reply of the algorithm asked to keep; they win over the
            experiment's own.
    """
    spec = manifest["spec"]
    return Experiment(
        name=manifest["metadata"]["name"],
        spec=ExperimentSpec(
            parameters=tuple(map(_parse_parameter, spec.get("parameters") or ())),
            objective=_parse_objective(spec["objective"]),
            algorithm=_parse_algorithm(spec["algorithm"], settings),
            early_stopping=_parse_early_stopping(spec.get("earlyStopping")),
            parallel_trial_count=spec.get("parallelTrialCount") or 0,
            max_trial_count=spec.get("maxTrialCount") or 0,
            nas_config=_parse_nas_config(spec.get("nasConfig")),
        ),
    )


def parse_trials(manifests: Iterable[Manifest]) -> tuple[Trial, ...]:
    """The trials that an algorithm may learn from.

    Left out are those whose metrics are not available, and early stopped ones that reported
    nothing.
    """
    trials = map(_parse_trial, manifests)
    return tuple(
        trial
        for trial in trials
        if trial.status.condition is not TrialConditionType.METRICSUNAVAILABLE
        and (trial.status.observation or trial.status.condition is not _STOPPED)
    )


def choose_value(metric: Manifest, strategy: str) -> str:
    """A metric's value by its strategy: min, max or latest; latest where the other is missing."""
    value = metric.get(strategy) or UNAVAILABLE
    return str(metric.get("latest", UNAVAILABLE) if value == UNAVAILABLE else value)


def parse_strategies(objective: Manifest) -> dict[str, str]:
    """The strategy of each metric."""
    return {entry["name"]: entry["value"] for entry in objective.get("metricStrategies") or ()}


def _parse_parameter(parameter: Manifest) -> ParameterSpec:
    space = parameter.get("feasibleSpace") or {}
    kind = str(parameter.get("parameterType", "")).upper()
    return ParameterSpec(
        name=parameter["name"],
        parameter_type=ParameterType.__members__.get(kind, ParameterType.UNKNOWN_TYPE),
        feasible_space=FeasibleSpace(
            max=space.get("max") or "",
            min=space.get("min") or "",
            list=tuple(space.get("list") or ()),
            step=space.get("step") or "",
            distribution=_DISTRIBUTIONS.get(space.get("distribution") or "uniform")
            or Distribution.DISTRIBUTION_UNSPECIFIED,
        ),
    )


def _parse_objective(objective: Manifest) -> ObjectiveSpec:
    kind = str(objective.get("type", "")).upper()
    return ObjectiveSpec(
        type=ObjectiveType.__members__.get(kind, ObjectiveType.UNKNOWN),
        goal=objective.get("goal"),
        objective_metric_name=objective["objectiveMetricName"],
        additional_metric_names=tuple(objective.get("additionalMetricNames") or ()),
    )


def _parse_algorithm(algorithm: Manifest, settings: Iterable[Manifest]) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm_name=algorithm["algorithmName"],
        algorithm_settings=_parse_settings(
            (*(algorithm.get("algorithmSettings") or ()), *settings)
        ),
    )


def _parse_early_stopping(early_stopping: Manifest | None) -> EarlyStoppingSpec | None:
    if not early_stopping:
        return None
    return EarlyStoppingSpec(
        algorithm_name=early_stopping.get("algorithmName") or "",
        algorithm_settings=_parse_settings(early_stopping.get("algorithmSettings") or ()),
    )


def _parse_settings(entries: Iterable[Manifest]) -> tuple[AlgorithmSetting, ...]:
    """Settings by name, of which the last counts."""
    merged = {entry["name"]: str(entry.get("value", "")) for entry in entries}
    return tuple(AlgorithmSetting(name=name, value=value) for name, value in merged.items())


def _parse_nas_config(nas_config: Manifest | None) -> NasConfig | None:
    if not nas_config:
        return None
    graph = nas_config.get("graphConfig") or {}
    return NasConfig(
        graph_config=GraphConfig(
            num_layers=graph.get("numLayers") or 0,
            input_sizes=tuple(graph.get("inputSizes") or ()),
            output_sizes=tuple(graph.get("outputSizes") or ()),
        ),
        operations=tuple(
            Operation(
                operation_type=operation["operationType"],
                parameters=tuple(map(_parse_parameter, operation.get("parameters") or ())),
            )
            for operation in nas_config.get("operations") or ()
        ),
    )


def _parse_trial(manifest: Manifest) -> Trial:
    spec, status = manifest["spec"], manifest.get("status") or {}
    strategies = parse_strategies(spec["objective"])
    return Trial(
        name=manifest["metadata"]["name"],
        spec=TrialSpec(
            objective=_parse_objective(spec["objective"]),
            parameter_assignments=tuple(
                ParameterAssignment(name=entry["name"], value=entry["value"])
                for entry in spec.get("parameterAssignments") or ()
            ),
            labels=spec.get("labels") or {},
        ),
        status=TrialStatus(
            condition=_parse_condition(status.get("conditions") or ()),
            observation=tuple(
                Metric(
                    name=metric["name"],
                    value=choose_value(metric, strategies.get(metric["name"], "latest")),
                )
                for metric in (status.get("observation") or {}).get("metrics") or ()
            ),
            start_time=status.get("startTime") or "",
            completion_time=status.get("completionTime") or "",
        ),
    )


def _parse_condition(conditions: Iterable[Manifest]) -> TrialConditionType:
    """The last condition decides: it is the newest."""
    *_, last = ("", *(str(entry["type"]).upper() for entry in conditions))
    if not last:
        return TrialConditionType.CREATED
    return TrialConditionType.__members__.get(last, TrialConditionType.UNKNOWN)
