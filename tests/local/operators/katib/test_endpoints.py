"""Algorithms that answer at an endpoint of the user's, over Katib's gRPC."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
import yaml
from kubeflow.katib import katib_api_pb2 as api

from kubeloop.errors import ApiError
from kubeloop.katib.early_stopping.server import EarlyStoppingServicer
from kubeloop.katib.early_stopping.server import serving as serving_early_stopping
from kubeloop.katib.early_stopping.service import (
    EarlyStoppingService,
    GetEarlyStoppingRulesRequest,
)
from kubeloop.katib.suggestion import InvalidSettingsError
from kubeloop.katib.suggestion.messages import (
    ComparisonType,
    EarlyStoppingRule,
    EarlyStoppingSpec,
)
from kubeloop.katib.suggestion.server import SuggestionServicer, serving
from kubeloop.local.api.resources import EVENTS, SUGGESTIONS, TRIALS
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.katib_lab import (
    Lab,
    build_experiment,
    condition_types,
    play,
    print_accuracy,
)
from kubeloop.testing.waiting import wait_until

Message = Any  # a generated message, which has no types
Context = Any  # likewise
Answer = Callable[[Message, Context], Message]

OWN = "my-search"
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
SERVER = [sys.executable, "-m", "kubeloop.katib.suggestion.server", "--host", "127.0.0.1"]


class Service(SuggestionServicer):
    """Answers as a test says."""

    def __init__(self, suggest: Answer, validate: Answer | None = None) -> None:
        super().__init__()
        self._suggest, self._validate = suggest, validate or abort(UNIMPLEMENTED, "unknown method")
        self.requests: list[Message] = []

    def GetSuggestions(self, request: Message, context: Context) -> Message:  # noqa: N802
        self.requests.append(request)
        return self._suggest(request, context)

    def ValidateAlgorithmSettings(self, request: Message, context: Context) -> Message:  # noqa: N802
        return self._validate(request, context)


def suggest(request: Message, context: Context) -> Message:
    """The same rate for all."""
    return reply(*[{"learning_rate": "0.05"}] * request.current_request_number)


def reply(*assignments: dict[str, str], **options: Any) -> Message:  # Any: fields of the entries
    entries = [
        api.GetSuggestionsReply.ParameterAssignments(
            assignments=[api.ParameterAssignment(name=n, value=v) for n, v in values.items()],
            **options,
        )
        for values in assignments
    ]
    return api.GetSuggestionsReply(parameter_assignments=entries)


@contextmanager
def answering(service: Service) -> Iterator[str]:
    with serving(service, host="127.0.0.1", port=0) as port:
        yield f"127.0.0.1:{port}"


def build_config(endpoint: str, *, name: str = OWN, part: str = "suggestions") -> Manifest:
    config = {
        "apiVersion": "config.kubeflow.org/v1beta1",
        "kind": "KatibConfig",
        "runtime": {part: [{"algorithmName": name, "endpoint": endpoint}]},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "katib-config", "namespace": "kubeflow"},
        "data": {"katib-config.yaml": yaml.safe_dump(config)},
    }


def build(**spec: Any) -> Manifest:  # any part of the spec
    return build_experiment(algorithm={"algorithmName": OWN}, **spec)


async def begin(lab: Lab, endpoint: str, experiment: Manifest | None = None) -> None:
    await lab.client.create(build_config(endpoint))
    await lab.submit(experiment or build())


async def last_words(client: Client) -> str:
    events = (await client.list(EVENTS, namespace="default")).items
    return "\n".join(e["message"] for e in events if e["reason"] == "ReconcileError")


@contextmanager
def server_process() -> Iterator[str]:
    with subprocess.Popen([*SERVER, "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "Serving on port" in line)
        yield f"127.0.0.1:{line.split()[-1]}"
        server.terminate()


def test_a_server_process_suggests_what_the_control_plane_would(tmp_path: Path) -> None:
    settings = [{"name": "random_state", "value": "3"}]
    algorithm = {"algorithmName": "random", "algorithmSettings": settings}

    async def values_of(lab: Lab, name: str) -> list[Manifest]:
        await lab.submit(build_experiment(name, algorithm=algorithm, parallelTrialCount=1))
        await lab.wait_for("Succeeded", name=name, reason="ExperimentMaxTrialsReached")
        suggestion = await lab.get(SUGGESTIONS, name)
        return [entry["parameterAssignments"] for entry in suggestion["status"]["suggestions"]]

    async def scenario(lab: Lab) -> None:
        here = await values_of(lab, "here")
        await lab.client.create(build_config(endpoint, name="random"))
        elsewhere = await values_of(lab, "elsewhere")

        assert elsewhere == here
        assert len(here) == 4

    with server_process() as endpoint:
        play(print_accuracy, scenario, folder=tmp_path)


def test_a_service_is_told_of_the_trials_that_ended(tmp_path: Path) -> None:
    service = Service(suggest)

    async def scenario(lab: Lab) -> None:
        with answering(service) as endpoint:
            await begin(lab, endpoint, build(parallelTrialCount=1, maxTrialCount=2))
            await lab.wait_for("Succeeded")

        first, second = service.requests
        assert (first.current_request_number, first.total_request_number) == (1, 1)
        assert (second.current_request_number, second.total_request_number) == (1, 2)
        (parameter,) = second.experiment.spec.parameter_specs.parameters
        assert (parameter.name, parameter.parameter_type) == ("learning_rate", api.DOUBLE)
        assert (parameter.feasible_space.min, parameter.feasible_space.max) == ("0.01", "0.1")
        assert parameter.feasible_space.distribution == api.UNIFORM
        (trial,) = second.trials
        assert trial.status.condition == api.TrialStatus.SUCCEEDED
        (metric,) = trial.status.observation.metrics
        assert (metric.name, metric.value) == ("accuracy", "0.500000")
        (assignment,) = trial.spec.parameter_assignments.assignments
        assert (assignment.name, assignment.value) == ("learning_rate", "0.05")

    play(print_accuracy, scenario, folder=tmp_path)


def abort(code: Any, details: str) -> Answer:
    def answer(request: Message, context: Context) -> Message:
        context.abort(code, details)

    return answer


def crash(request: Message, context: Context) -> Message:
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("validate", "message"),
    [
        (
            abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown setting x for algorithm my-search"),
            r"Validation failed: unknown setting x for algorithm my-search",
        ),
        (crash, r"Validation failed: Failed to call the service at [\d.:]+: UNKNOWN: .*by zero"),
    ],
)
def test_a_service_that_refuses_the_settings_fails_the_experiment(
    validate: Answer, message: str, tmp_path: Path
) -> None:
    async def scenario(lab: Lab) -> None:
        with answering(Service(suggest, validate)) as endpoint:
            await begin(lab, endpoint)
            experiment = await lab.wait_for("Failed", reason="ExperimentFailed")

        assert experiment["status"]["conditions"][-1]["message"] == "Suggestion has failed"
        suggestion = await lab.get(SUGGESTIONS)
        types = condition_types(suggestion)
        assert types == [("Created", "True"), ("DeploymentReady", "True"), ("Failed", "True")]
        last = suggestion["status"]["conditions"][-1]
        assert last["reason"] == "SuggestionFailed"
        assert re.fullmatch(message, last["message"])
        assert await lab.list_all(TRIALS) == []

    play(print_accuracy, scenario, folder=tmp_path)


def test_an_absent_service_is_not_ready_until_it_answers(tmp_path: Path) -> None:
    with answering(Service(suggest)) as endpoint:
        pass  # the port is free again

    async def scenario(lab: Lab) -> None:
        await begin(lab, endpoint)

        async def is_unready() -> bool:
            found = await lab.list_all(SUGGESTIONS)
            return any(("DeploymentReady", "False") in condition_types(each) for each in found)

        await wait_until(is_unready)
        suggestion = await lab.get(SUGGESTIONS)
        assert condition_types(suggestion) == [("Created", "True"), ("DeploymentReady", "False")]
        assert suggestion["status"]["conditions"][-1]["reason"] == "DeploymentNotReady"
        assert f"Failed to call the service at {endpoint}: UNAVAILABLE" in await last_words(
            lab.client
        )
        with serving(Service(suggest), host="127.0.0.1", port=int(endpoint.split(":")[1])):
            await lab.wait_for("Succeeded", reason="ExperimentMaxTrialsReached")

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_service_that_fails_for_a_while_is_asked_again(tmp_path: Path) -> None:
    answers: list[Answer] = [crash, abort(grpc.StatusCode.UNAVAILABLE, "restarting"), suggest]

    def now_and_then(request: Message, context: Context) -> Message:
        return (answers.pop(0) if len(answers) > 1 else suggest)(request, context)

    async def scenario(lab: Lab) -> None:
        with answering(Service(now_and_then)) as endpoint:
            await begin(lab, endpoint)
            experiment = await lab.wait_for("Succeeded", reason="ExperimentMaxTrialsReached")

        assert experiment["status"]["trialsSucceeded"] == 4
        words = await last_words(lab.client)
        assert "division by zero" in words
        assert "UNAVAILABLE: restarting" in words

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_slow_service_holds_nobody_else_up(tmp_path: Path) -> None:
    may_answer = Event()

    def slowly(request: Message, context: Context) -> Message:
        assert may_answer.wait(20)
        return suggest(request, context)

    service = Service(slowly)

    async def scenario(lab: Lab) -> None:
        with answering(service) as endpoint:
            await begin(lab, endpoint)
            await wait_until(lambda: bool(service.requests))
            await lab.submit(build_experiment("quick"))
            await lab.wait_for("Succeeded", name="quick")
            may_answer.set()
            await lab.wait_for("Succeeded")

    play(print_accuracy, scenario, folder=tmp_path)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda *_: reply({"learning_rate": "0.05"}),
            "Request failed: The response contains unexpected trials: 2 were asked for, not 1",
        ),
        (
            lambda *_: reply(*[{"learning_rate": "0.05"}] * 3),
            "Request failed: The response contains unexpected trials: 2 were asked for, not 3",
        ),
        (
            lambda *_: reply(*[{"learning_rate": "0.05"}] * 2, trial_name="digits-one"),
            "Request failed: The response contains unexpected trials: a name comes twice",
        ),
    ],
)
def test_a_wrong_number_of_suggestions_fails_the_experiment(
    answer: Answer, message: str, tmp_path: Path
) -> None:
    async def scenario(lab: Lab) -> None:
        with answering(Service(answer)) as endpoint:
            await begin(lab, endpoint)
            await lab.wait_for("Failed", reason="ExperimentFailed")

        assert (await lab.condition(SUGGESTIONS))["message"] == message
        assert await lab.list_all(TRIALS) == []

    play(print_accuracy, scenario, folder=tmp_path)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *_: reply({}), "no trial can be rendered"),
        (lambda *_: reply({"depth": "3"}), "no trial can be rendered"),
        (lambda *_: reply({"learning_rate": "1", "depth": "3"}), "no trial can be rendered"),
        (
            lambda *_: reply({"learning_rate": "1"}, trial_name="No Name!"),
            "no trial can be created",
        ),
    ],
)
def test_garbage_fails_the_experiment_and_says_why(
    answer: Answer, words: str, tmp_path: Path
) -> None:
    async def scenario(lab: Lab) -> None:
        with answering(Service(answer)) as endpoint:
            await begin(lab, endpoint, build(parallelTrialCount=1))
            experiment = await lab.wait_for("Failed", reason="ExperimentFailed")

        assert words in experiment["status"]["conditions"][-1]["message"]
        assert await lab.list_all(TRIALS) == []

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_value_outside_of_the_space_is_run_as_it_is(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with answering(Service(lambda *_: reply({"learning_rate": "7"}))) as endpoint:
            await begin(lab, endpoint, build(parallelTrialCount=1, maxTrialCount=1))
            experiment = await lab.wait_for("Succeeded")

        (assignment,) = experiment["status"]["currentOptimalTrial"]["parameterAssignments"]
        assert assignment == {"name": "learning_rate", "value": "7"}

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_search_that_is_exhausted_elsewhere_ends_the_experiment(tmp_path: Path) -> None:
    answers: list[Answer] = [suggest, abort(grpc.StatusCode.OUT_OF_RANGE, "nothing is left")]

    async def scenario(lab: Lab) -> None:
        with answering(Service(lambda *given: answers.pop(0)(*given))) as endpoint:
            await begin(lab, endpoint, build(parallelTrialCount=1))
            experiment = await lab.wait_for("Succeeded", reason="ExperimentSuggestionEndReached")

        assert experiment["status"]["trialsSucceeded"] == 1

    play(print_accuracy, scenario, folder=tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("kind: [", "is no YAML"),
        ("kind: Other", "must hold an object of kind KatibConfig"),
        ("{kind: KatibConfig, runtime: {suggestions: {a: b}}}", "must be a list of algorithms"),
        (
            "{kind: KatibConfig, runtime: {suggestions: [{algorithmName: a, endpoint: 7}]}}",
            r"runtime.suggestions\[0\].endpoint is 7; write host:port",
        ),
        (
            "{kind: KatibConfig, runtime: {suggestions: [{algorithmName: my-search, image: a}]}}",
            "unable to get Suggestion config data for algorithm my-search",
        ),
    ],
)
def test_experiments_are_refused_while_the_configuration_is_wrong(
    config: str, message: str, tmp_path: Path
) -> None:
    async def scenario(lab: Lab) -> None:
        manifest = build_config("")
        manifest["data"] = {"katib-config.yaml": config}
        await lab.client.create(manifest)

        with pytest.raises(ApiError, match=message):
            await lab.submit(build())

    play(print_accuracy, scenario, folder=tmp_path)


class Stopper(EarlyStoppingService):
    """One rule for all."""

    def get_early_stopping_rules(
        self, request: GetEarlyStoppingRulesRequest
    ) -> tuple[EarlyStoppingRule, ...]:
        name = request.experiment.spec.objective.objective_metric_name
        less = ComparisonType.LESS
        return (EarlyStoppingRule(name=name, value="0.4", comparison=less, start_step=2),)

    def validate_early_stopping_settings(self, early_stopping: EarlyStoppingSpec) -> None:
        if early_stopping.algorithm_settings:
            raise InvalidSettingsError("unknown setting for algorithm my-stopper")


@contextmanager
def stopping() -> Iterator[Manifest]:
    servicer = EarlyStoppingServicer(lambda _: None, {"my-stopper": lambda _: Stopper()})
    with serving_early_stopping(servicer, host="127.0.0.1", port=0) as port:
        yield build_config(f"127.0.0.1:{port}", name="my-stopper", part="earlyStoppings")


def test_trials_get_the_rules_of_an_early_stopping_service(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with stopping() as config:
            await lab.client.create(config)
            await lab.submit(build_experiment(earlyStopping={"algorithmName": "my-stopper"}))
            await lab.wait_for("Succeeded")

        rule = {"name": "accuracy", "value": "0.4", "comparison": "less", "startStep": 2}
        trials = await lab.list_all(TRIALS)
        assert [trial["spec"]["earlyStoppingRules"] for trial in trials] == [[rule]] * 4

    play(print_accuracy, scenario, folder=tmp_path)


def test_an_early_stopping_service_that_refuses_fails_the_experiment(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with stopping() as config:
            await lab.client.create(config)
            settings = [{"name": "patience", "value": "3"}]
            early_stopping = {"algorithmName": "my-stopper", "algorithmSettings": settings}
            await lab.submit(build_experiment(earlyStopping=early_stopping))
            await lab.wait_for("Failed", reason="ExperimentFailed")

        assert (await lab.condition(SUGGESTIONS))["message"] == (
            "Validation failed: unknown setting for algorithm my-stopper"
        )

    play(print_accuracy, scenario, folder=tmp_path)
