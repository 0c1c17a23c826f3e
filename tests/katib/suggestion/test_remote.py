"""The client of Katib's suggestion service, against our server and against ones that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
from kubeflow.katib import katib_api_pb2 as api

from kubeloop.errors import TransientError
from kubeloop.katib.suggestion import (
    InvalidSettingsError,
    SearchExhaustedError,
    SuggestionService,
    UnreachableError,
)
from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    Distribution,
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
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.remote import RemoteSuggestion
from kubeloop.katib.suggestion.server import SuggestionServicer, serving

OBJECTIVE = ObjectiveSpec(
    type=ObjectiveType.MAXIMIZE,
    objective_metric_name="accuracy",
    goal=0.9,
    additional_metric_names=("loss",),
)
RATE = ParameterSpec(
    name="rate",
    parameter_type=ParameterType.DOUBLE,
    feasible_space=FeasibleSpace(
        min="0.01", max="1", step="0.01", distribution=Distribution.LOG_UNIFORM
    ),
)
KIND = ParameterSpec(
    name="kind",
    parameter_type=ParameterType.CATEGORICAL,
    feasible_space=FeasibleSpace(list=("a", "b"), distribution=Distribution.UNIFORM),
)
VALUES = (ParameterAssignment(name="rate", value="0.1"),)
REQUEST = GetSuggestionsRequest(
    experiment=Experiment(
        name="digits",
        spec=ExperimentSpec(
            parameters=(RATE, KIND),
            objective=OBJECTIVE,
            algorithm=AlgorithmSpec(
                algorithm_name="mine",
                algorithm_settings=(AlgorithmSetting(name="random_state", value="3"),),
            ),
            early_stopping=EarlyStoppingSpec(algorithm_name="medianstop"),
            parallel_trial_count=2,
            max_trial_count=8,
            nas_config=NasConfig(
                graph_config=GraphConfig(num_layers=2, input_sizes=(8, 8), output_sizes=(10,)),
                operations=(Operation(operation_type="convolution", parameters=(KIND,)),),
            ),
        ),
    ),
    trials=(
        Trial(
            name="digits-one",
            spec=TrialSpec(
                objective=OBJECTIVE, parameter_assignments=VALUES, labels={"generation": "1"}
            ),
            status=TrialStatus(
                condition=TrialConditionType.SUCCEEDED,
                observation=(Metric(name="accuracy", value="0.5"),),
                start_time="2026-01-01T00:00:00Z",
                completion_time="2026-01-01T00:00:01Z",
            ),
        ),
    ),
    current_request_number=1,
    total_request_number=2,
)
REPLY = GetSuggestionsReply(
    parameter_assignments=(
        ParameterAssignments(
            assignments=VALUES, trial_name="digits-two", labels={"generation": "2"}
        ),
    ),
    algorithm=AlgorithmSpec(
        algorithm_name="mine", algorithm_settings=(AlgorithmSetting(name="state", value="7"),)
    ),
)


class Recorder(SuggestionService):
    """Notes what it is asked, and answers one thing, or raises it."""

    def __init__(self, answer: GetSuggestionsReply | Exception = REPLY) -> None:
        self.asked: list[GetSuggestionsRequest | ValidateAlgorithmSettingsRequest] = []
        self._answer = answer

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        self.asked.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        self.asked.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer


@contextmanager
def remote(service: SuggestionService, **options: Any) -> Iterator[RemoteSuggestion]:
    with serving(SuggestionServicer({"mine": lambda: service}), host="127.0.0.1", port=0) as port:
        yield RemoteSuggestion(f"127.0.0.1:{port}", **options)


def test_nothing_is_lost_on_the_way_to_a_service_and_back() -> None:
    recorder = Recorder()
    with remote(recorder) as service:
        service.validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=REQUEST.experiment)
        )
        reply = service.get_suggestions(REQUEST)

    checked, asked = recorder.asked
    assert checked == ValidateAlgorithmSettingsRequest(experiment=REQUEST.experiment)
    assert asked == REQUEST
    assert reply == REPLY


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (InvalidSettingsError("no such setting"), InvalidSettingsError),
        (SearchExhaustedError("nothing is left"), SearchExhaustedError),
        (ZeroDivisionError("division by zero"), TransientError),
    ],
)
def test_faults_of_a_service_are_told_apart(raised: Exception, expected: type[Exception]) -> None:
    with remote(Recorder(raised)) as service, pytest.raises(expected, match=str(raised)) as caught:
        service.get_suggestions(REQUEST)

    assert type(caught.value) is expected


def test_nobody_at_the_endpoint_is_no_fault_of_the_service() -> None:
    with remote(Recorder()) as service:
        pass
    with pytest.raises(UnreachableError, match="UNAVAILABLE"):
        service.get_suggestions(REQUEST)


def test_a_service_that_does_not_answer_in_time_is_unreachable() -> None:
    may_answer = threading.Event()

    class Hanging(Recorder):
        def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
            may_answer.wait(20)
            return REPLY

    with remote(Hanging(), call_seconds=0.1) as service:
        with pytest.raises(UnreachableError, match="DEADLINE_EXCEEDED"):
            service.get_suggestions(REQUEST)
        may_answer.set()


def test_a_service_need_not_check_settings() -> None:
    class Plain(SuggestionServicer):
        def ValidateAlgorithmSettings(self, request: Any, context: Any) -> Any:  # noqa: N802
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
            return api.ValidateAlgorithmSettingsReply()

    with serving(Plain(), host="127.0.0.1", port=0) as port:
        RemoteSuggestion(f"127.0.0.1:{port}").validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=replace(REQUEST.experiment, name="other"))
        )
