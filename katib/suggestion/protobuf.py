"""Katib's protocol messages as ours, and ours as Katib's; needs Katib's SDK for its messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    ComparisonType,
    Distribution,
    EarlyStoppingRule,
    EarlyStoppingSpec,
    Experiment,
    ExperimentSpec,
    FeasibleSpace,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    GraphConfig,
    Metric,
    NasConfig,
    ObjectiveSpec,
    ObjectiveType,
    Operation,
    ParameterAssignment,
    ParameterAssignments,
    ParameterSpec,
    ParameterType,
    Trial,
    TrialConditionType,
    TrialSpec,
    TrialStatus,
)
from kubeloop.optional_imports import import_from_extra

with import_from_extra("katib", why="The suggestion server needs the messages of Katib's SDK"):
    from kubeflow.katib import katib_api_pb2 as api

Message = Any  # a generated message, which has no types


def parse_request(message: Message) -> GetSuggestionsRequest:
    """Read a GetSuggestionsRequest."""
    return GetSuggestionsRequest(
        experiment=parse_experiment(message.experiment),
        trials=tuple(map(_parse_trial, message.trials)),
        current_request_number=message.current_request_number,
        total_request_number=message.total_request_number,
    )


def parse_experiment(message: Message) -> Experiment:
    """Read an Experiment."""
    spec = message.spec
    return Experiment(
        name=message.name,
        spec=ExperimentSpec(
            parameters=_parse_parameters(spec.parameter_specs.parameters),
            objective=_parse_objective(spec.objective),
            algorithm=AlgorithmSpec(
                algorithm_name=spec.algorithm.algorithm_name,
                algorithm_settings=_parse_settings(spec.algorithm.algorithm_settings),
            ),
            early_stopping=(
                EarlyStoppingSpec(
                    algorithm_name=spec.early_stopping.algorithm_name,
                    algorithm_settings=_parse_settings(spec.early_stopping.algorithm_settings),
                )
                if spec.HasField("early_stopping")
                else None
            ),
            parallel_trial_count=spec.parallel_trial_count,
            max_trial_count=spec.max_trial_count,
            nas_config=(
                _parse_nas_config(spec.nas_config) if spec.HasField("nas_config") else None
            ),
        ),
    )


def render_request(request: GetSuggestionsRequest) -> Message:
    """Write a GetSuggestionsRequest."""
    return api.GetSuggestionsRequest(
        experiment=render_experiment(request.experiment),
        trials=map(_render_trial, request.trials),
        current_request_number=request.current_request_number,
        total_request_number=request.total_request_number,
    )


def render_experiment(experiment: Experiment) -> Message:
    """Write an Experiment."""
    spec = experiment.spec
    message = api.ExperimentSpec(
        parameter_specs=api.ExperimentSpec.ParameterSpecs(
            parameters=map(_render_parameter, spec.parameters)
        ),
        objective=_render_objective(spec.objective),
        algorithm=api.AlgorithmSpec(
            algorithm_name=spec.algorithm.algorithm_name,
            algorithm_settings=_render_settings(spec.algorithm.algorithm_settings),
        ),
        parallel_trial_count=spec.parallel_trial_count,
        max_trial_count=spec.max_trial_count,
    )
    if spec.early_stopping is not None:
        message.early_stopping.CopyFrom(render_early_stopping(spec.early_stopping))
    if spec.nas_config is not None:
        message.nas_config.CopyFrom(_render_nas_config(spec.nas_config))
    return api.Experiment(name=experiment.name, spec=message)


def render_trials(trials: Iterable[Trial]) -> list[Message]:
    """Write Trials."""
    return [_render_trial(trial) for trial in trials]


def render_early_stopping(early_stopping: EarlyStoppingSpec) -> Message:
    """Write an EarlyStoppingSpec."""
    return api.EarlyStoppingSpec(
        algorithm_name=early_stopping.algorithm_name,
        algorithm_settings=[
            api.EarlyStoppingSetting(name=setting.name, value=setting.value)
            for setting in early_stopping.algorithm_settings
        ],
    )


def parse_reply(message: Message) -> GetSuggestionsReply:
    """Read a GetSuggestionsReply."""
    return GetSuggestionsReply(
        parameter_assignments=tuple(
            ParameterAssignments(
                assignments=tuple(
                    ParameterAssignment(name=value.name, value=value.value)
                    for value in entry.assignments
                ),
                trial_name=entry.trial_name,
                labels=dict(entry.labels),
            )
            for entry in message.parameter_assignments
        ),
        algorithm=(
            AlgorithmSpec(
                algorithm_name=message.algorithm.algorithm_name,
                algorithm_settings=_parse_settings(message.algorithm.algorithm_settings),
            )
            if message.HasField("algorithm")
            else None
        ),
        early_stopping_rules=parse_rules(message.early_stopping_rules),
    )


def parse_rules(messages: Iterable[Message]) -> tuple[EarlyStoppingRule, ...]:
    """Read EarlyStoppingRules."""
    return tuple(
        EarlyStoppingRule(
            name=message.name,
            value=message.value,
            comparison=ComparisonType(message.comparison),
            start_step=message.start_step,
        )
        for message in messages
    )


def render_reply(reply: GetSuggestionsReply) -> Message:
    """Write a GetSuggestionsReply."""
    message = api.GetSuggestionsReply(
        parameter_assignments=map(_render_suggestion, reply.parameter_assignments)
    )
    if reply.algorithm is not None:
        message.algorithm.algorithm_name = reply.algorithm.algorithm_name
        for setting in reply.algorithm.algorithm_settings:
            message.algorithm.algorithm_settings.add(name=setting.name, value=setting.value)
    for rule in reply.early_stopping_rules:
        message.early_stopping_rules.add(
            name=rule.name,
            value=rule.value,
            comparison=rule.comparison,
            start_step=rule.start_step,
        )
    return message


def _render_suggestion(suggestion: ParameterAssignments) -> Message:
    return api.GetSuggestionsReply.ParameterAssignments(
        assignments=[
            api.ParameterAssignment(name=entry.name, value=entry.value)
            for entry in suggestion.assignments
        ],
        trial_name=suggestion.trial_name,
        labels=suggestion.labels,
    )


def _render_parameter(parameter: ParameterSpec) -> Message:
    space = parameter.feasible_space
    return api.ParameterSpec(
        name=parameter.name,
        parameter_type=parameter.parameter_type,
        feasible_space=api.FeasibleSpace(
            max=space.max,
            min=space.min,
            list=space.list,
            step=space.step,
            distribution=space.distribution,
        ),
    )


def _render_objective(objective: ObjectiveSpec) -> Message:
    return api.ObjectiveSpec(
        type=objective.type,
        goal=objective.goal,
        objective_metric_name=objective.objective_metric_name,
        additional_metric_names=objective.additional_metric_names,
    )


def _render_settings(settings: Iterable[AlgorithmSetting]) -> list[Message]:
    return [api.AlgorithmSetting(name=entry.name, value=entry.value) for entry in settings]


def _render_nas_config(nas_config: NasConfig) -> Message:
    graph = nas_config.graph_config
    return api.NasConfig(
        graph_config=api.GraphConfig(
            num_layers=graph.num_layers,
            input_sizes=graph.input_sizes,
            output_sizes=graph.output_sizes,
        ),
        operations=api.NasConfig.Operations(
            operation=[
                api.Operation(
                    operation_type=operation.operation_type,
                    parameter_specs=api.Operation.ParameterSpecs(
                        parameters=map(_render_parameter, operation.parameters)
                    ),
                )
                for operation in nas_config.operations
            ]
        ),
    )


def _render_trial(trial: Trial) -> Message:
    spec, status = trial.spec, trial.status
    return api.Trial(
        name=trial.name,
        spec=api.TrialSpec(
            objective=_render_objective(spec.objective),
            parameter_assignments=api.TrialSpec.ParameterAssignments(
                assignments=[
                    api.ParameterAssignment(name=entry.name, value=entry.value)
                    for entry in spec.parameter_assignments
                ]
            ),
            labels=dict(spec.labels),
        ),
        status=api.TrialStatus(
            condition=status.condition,
            observation=api.Observation(
                metrics=[
                    api.Metric(name=metric.name, value=metric.value)
                    for metric in status.observation
                ]
            ),
            start_time=status.start_time,
            completion_time=status.completion_time,
        ),
    )


def _parse_parameters(messages: Iterable[Message]) -> tuple[ParameterSpec, ...]:
    return tuple(
        ParameterSpec(
            name=message.name,
            parameter_type=ParameterType(message.parameter_type),
            feasible_space=FeasibleSpace(
                max=message.feasible_space.max,
                min=message.feasible_space.min,
                list=tuple(message.feasible_space.list),
                step=message.feasible_space.step,
                distribution=Distribution(message.feasible_space.distribution),
            ),
        )
        for message in messages
    )


def _parse_objective(message: Message) -> ObjectiveSpec:
    return ObjectiveSpec(
        type=ObjectiveType(message.type),
        objective_metric_name=message.objective_metric_name,
        goal=message.goal or None,  # NB: the protocol does not tell 0 from none
        additional_metric_names=tuple(message.additional_metric_names),
    )


def _parse_settings(messages: Iterable[Message]) -> tuple[AlgorithmSetting, ...]:
    """Settings by name, of which the last counts."""
    merged = {message.name: message.value for message in messages}
    return tuple(AlgorithmSetting(name=name, value=value) for name, value in merged.items())


def _parse_nas_config(message: Message) -> NasConfig:
    graph = message.graph_config
    return NasConfig(
        graph_config=GraphConfig(
            num_layers=graph.num_layers,
            input_sizes=tuple(graph.input_sizes),
            output_sizes=tuple(graph.output_sizes),
        ),
        operations=tuple(
            Operation(
                operation_type=operation.operation_type,
                parameters=_parse_parameters(operation.parameter_specs.parameters),
            )
            for operation in message.operations.operation
        ),
    )


def _parse_trial(message: Message) -> Trial:
    spec, status = message.spec, message.status
    return Trial(
        name=message.name,
        spec=TrialSpec(
            objective=_parse_objective(spec.objective),
            parameter_assignments=tuple(
                ParameterAssignment(name=entry.name, value=entry.value)
                for entry in spec.parameter_assignments.assignments
            ),
            labels=dict(spec.labels),
        ),
        status=TrialStatus(
            condition=TrialConditionType(status.condition),
            observation=tuple(
                Metric(name=metric.name, value=metric.value)
                for metric in status.observation.metrics
            ),
            start_time=status.start_time,
            completion_time=status.completion_time,
        ),
    )
