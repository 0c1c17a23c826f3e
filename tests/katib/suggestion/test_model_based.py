"""Bayesian optimisation and CMA-ES learn, from trials that ran one by one or in parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsRequest,
    ParameterAssignments,
    ParameterSpec,
    ParameterType,
    Trial,
    TrialConditionType,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.testing.suggestion_contract import build_experiment, build_parameter, build_trial

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

SQUARE = tuple(
    build_parameter(name, ParameterType.DOUBLE, bounds=("0", "1")) for name in ("x", "y")
)
Objective = Callable[[float, float], float]


def suggest(
    algorithm: str,
    trials: Sequence[Trial],
    *,
    num: int = 1,
    parameters: Sequence[ParameterSpec] = SQUARE,
    settings: Mapping[str, str],
) -> tuple[ParameterAssignments, ...]:
    request = GetSuggestionsRequest(
        experiment=build_experiment(
            algorithm, parameters, settings={"random_state": "1", **settings}
        ),
        trials=tuple(trials),
        current_request_number=num,
        total_request_number=len(trials) + num,
    )
    return ALGORITHMS[algorithm]().get_suggestions(request).parameter_assignments


def read(suggestion: ParameterAssignments) -> tuple[float, float]:
    x, y = (float(entry.value) for entry in suggestion.assignments)
    return x, y


def run(suggestion: ParameterAssignments, number: int, *, seconds: int = 60) -> Trial:
    """A trial that did best near (0.7, 0.2)."""
    x, y = read(suggestion)
    value = -((x - 0.7) ** 2) - (y - 0.2) ** 2
    trial = build_trial(f"t{number}", suggestion.assignments, value=repr(value))
    status = replace(
        trial.status,
        start_time=f"2026-01-01T{number:02d}:00:00Z",
        completion_time=f"2026-01-01T{number:02d}:{seconds // 60:02d}:{seconds % 60:02d}Z",
    )
    return replace(trial, status=status)


def find_best(algorithm: str, *, num: int = 23, **settings: str) -> float:
    trials: list[Trial] = []
    while len(trials) < num:
        (suggestion,) = suggest(algorithm, trials, settings=settings)
        trials.append(run(suggestion, len(trials)))
    return max(float(trial.status.observation[0].value) for trial in trials)


@pytest.mark.parametrize(
    ("algorithm", "settings", "distance"),
    [
        ("bayesianoptimization", {"n_initial_points": "5"}, 1e-3),
        ("bayesianoptimization", {"n_initial_points": "5", "acq_func": "EI"}, 1e-3),
        ("bayesianoptimization", {"n_initial_points": "5", "acq_func": "LCB"}, 1e-3),
        ("bayesianoptimization", {"n_initial_points": "5", "acq_func": "PIps"}, 0.02),
        ("bayesianoptimization", {"n_initial_points": "5", "acq_optimizer": "lbfgs"}, 1e-3),
        ("bayesianoptimization", {"n_initial_points": "5", "acq_optimizer": "sampling"}, 1e-2),
        ("bayesianoptimization", {"n_initial_points": "5", "base_estimator": "RF"}, 0.05),
        ("bayesianoptimization", {"n_initial_points": "5", "base_estimator": "ET"}, 0.05),
        ("bayesianoptimization", {"n_initial_points": "5", "base_estimator": "GBRT"}, 0.05),
        ("cmaes", {}, 0.02),
        ("cmaes", {"sigma": "0.3", "restart_strategy": "ipop"}, 0.02),
    ],
)
def test_the_optimum_is_found(algorithm: str, settings: dict[str, str], distance: float) -> None:
    num = 10 if settings.get("base_estimator") else 23

    assert -find_best(algorithm, num=num, **settings) < distance


def test_bayesian_optimization_keeps_away_from_what_runs() -> None:
    settings = {"n_initial_points": "5", "acq_func": "EI"}
    first = [run(s, i) for i, s in enumerate(suggest("random", [], num=8, settings={}))]
    (alone,) = suggest("bayesianoptimization", first, settings=settings)
    pending = build_trial("p", alone.assignments, condition=TrialConditionType.RUNNING)

    together = suggest("bayesianoptimization", [*first, pending], num=3, settings=settings)

    points = [read(alone), *map(read, together)]
    assert len(set(points)) == 4


def test_bayesian_optimization_tries_no_choice_twice() -> None:
    choices = [
        build_parameter("x", ParameterType.CATEGORICAL, choices=("0", "0.5", "1")),
        build_parameter("y", ParameterType.INT, bounds=("0", "2")),
    ]
    settings = {"n_initial_points": "0"}
    trials: list[Trial] = []
    seen = set()
    for number in range(9):
        (suggestion,) = suggest(
            "bayesianoptimization", trials, parameters=choices, settings=settings
        )
        seen.add(suggestion.assignments)
        trials.append(run(suggestion, number))

    assert len(seen) >= 8  # the first two are drawn at random


def test_an_acquisition_by_the_second_prefers_what_is_quick() -> None:
    def find(slowness: Callable[[float], float]) -> float:
        trials = []
        for number, suggestion in enumerate(suggest("sobol", [], num=16, settings={})):
            x, _ = read(suggestion)
            trial = run(suggestion, number, seconds=int(5 + 3000 * slowness(x)))
            observation = (replace(trial.status.observation[0], value="0.5"),)
            trials.append(replace(trial, status=replace(trial.status, observation=observation)))
        settings = {"acq_func": "EIps", "n_initial_points": "5"}
        (suggestion,) = suggest("bayesianoptimization", trials, settings=settings)
        return read(suggestion)[0]

    assert find(lambda x: x) < 0.2
    assert find(lambda x: 1 - x) > 0.8


def test_gradients_are_refused_where_the_model_has_none() -> None:
    settings = {"base_estimator": "RF", "acq_optimizer": "lbfgs"}
    experiment = build_experiment("bayesianoptimization", SQUARE, settings=settings)

    with pytest.raises(InvalidSettingsError, match="acq_optimizer must be auto or sampling"):
        ALGORITHMS["bayesianoptimization"]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )


def test_cma_es_learns_from_trials_in_the_order_in_which_they_ended() -> None:
    trials = [run(s, i) for i, s in enumerate(suggest("cmaes", [], num=12, settings={}))]

    (in_order,) = suggest("cmaes", trials, settings={})
    (shuffled,) = suggest("cmaes", trials[::-1], settings={})

    assert in_order.assignments == shuffled.assignments


def test_cma_es_waits_for_a_whole_generation() -> None:
    trials = [run(s, i) for i, s in enumerate(suggest("cmaes", [], num=6, settings={}))]
    running = replace(
        trials[5], status=replace(trials[5].status, condition=TrialConditionType.RUNNING)
    )

    (with_all,) = suggest("cmaes", trials, settings={})
    (with_five,) = suggest("cmaes", [*trials[:5], running], settings={})
    (with_none,) = suggest(
        "cmaes", [replace(t, status=running.status) for t in trials], settings={}
    )

    assert with_five.assignments == with_none.assignments != with_all.assignments


def test_cma_es_starts_anew_where_it_has_converged() -> None:
    middle = suggest("cmaes", [], settings={"sigma": "0.0000001"})[0]

    def spread(strategy: str) -> float:
        """Distance of later suggestions from one point that all trials hit."""
        distances = []
        for num in range(60, 240, 12):
            trials = [run(middle, index % 24) for index in range(num)]
            later = suggest("cmaes", trials, num=6, settings={"restart_strategy": strategy})
            distances += [abs(read(each)[0] - read(middle)[0]) for each in later]
        return max(distances)

    assert spread("none") < 0.1
    assert spread("ipop") > 0.1
    assert spread("bipop") > 0.1
