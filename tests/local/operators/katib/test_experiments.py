"""Experiments from creation to each of their ends, with everything at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.katib.suggestion import SuggestionService
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.random_search import RandomSearch
from kubeloop.local.api.resources import (
    PODS,
    SUGGESTIONS,
    TRIALS,
)
from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import conditions_of
from kubeloop.testing.katib_lab import (
    Exit,
    Lab,
    build_experiment,
    condition_types,
    hang,
    learning_rate_of,
    play,
    print_accuracy,
)
from kubeloop.testing.waiting import wait_until


def test_an_experiment_ends_when_its_trials_are_done(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        await lab.wait_for("Succeeded")
        await lab.settle()

        status = (await lab.get())["status"]
        trials = await lab.list_all(TRIALS)
        names = {trial["metadata"]["name"] for trial in trials}
        assert condition_types(await lab.get()) == [
            ("Created", "True"),
            ("Running", "False"),
            ("Succeeded", "True"),
        ]
        last = status["conditions"][-1]
        assert last["reason"] == "ExperimentMaxTrialsReached"
        assert last["message"] == "Experiment has succeeded because max trial count has reached"
        assert status["trials"] == status["trialsSucceeded"] == len(names) == 4
        assert set(status["succeededTrialList"]) == names
        assert "trialsRunning" not in status
        assert "pendingTrialList" not in status
        assert status["startTime"] <= status["completionTime"]

    play(print_accuracy, scenario, folder=tmp_path)


def test_the_optimal_trial_is_the_one_with_the_best_objective(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        optimum = (await lab.wait_for("Succeeded"))["status"]["currentOptimalTrial"]

        best = max(
            await lab.list_all(TRIALS),
            key=lambda trial: float(trial["status"]["observation"]["metrics"][0]["latest"]),
        )
        assert optimum == {
            "bestTrialName": best["metadata"]["name"],
            "parameterAssignments": best["spec"]["parameterAssignments"],
            "observation": {"metrics": best["status"]["observation"]["metrics"]},
        }

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_minimised_objective_is_best_where_it_is_least(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        objective = {"type": "minimize", "objectiveMetricName": "accuracy"}
        await lab.submit(build_experiment(objective=objective))
        optimum = (await lab.wait_for("Succeeded"))["status"]["currentOptimalTrial"]

        values = [
            trial["status"]["observation"]["metrics"][0]["min"]
            for trial in await lab.list_all(TRIALS)
        ]
        assert optimum["observation"]["metrics"][0]["min"] == min(values, key=float)

    play(print_accuracy, scenario, folder=tmp_path)


def test_no_more_trials_run_at_a_time_than_allowed(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=3, maxTrialCount=5))
        await wait_until(lambda: len(lab.kubelet.num_started) == 3)
        await lab.settle()

        status = (await lab.get())["status"]
        assert status["trials"] == status["trialsRunning"] == 3
        assert len(await lab.list_all(PODS)) == 3
        assert (await lab.get(SUGGESTIONS))["status"]["suggestionCount"] == 3

    play(hang, scenario, folder=tmp_path)


def test_reaching_the_goal_ends_the_experiment_and_lets_running_trials_run_on(
    tmp_path: Path,
) -> None:
    hanging = set[str]()

    def program(pod: Manifest) -> Exit | None:
        name = pod["metadata"]["name"]
        if not hanging or name in hanging:
            hanging.add(name)
            return None
        return Exit(log="accuracy=0.99\n")

    async def scenario(lab: Lab) -> None:
        objective = {"type": "maximize", "goal": 0.95, "objectiveMetricName": "accuracy"}
        await lab.submit(build_experiment(objective=objective, maxTrialCount=10))
        await lab.wait_for("Succeeded", reason="ExperimentGoalReached")
        await lab.settle()

        status = (await lab.get())["status"]
        message = status["conditions"][-1]["message"]
        assert message == "Experiment has succeeded because Objective goal has reached"
        assert (status["trialsRunning"], status["trialsSucceeded"]) == (1, 1)

        hanging.clear()
        hanging.add("nobody")
        await lab.kubelet.rerun()
        await wait_until(lambda: lab.counts(trialsSucceeded=2))
        assert condition_types(await lab.get())[-1] == ("Succeeded", "True")

    play(program, scenario, folder=tmp_path)


def test_too_many_failed_trials_fail_the_experiment(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(
            build_experiment(parallelTrialCount=1, maxTrialCount=5, maxFailedTrialCount=2)
        )
        experiment = await lab.wait_for("Failed", reason="ExperimentFailed")

        status = experiment["status"]
        message = status["conditions"][-1]["message"]
        assert message == "Experiment has failed because max failed count has reached"
        assert status["trialsFailed"] == status["trials"] == 2
        assert status["currentOptimalTrial"] == {"observation": {}}
        assert condition_types(experiment)[1:] == [("Running", "False"), ("Failed", "True")]
        assert "completionTime" in status

    play(lambda _: Exit(log="Traceback …\n", code=1), scenario, folder=tmp_path)


def test_a_failed_trial_is_not_replaced_once_the_maximum_is_reached(tmp_path: Path) -> None:
    def program(pod: Manifest) -> Exit:
        return Exit(code=1) if learning_rate_of(pod) < 0.06 else print_accuracy(pod)

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(maxTrialCount=6))
        status = (await lab.wait_for("Succeeded"))["status"]

        assert status["trials"] == 6
        assert status["trialsFailed"] + status["trialsSucceeded"] == 6
        assert 0 < status["trialsFailed"] < 6
        assert float(status["currentOptimalTrial"]["parameterAssignments"][0]["value"]) >= 0.06

    play(program, scenario, folder=tmp_path)


def test_trials_without_metrics_count_as_bad(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxFailedTrialCount=1))
        status = (await lab.wait_for("Failed"))["status"]

        assert status["trialMetricsUnavailable"] == len(status["metricsUnavailableTrialList"]) == 1

    play(lambda _: Exit(log="done\n"), scenario, folder=tmp_path)


def test_settings_that_the_algorithm_refuses_fail_suggestion_and_experiment(
    tmp_path: Path,
) -> None:
    async def scenario(lab: Lab) -> None:
        settings = [{"name": "random_state", "value": "-5"}]
        algorithm = {"algorithmName": "random", "algorithmSettings": settings}
        await lab.submit(build_experiment(algorithm=algorithm))
        experiment = await lab.wait_for("Failed", reason="ExperimentFailed")

        assert experiment["status"]["conditions"][-1]["message"] == "Suggestion has failed"
        refusal = await lab.condition(SUGGESTIONS)
        assert (refusal["type"], refusal["reason"]) == ("Failed", "SuggestionFailed")
        assert refusal["message"].startswith("Validation failed: random_state must be")
        assert await lab.list_all(TRIALS) == []

    play(print_accuracy, scenario, folder=tmp_path)


@pytest.mark.parametrize(("num_parallel", "num_choices"), [(2, 2), (2, 3), (4, 3), (1, 1)])
def test_an_exhausted_search_ends_the_experiment_well(
    num_parallel: int, num_choices: int, tmp_path: Path
) -> None:
    async def scenario(lab: Lab) -> None:
        space = {"list": ["0.02", "0.03", "0.04"][:num_choices]}
        parameter = {"name": "learning_rate", "parameterType": "discrete", "feasibleSpace": space}
        await lab.submit(
            build_experiment(
                algorithm={"algorithmName": "grid"},
                parameters=[parameter],
                maxTrialCount=None,
                parallelTrialCount=num_parallel,
            )
        )
        experiment = await lab.wait_for("Succeeded", reason="ExperimentSuggestionEndReached")

        assert experiment["status"]["conditions"][-1]["message"] == (
            "Experiment has succeeded because suggestion service has reached the end"
        )
        assert experiment["status"]["trialsSucceeded"] == num_choices
        suggestion = await lab.get(SUGGESTIONS)
        assert suggestion["status"]["suggestionCount"] == num_choices
        end = conditions_of(suggestion)[-1]
        assert (end["type"], end["reason"]) == ("Succeeded", "SuggestionEndReached")
        assert f"the grid has {num_choices} combinations" in end["message"]

    play(print_accuracy, scenario, folder=tmp_path)


class Stumbling(SuggestionService):
    """Fails a few times, then works."""

    def __init__(self, *, num_failures: int) -> None:
        self.num_left = num_failures

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        if self.num_left:
            self.num_left -= 1
            raise OSError("connection reset")
        return RandomSearch().get_suggestions(request)

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        pass


def test_an_algorithm_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    service = Stumbling(num_failures=2)

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        await lab.wait_for("Succeeded")

        (event,) = await lab.events("ReconcileError")
        assert event["message"] == "Failed to reconcile: connection reset"
        assert event["count"] == 2

    play(print_accuracy, scenario, folder=tmp_path, algorithms={"random": lambda: service})


class Miscounting(Stumbling):
    """Answers with nothing."""

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        return GetSuggestionsReply(parameter_assignments=())


def test_an_algorithm_that_cannot_count_fails_the_experiment(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        await lab.wait_for("Failed")

        message = (await lab.condition(SUGGESTIONS))["message"]
        assert message.startswith("Request failed: The response contains unexpected trials")

    play(
        print_accuracy,
        scenario,
        folder=tmp_path,
        algorithms={"random": lambda: Miscounting(num_failures=0)},
    )


def test_a_template_that_no_assignment_fits_fails_the_experiment(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        space = {"min": "1", "max": "2"}
        unused = {"name": "unused", "parameterType": "int", "feasibleSpace": space}
        experiment = build_experiment()
        experiment["spec"]["parameters"].append(unused)
        await lab.submit(experiment)
        await lab.wait_for("Failed")

        message = (await lab.condition())["message"]
        assert "assigned 2 parameters and the template takes 1" in message

    play(print_accuracy, scenario, folder=tmp_path)
