"""Katib's protocol, spoken by a real client to a real server process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kubeflow.katib import katib_api_pb2 as api
from kubeflow.katib import katib_api_pb2_grpc as api_grpc

from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.suggestion.pbt import PARENT_LABEL
from kubeloop.katib.suggestion.protobuf import parse_request

Message = Any  # a generated message, which has no types

SERVER = [sys.executable, "-m", "kubeloop.katib.suggestion.server", "--host", "127.0.0.1"]
DEADLINE = 60.0
NUMBERS: Message = [
    api.ParameterSpec(
        name="rate",
        parameter_type=api.DOUBLE,
        feasible_space=api.FeasibleSpace(min="0.001", max="0.1", distribution=api.LOG_UNIFORM),
    ),
    api.ParameterSpec(
        name="depth",
        parameter_type=api.INT,
        feasible_space=api.FeasibleSpace(min="1", max="9", step="2", distribution=api.UNIFORM),
    ),
    api.ParameterSpec(
        name="optimizer",
        parameter_type=api.CATEGORICAL,
        feasible_space=api.FeasibleSpace(list=["sgd", "adam"]),
    ),
]
GRID = NUMBERS[1:]
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "hyperband": {"r_l": "1", "resource_name": "depth"},
    "asha": {"r_max": "9", "resource_name": "depth"},
    "pbt": {
        "suggestion_trial_dir": "/checkpoints",
        "n_population": "5",
        "truncation_threshold": "0.2",
    },
    "darts": {"num_epochs": "1"},
    "enas": {"controller_train_steps": "2"},
}


@dataclass(frozen=True, kw_only=True)
class Server:
    channel: Message
    data: Path

    @property
    def suggestion(self) -> Message:
        return api_grpc.SuggestionStub(self.channel)

    def suggest(self, request: Message) -> Message:
        return self.suggestion.GetSuggestions(request, timeout=DEADLINE)

    def validate(self, experiment: Message) -> Message:
        request = api.ValidateAlgorithmSettingsRequest(experiment=experiment)
        return self.suggestion.ValidateAlgorithmSettings(request, timeout=DEADLINE)


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [*SERVER, "--port", "0", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Serving on port" in line:
            return process, int(line.split()[-1])
    raise AssertionError(process.wait())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    process, port = start("--data", str(data))
    with process, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Server(channel=channel, data=data)
        process.terminate()
        assert process.wait(DEADLINE) == 0


def build_experiment(
    algorithm: str, settings: Mapping[str, str], *, parameters: Sequence[Message] = NUMBERS
) -> Message:
    spec = api.ExperimentSpec(
        objective=api.ObjectiveSpec(type=api.MAXIMIZE, objective_metric_name="accuracy"),
        algorithm=api.AlgorithmSpec(
            algorithm_name=algorithm,
            algorithm_settings=[
                api.AlgorithmSetting(name=name, value=value) for name, value in settings.items()
            ],
        ),
        parallel_trial_count=2,
        max_trial_count=8,
    )
    if algorithm in ("enas", "darts"):
        spec.nas_config.graph_config.num_layers = 2
        spec.nas_config.graph_config.input_sizes.extend([8, 8, 1])
        spec.nas_config.graph_config.output_sizes.append(10)
        operation = spec.nas_config.operations.operation.add(operation_type="convolution")
        operation.parameter_specs.parameters.add(
            name="filter_size",
            parameter_type=api.CATEGORICAL,
            feasible_space=api.FeasibleSpace(list=["3", "5"]),
        )
    else:
        spec.parameter_specs.parameters.extend(parameters)
    return api.Experiment(name="experiment", spec=spec)


def describe(algorithm: str) -> Message:
    """An experiment that the algorithm accepts, with a seed."""
    settings = dict(SETTINGS.get(algorithm, {}))
    if algorithm != "darts":
        settings["random_state"] = "5"
    parameters = GRID if algorithm == "grid" else NUMBERS
    return build_experiment(algorithm, settings, parameters=parameters)


def build_trials(suggestions: Sequence[Message], experiment: Message) -> list[Message]:
    """Trials that have succeeded."""
    return [
        api.Trial(
            name=suggestion.trial_name or f"trial-{index}",
            spec=api.TrialSpec(
                objective=experiment.spec.objective,
                parameter_assignments=api.TrialSpec.ParameterAssignments(
                    assignments=suggestion.assignments
                ),
                labels=suggestion.labels,
            ),
            status=api.TrialStatus(
                condition=api.TrialStatus.SUCCEEDED,
                start_time="2026-01-02T15:04:05Z",
                completion_time="2026-01-02T15:05:05Z",
                observation=api.Observation(
                    metrics=[api.Metric(name="accuracy", value=str(0.5 + index / 100))]
                ),
            ),
        )
        for index, suggestion in enumerate(suggestions)
    ]


def test_the_server_is_healthy_under_the_names_that_are_probed(server: Server) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)

    for name in ("", "manager.v1beta1.Suggestion", "api.v1.beta1.Suggestion"):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=DEADLINE).status == 1  # SERVING


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_answers_over_the_wire_as_in_process(
    server: Server, algorithm: str
) -> None:
    experiment = describe(algorithm)
    server.validate(experiment)
    first = server.suggest(
        api.GetSuggestionsRequest(
            experiment=experiment, current_request_number=5, total_request_number=5
        )
    )
    request = api.GetSuggestionsRequest(
        experiment=experiment,
        trials=build_trials(first.parameter_assignments, experiment),
        current_request_number=2,
        total_request_number=7,
    )

    reply = server.suggest(request)

    expected = ALGORITHMS[algorithm]().get_suggestions(parse_request(request))
    assert [
        (
            [(a.name, a.value) for a in suggestion.assignments],
            suggestion.trial_name,
            dict(suggestion.labels),
        )
        for suggestion in reply.parameter_assignments
    ] == [
        (
            [(a.name, a.value) for a in suggestion.assignments],
            suggestion.trial_name,
            dict(suggestion.labels),
        )
        for suggestion in expected.parameter_assignments
    ]
    kept = expected.algorithm.algorithm_settings if expected.algorithm else ()
    assert [(s.name, s.value) for s in reply.algorithm.algorithm_settings] == [
        (s.name, s.value) for s in kept
    ]


@pytest.mark.parametrize(
    ("experiment", "text"),
    [
        (build_experiment("tpe", {"gamma": "2"}), r"gamma must be a number in (0, 1), not '2'"),
        (build_experiment("cmaes", {}, parameters=GRID), "cmaes needs at least two parameters"),
        (build_experiment("annealing", {}), "Unknown algorithm 'annealing'; known are: asha,"),
    ],
)
def test_what_cannot_be_used_is_an_invalid_argument(
    server: Server, experiment: Message, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.validate(experiment)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()


def test_a_grid_at_its_end_is_out_of_range(server: Server) -> None:
    experiment = describe("grid")
    first = server.suggest(
        api.GetSuggestionsRequest(
            experiment=experiment, current_request_number=10, total_request_number=10
        )
    )

    with pytest.raises(grpc.RpcError) as caught:
        server.suggest(
            api.GetSuggestionsRequest(
                experiment=experiment,
                trials=build_trials(first.parameter_assignments, experiment),
                current_request_number=1,
                total_request_number=11,
            )
        )

    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


def test_population_based_training_finds_the_folders_of_parents(server: Server) -> None:
    experiment = describe("pbt")
    first = server.suggest(
        api.GetSuggestionsRequest(
            experiment=experiment, current_request_number=5, total_request_number=5
        )
    )
    folder = server.data / "experiment"
    for suggestion in first.parameter_assignments:
        (folder / suggestion.trial_name / "weights").write_text(suggestion.trial_name)

    heirs = server.suggest(
        api.GetSuggestionsRequest(
            experiment=experiment,
            trials=build_trials(first.parameter_assignments, experiment),
            current_request_number=5,
            total_request_number=10,
        )
    )

    for heir in heirs.parameter_assignments:
        weights = folder / heir.trial_name / "weights"
        assert weights.read_text() == heir.labels[PARENT_LABEL]


def test_the_server_ends_when_it_is_interrupted() -> None:
    process, _ = start()

    with process:
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
