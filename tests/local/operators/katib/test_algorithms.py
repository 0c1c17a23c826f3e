"""What algorithms may do to the operators: be slow, fail, know more than values."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from kubeloop.katib.suggestion import ALGORITHMS, SuggestionService
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignment,
    ParameterAssignments,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.random_search import RandomSearch
from kubeloop.local.api.resources import SUGGESTIONS, TRIALS
from kubeloop.testing.katib_lab import (
    Exit,
    Lab,
    build_experiment,
    build_pytorch_job,
    hang,
    play,
    print_accuracy,
)
from kubeloop.testing.waiting import wait_until

PATIENCE_SECONDS = 20


class Slow(SuggestionService):
    """Random search that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.may_answer = threading.Event()

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        self.asked.append((request.current_request_number, request.total_request_number))
        assert self.may_answer.wait(PATIENCE_SECONDS)
        return RandomSearch().get_suggestions(request)

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        pass


def test_what_a_slow_algorithm_suggests_is_kept_when_more_is_asked_meanwhile(
    tmp_path: Path,
) -> None:
    slow = Slow()

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1))
        await wait_until(lambda: len(slow.asked) == 1)
        experiment = await lab.get()
        experiment["spec"]["parallelTrialCount"] = 3
        await lab.client.replace(experiment)

        async def is_more_asked() -> bool:
            return bool((await lab.get(SUGGESTIONS))["spec"]["requests"] == 3)

        await wait_until(is_more_asked)
        slow.may_answer.set()
        await wait_until(lambda: lab.counts(trials=3, trialsRunning=3))

        assert slow.asked == [(1, 1), (2, 3)]

    play(hang, scenario, folder=tmp_path, algorithms={**ALGORITHMS, "random": lambda: slow})


def test_a_slow_algorithm_holds_nobody_else_up(tmp_path: Path) -> None:
    slow = Slow()

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment("slow"))
        await wait_until(lambda: len(slow.asked) == 1)
        quick = build_experiment(algorithm={"algorithmName": "sobol"})
        await lab.submit(quick)

        await lab.wait_for("Succeeded")

        slow.may_answer.set()

    play(
        print_accuracy,
        scenario,
        folder=tmp_path,
        algorithms={**ALGORITHMS, "random": lambda: slow},
    )


class Broken(SuggestionService):
    """Cannot even check its settings."""

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        raise AssertionError("it is never asked")

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        raise ZeroDivisionError("division by zero")


def test_an_algorithm_that_breaks_while_it_checks_fails_the_suggestion(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        await lab.wait_for("Failed")

        assert (await lab.condition(SUGGESTIONS))["message"] == (
            "Validation failed: ZeroDivisionError: division by zero"
        )

    play(print_accuracy, scenario, folder=tmp_path, algorithms={**ALGORITHMS, "random": Broken})


ARCHITECTURE = json.dumps([[0], [1, 1]])
CONFIG = json.dumps({"num_layers": 2, "embedding": {"0": {"opt_type": "convolution"}}})


class Architect(SuggestionService):
    """Suggests one network, from the space that it is given."""

    def __init__(self) -> None:
        self.requests: list[GetSuggestionsRequest] = []

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        self.requests.append(request)
        values = (
            ParameterAssignment(name="architecture", value=ARCHITECTURE),
            ParameterAssignment(name="nn_config", value=CONFIG),
        )
        number = request.current_request_number
        return GetSuggestionsReply(
            parameter_assignments=(ParameterAssignments(assignments=values),) * number
        )

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        assert request.experiment.spec.nas_config is not None


NAS_CONFIG = {
    "graphConfig": {"numLayers": 2, "inputSizes": [8, 8, 1], "outputSizes": [10]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [
                {
                    "name": "filter_size",
                    "parameterType": "categorical",
                    "feasibleSpace": {"list": ["3", "5"]},
                }
            ],
        }
    ],
}


def test_an_architecture_search_gets_its_space_and_trials_get_whole_networks(
    tmp_path: Path,
) -> None:
    architect = Architect()
    job = build_pytorch_job()
    container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    container["args"] = [
        "--architecture=${trialParameters.architecture}",
        "--nn_config",
        "${trialParameters.nn_config}",
    ]
    parameters = [{"name": n, "reference": n} for n in ("architecture", "nn_config")]

    async def scenario(lab: Lab) -> None:
        await lab.submit(
            build_experiment(
                algorithm={"algorithmName": "random"},
                parameters=None,
                nasConfig=NAS_CONFIG,
                parallelTrialCount=1,
                maxTrialCount=1,
                trialTemplate={
                    "primaryContainerName": "pytorch",
                    "trialParameters": parameters,
                    "trialSpec": job,
                },
            )
        )
        await lab.wait_for("Succeeded")

        nas_config = architect.requests[0].experiment.spec.nas_config
        assert nas_config is not None
        assert nas_config.graph_config.num_layers == 2
        assert nas_config.graph_config.input_sizes == (8, 8, 1)
        (operation,) = nas_config.operations
        assert operation.parameters[0].feasible_space.list == ("3", "5")
        (trial,) = await lab.list_all(TRIALS)
        run = trial["spec"]["runSpec"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        assert run["spec"]["containers"][0]["args"] == [
            f"--architecture={ARCHITECTURE}",
            "--nn_config",
            CONFIG,
        ]

    play(
        lambda _: Exit(log="accuracy=1\n"),
        scenario,
        folder=tmp_path,
        algorithms={**ALGORITHMS, "random": lambda: architect},
    )
