"""Searches begin with what earlier experiments found."""

from __future__ import annotations

import pytest

from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError
from kubeloop.katib.suggestion.earlier import render_earlier
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsRequest,
    ParameterAssignments,
    ParameterType,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.testing.suggestion_contract import build_experiment, build_parameter

PARAMETERS = (
    build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1")),
    build_parameter("y", ParameterType.DOUBLE, bounds=("0", "1")),
)
LEARNING = ("tpe", "multivariate-tpe", "bayesianoptimization", "cmaes")
GRID = [
    ({"x": x, "y": y}, -abs(x - 0.8) - abs(y - 0.2))
    for x in (0.0, 0.4, 0.8, 1.0)
    for y in (0.2, 0.5, 0.7, 1.0)
]


def suggest(algorithm: str, earlier: str, num: int = 6) -> list[dict[str, float]]:
    settings = {"random_state": "1", **({"warm_start": earlier} if earlier else {})}
    request = GetSuggestionsRequest(
        experiment=build_experiment(algorithm, PARAMETERS, settings=settings),
        current_request_number=num,
        total_request_number=num,
    )
    reply: tuple[ParameterAssignments, ...] = (
        ALGORITHMS[algorithm]().get_suggestions(request).parameter_assignments
    )
    return [{a.name: float(a.value) for a in each.assignments} for each in reply]


def mean_distance(points: list[dict[str, float]]) -> float:
    return sum(abs(p["x"] - 0.8) + abs(p["y"] - 0.2) for p in points) / len(points)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_the_search_begins_with_the_best_and_goes_on_near_it(algorithm: str) -> None:
    warm = suggest(algorithm, render_earlier(GRID))

    assert warm[0] == {"x": 0.8, "y": 0.2}
    assert mean_distance(warm[1:]) < 0.9 * mean_distance(suggest(algorithm, "")[1:])


@pytest.mark.parametrize("algorithm", LEARNING)
def test_trials_of_another_space_are_no_obstacle(algorithm: str) -> None:
    outside = render_earlier([({"x": 7, "y": 0.5}, 1.0)])

    assert suggest(algorithm, outside) == suggest(algorithm, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"parameters":["x"],"trials":[["0.1"]]}',
        '{"parameters":["x"],"trials":[["0.1","good"]]}',
        '{"parameters":["x"],"trials":[["0.1",NaN]]}',
        '{"parameters":["x"],"trials":[[0.1,0.2]]}',
        '{"parameters":["x"],"trials":[[]]}',
    ],
)
def test_what_tells_of_no_trials_is_refused_by_name(text: str) -> None:
    experiment = build_experiment("tpe", PARAMETERS, settings={"warm_start": text})

    with pytest.raises(InvalidSettingsError, match="warm_start must be JSON such as"):
        ALGORITHMS["tpe"]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )


def test_a_search_that_learns_nothing_does_not_know_the_setting() -> None:
    experiment = build_experiment("random", PARAMETERS, settings={"warm_start": "{}"})

    with pytest.raises(InvalidSettingsError, match="unknown setting warm_start"):
        ALGORITHMS["random"]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )
