"""Search spaces narrowed by what earlier experiments have found."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.katib.results import (
    ExperimentResult,
    ExperimentStatus,
    ParameterValue,
    TrialResult,
    TrialStatus,
)
from kubeloop.katib.search_space import (
    Categorical,
    Discrete,
    Float,
    Int,
    Parameter,
    parse_search_space,
    render_search_space,
)
from kubeloop.katib.warm_start import WarmStart, build_labels, narrow, read_warm_start


def build_result(name: str, values: list[tuple[ParameterValue, float]]) -> ExperimentResult:
    """Trials of one parameter `x`, by value and objective."""
    trials = tuple(
        TrialResult(
            name=f"{name}-{number}",
            status=TrialStatus.SUCCEEDED,
            parameters={"x": value},
            metrics={"accuracy": objective},
            objective=objective,
            message="",
        )
        for number, (value, objective) in enumerate(values)
    )
    return ExperimentResult(
        name=name,
        namespace="default",
        status=ExperimentStatus.SUCCEEDED,
        reason="",
        message="",
        objective_metric="accuracy",
        is_maximized=True,
        max_trial_count=len(trials),
        trials=trials,
    )


def peak_at(best: float) -> list[tuple[ParameterValue, float]]:
    """Twelve trials between 0 and 1.1, the better the nearer to `best`."""
    return [(n / 10, -abs(n / 10 - best)) for n in range(12)]


def narrow_x(parameter: Any, values: list[tuple[ParameterValue, float]]) -> Any:
    return narrow({"x": parameter}, [build_result("one", values)])["x"]


def test_a_range_becomes_a_box_around_the_best_quarter_with_room() -> None:
    narrowed = narrow_x(Float(min=0.0, max=2.0), peak_at(0.5))
    assert (narrowed.min, narrowed.max) == pytest.approx((0.2, 0.8))


def test_a_box_stays_within_the_old_range() -> None:
    narrowed = narrow_x(Float(min=0.0, max=2.0), peak_at(0.0))
    assert narrowed.min == 0.0


def test_orders_of_magnitude_are_narrowed_as_such() -> None:
    values: list[tuple[ParameterValue, float]] = [
        (10.0 ** -(n / 2), -abs(n / 2 - 3)) for n in range(12)
    ]
    narrowed = narrow_x(Float(min=1e-6, max=1.0, log=True), values)
    assert (narrowed.min, narrowed.max) == pytest.approx((10**-4.1, 10**-1.9))


def test_integers_and_steps_stay_on_their_grid() -> None:
    values: list[tuple[ParameterValue, float]] = [(n, -abs(n - 6)) for n in range(1, 13)]
    assert narrow_x(Int(min=1, max=21), values) == Int(min=3, max=9)
    assert narrow_x(Int(min=1, max=21, step=4), values) == Int(min=1, max=9, step=4)


def test_choices_go_only_when_they_were_tried_and_never_good() -> None:
    values: list[tuple[ParameterValue, float]] = [
        *[("adam", 0.9)] * 3,
        *[("sgd", 0.1)] * 5,
        *[("lion", 0.2)] * 2,
    ]
    space = Categorical(values=("adam", "sgd", "lion", "never-tried"))
    assert narrow_x(space, values).values == ("adam", "lion", "never-tried")
    sizes: list[tuple[ParameterValue, float]] = [*[(16, 0.9)] * 4, *[(32, 0.1)] * 8]
    assert narrow_x(Discrete(values=(16, 32)), sizes).values == (16,)


def test_experiments_are_not_compared_with_one_another() -> None:
    short = build_result("short", [(value, score - 100) for value, score in peak_at(0.9)])
    long = build_result("long", peak_at(0.5))

    narrowed = narrow({"x": Float(min=0.0, max=2.0)}, [short, long])["x"]

    assert isinstance(narrowed, Float)
    assert (narrowed.min, narrowed.max) == pytest.approx((0.2, 1.2))


def test_what_must_stay_stays() -> None:
    space = {"x": Float(min=0.0, max=2.0)}
    one = build_result("one", peak_at(0.5))
    normal = Float(min=0.0, max=2.0, normal=True)

    assert narrow(space, [one], fixed=["x"]) == space
    assert narrow({"x": normal}, [one]) == {"x": normal}
    assert narrow(space, []) == space


def test_an_experiment_tells_what_it_began_with() -> None:
    space: dict[str, Parameter] = {
        "x": Float(min=0.1, max=0.2, log=True),
        "y": Categorical(values=("a", "b")),
    }
    start = WarmStart(search_space=space, experiments=("one", "two"))

    assert read_warm_start(start.annotations) == start
    assert read_warm_start({}) is None
    assert WarmStart(search_space=space).annotations == {}


def test_a_search_space_is_rendered_as_it_is_read() -> None:
    space: dict[str, Parameter] = {
        "a": Float(min=0.1, max=0.2, log=True),
        "b": Int(min=1, max=9, step=2),
        "c": Categorical(values=("x", "y")),
        "d": Discrete(values=(16, 0.5)),
    }
    assert parse_search_space(render_search_space(space)) == space


def test_labels_differ_by_dataset_and_by_what_is_asked() -> None:
    one = build_labels("a" * 64, {"program": "image"})

    assert all(len(value) <= 63 for value in one.values())
    assert one == build_labels("a" * 64, {"program": "image"})
    assert one != build_labels("a" * 64, {"program": "text"})
    assert build_labels("", {"program": "image"}) == {}
