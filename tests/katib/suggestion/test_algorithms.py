"""The built-in algorithms keep the contract, and each one's own rules."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from kubeloop.errors import InputError
from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError, SearchExhaustedError
from kubeloop.katib.suggestion.messages import (
    Distribution,
    GetSuggestionsRequest,
    ParameterAssignment,
    ParameterSpec,
    ParameterType,
    Trial,
    TrialConditionType,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.testing.suggestion_contract import (
    SpaceSearchContract,
    build_experiment,
    build_parameter,
    build_trial,
)

LOG = Distribution.LOG_UNIFORM


class TestRandom(SpaceSearchContract):
    algorithm = "random"


class TestTpe(SpaceSearchContract):
    algorithm = "tpe"
    settings: ClassVar[Mapping[str, str]] = {
        "random_state": "7",
        "gamma": "0.25",
        "prior_weight": "1.0",
        "n_EI_candidates": "24",
    }


class TestMultivariateTpe(SpaceSearchContract):
    algorithm = "multivariate-tpe"
    settings: ClassVar[Mapping[str, str]] = {
        "random_state": "7",
        "n_startup_trials": "4",
        "n_ei_candidates": "0",
    }


class TestCmaEs(SpaceSearchContract):
    algorithm = "cmaes"
    settings: ClassVar[Mapping[str, str]] = {
        "random_state": "7",
        "sigma": "0.3",
        "restart_strategy": "bipop",
    }


class TestSobol(SpaceSearchContract):
    algorithm = "sobol"


class TestBayesianOptimization(SpaceSearchContract):
    algorithm = "bayesianoptimization"


class TestGrid(SpaceSearchContract):
    algorithm = "grid"
    parameters: ClassVar[tuple[ParameterSpec, ...]] = (
        build_parameter("momentum", ParameterType.DOUBLE, bounds=("0", "0.9"), step="0.3"),
        build_parameter("layers", ParameterType.INT, bounds=("1", "3")),
        build_parameter("optimizer", ParameterType.CATEGORICAL, choices=("sgd", "adam")),
    )


def suggest(
    algorithm: str,
    parameter: ParameterSpec,
    *,
    num: int,
    trials: Sequence[Trial] = (),
    total: int | None = None,
    settings: Mapping[str, str] | None = None,
    max_trial_count: int = 0,
) -> list[str]:
    """Values of the only parameter."""
    experiment = build_experiment(
        algorithm,
        [parameter],
        settings={"random_state": "1"} if settings is None else settings,
        max_trial_count=max_trial_count,
    )
    reply = ALGORITHMS[algorithm]().get_suggestions(
        GetSuggestionsRequest(
            experiment=experiment,
            trials=tuple(trials),
            current_request_number=num,
            total_request_number=total or num,
        )
    )
    return [s.assignments[0].value for s in reply.parameter_assignments]


def test_importing_the_service_imports_neither_optuna_nor_the_sdk() -> None:
    heavy = ("optuna", "numpy", "kubeflow", "kubernetes", "torch", "kubeloop.training")
    program = (
        f"import sys, kubeloop.katib.suggestion; print([m for m in {heavy} if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"known are: .*grid, .*random, .*tpe"):
        ALGORITHMS["simulated-annealing"]


def test_without_a_seed_every_service_suggests_something_else() -> None:
    wide = build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"))

    assert suggest("random", wide, num=3, settings={}) != suggest(
        "random", wide, num=3, settings={}
    )


@pytest.mark.parametrize("seeds", [("1", "2"), ("0", "1")])
def test_another_seed_gives_other_suggestions(seeds: tuple[str, str]) -> None:
    wide = build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"))
    first, second = (
        suggest("random", wide, num=3, settings={"random_state": seed}) for seed in seeds
    )

    assert first != second


def test_values_on_a_step_are_written_without_rounding_errors() -> None:
    stepped = build_parameter("x", ParameterType.DOUBLE, bounds=("0", "0.7"), step="0.1")

    assert set(suggest("random", stepped, num=200)) == {
        "0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"
    }  # fmt: skip


def test_a_step_that_misses_the_bound_stops_below_it() -> None:
    stepped = build_parameter("x", ParameterType.INT, bounds=("1", "10"), step="4")

    assert set(suggest("random", stepped, num=100)) == {"1", "5", "9"}


def test_both_bounds_of_an_integer_are_reached() -> None:
    narrow = build_parameter("x", ParameterType.INT, bounds=("3", "5"))

    assert set(suggest("random", narrow, num=100)) == {"3", "4", "5"}


def test_log_uniform_spreads_over_the_orders_of_magnitude() -> None:
    rate = build_parameter("x", ParameterType.DOUBLE, bounds=("0.001", "10"), distribution=LOG)

    decades = Counter(math.floor(math.log10(float(v))) for v in suggest("random", rate, num=800))

    assert all(150 < decades[decade] < 250 for decade in (-3, -2, -1, 0))


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_normal_values_gather_in_the_middle_and_keep_the_bounds(algorithm: str) -> None:
    bell = build_parameter(
        "x", ParameterType.DOUBLE, bounds=("-3", "3"), distribution=Distribution.NORMAL
    )

    values = [float(v) for v in suggest(algorithm, bell, num=300)]

    assert all(-3 <= value <= 3 for value in values)
    assert 0.5 < sum(abs(value) < 1 for value in values) / len(values) < 0.85


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
@pytest.mark.parametrize("distribution", list(Distribution))
def test_bounds_that_are_equal_leave_one_value(algorithm: str, distribution: Distribution) -> None:
    fixed = build_parameter("x", ParameterType.DOUBLE, bounds=("2", "2"), distribution=distribution)

    assert set(suggest(algorithm, fixed, num=3)) == {"2.0"}


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_logarithmic_integers_keep_to_their_step(algorithm: str) -> None:
    units = build_parameter("x", ParameterType.INT, bounds=("8", "64"), step="8", distribution=LOG)

    assert set(suggest(algorithm, units, num=60)) <= {str(n) for n in range(8, 65, 8)}


def run_search(
    algorithm: str, seed: int, *, num: int, objective: Callable[[float], float]
) -> float:
    """The best value that a search of one parameter in [0, 1] finds."""
    wide = build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"))
    trials: list[Trial] = []
    best = -math.inf
    for number in range(num):
        (text,) = suggest(
            algorithm,
            wide,
            num=1,
            total=number + 1,
            trials=trials,
            settings={"random_state": str(seed)},
            max_trial_count=num,
        )
        value = objective(float(text))
        best = max(best, value)
        trials.append(
            build_trial(
                f"t{number}", [ParameterAssignment(name="x", value=text)], value=repr(value)
            )
        )
    return best


def test_tpe_learns_from_the_trials_and_beats_random_search() -> None:
    def objective(x: float) -> float:
        return -abs(x - 0.73)

    losses = {
        algorithm: [-run_search(algorithm, seed, num=25, objective=objective) for seed in range(5)]
        for algorithm in ("tpe", "random")
    }

    assert sum(losses["tpe"]) < 0.5 * sum(losses["random"])


def test_tpe_does_not_suggest_what_already_runs() -> None:
    wide = build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"))
    done = [
        build_trial(f"t{i}", [ParameterAssignment(name="x", value=str(i / 20))], value=str(i / 20))
        for i in range(20)
    ]
    running = [
        build_trial(
            f"r{i}",
            [ParameterAssignment(name="x", value="0.95")],
            condition=TrialConditionType.RUNNING,
        )
        for i in range(3)
    ]

    suggestions = suggest("tpe", wide, num=3, total=26, trials=[*done, *running])

    assert len(set(suggestions)) == 3
    assert "0.95" not in suggestions


def test_grid_suggests_every_combination_once() -> None:
    parameter = build_parameter("x", ParameterType.INT, bounds=("1", "5"))

    shuffled = suggest("grid", parameter, num=5)

    assert sorted(shuffled) == ["1", "2", "3", "4", "5"]
    assert suggest("grid", parameter, num=5, settings={}) == ["1", "2", "3", "4", "5"]
    assert any(int(a) > int(b) for a, b in pairwise(shuffled))


def assigned(name: str, text: str, **state: Any) -> Trial:  # state: of `build_trial`
    return build_trial(name, [ParameterAssignment(name="x", value=text)], **state)


def test_grid_ends_with_an_error_that_says_so() -> None:
    parameter = build_parameter("x", ParameterType.CATEGORICAL, choices=("a", "b"))
    trials = [assigned("t0", "a", value="1"), assigned("t1", "b", value="2")]

    with pytest.raises(SearchExhaustedError, match="2 combinations and all of them") as caught:
        suggest("grid", parameter, num=1, total=3, trials=trials)

    assert caught.value.num_left == 0


def test_grid_says_how_many_combinations_are_left() -> None:
    parameter = build_parameter("x", ParameterType.CATEGORICAL, choices=("a", "b", "c"))
    trials = [assigned("t0", "a", value="1")]

    with pytest.raises(SearchExhaustedError) as caught:
        suggest("grid", parameter, num=3, total=4, trials=trials, settings={})

    assert caught.value.num_left == 2


def test_grid_tries_again_what_came_to_nothing() -> None:
    parameter = build_parameter("x", ParameterType.CATEGORICAL, choices=("a", "b", "c"))
    trials = [assigned("t0", "a", value="1"), assigned("t2", "c", value="2")]

    assert suggest("grid", parameter, num=1, total=4, trials=trials) == ["b"]


def test_grid_of_a_billion_combinations_is_shuffled_at_once() -> None:
    parameter = build_parameter("x", ParameterType.INT, bounds=("1", "1000000000"))

    values = suggest("grid", parameter, num=1000)

    assert len(set(values)) == 1000
    assert suggest("grid", parameter, num=1, total=1000) == values[-1:]


@pytest.mark.parametrize(
    ("algorithm", "settings", "match"),
    [
        ("tpe", {"gamma": "1"}, r"gamma must be a number in \(0, 1\), not '1'"),
        ("tpe", {"prior_weight": "0"}, "prior_weight must be a number above 0"),
        ("tpe", {"n_EI_candidates": "2.5"}, "n_EI_candidates must be an integer above 0"),
        ("random", {"random_state": "one"}, "random_state must be an integer of 0 or more"),
        ("random", {"gamma": "0.5"}, "unknown setting gamma for algorithm random"),
    ],
)
def test_a_setting_outside_its_rule_is_refused(
    algorithm: str, settings: Mapping[str, str], match: str
) -> None:
    parameter = build_parameter("x", ParameterType.INT, bounds=("1", "5"))
    experiment = build_experiment(algorithm, [parameter], settings=settings)

    with pytest.raises(InvalidSettingsError, match=match):
        ALGORITHMS[algorithm]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )


@pytest.mark.parametrize(
    ("parameter", "match"),
    [
        (build_parameter("x", ParameterType.INT, bounds=("1", "2.5")), "max must be an integer"),
        (build_parameter("x", ParameterType.DOUBLE, bounds=("a", "1")), "min must be a number"),
        (build_parameter("x", ParameterType.DOUBLE, bounds=("nan", "1")), "min must be a number"),
        (
            build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"), distribution=LOG),
            "min must be above 0",
        ),
        (
            build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"), step="0"),
            "step must be above 0",
        ),
        (build_parameter("x", ParameterType.UNKNOWN_TYPE), "no known type"),
        (build_parameter("x", ParameterType.CATEGORICAL), "needs a list"),
    ],
)
def test_a_parameter_that_cannot_be_searched_is_refused(
    parameter: ParameterSpec, match: str
) -> None:
    experiment = build_experiment("random", [parameter])

    with pytest.raises(InvalidSettingsError, match=match):
        ALGORITHMS["random"]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )


def test_grid_refuses_a_double_without_a_step_and_a_budget_above_its_size() -> None:
    stepless = build_parameter("x", ParameterType.DOUBLE, bounds=("0", "1"))
    small = build_parameter("x", ParameterType.INT, bounds=("1", "3"))

    for parameter, match in ((stepless, "needs a step"), (small, "maxTrialCount 12 is above")):
        experiment = build_experiment("grid", [parameter])
        with pytest.raises(InvalidSettingsError, match=match):
            ALGORITHMS["grid"]().validate_algorithm_settings(
                ValidateAlgorithmSettingsRequest(experiment=experiment)
            )
