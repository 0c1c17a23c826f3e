"""The page of a search: what it shows of few trials and many, of good ones and bad."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeloop.katib.report import Curves, build_search_page, render_report
from kubeloop.katib.report.importance import TooFewTrialsError, measure_importances
from kubeloop.katib.results import (
    ExperimentResult,
    ExperimentStatus,
    ParameterSpace,
    ParameterValue,
    TrialResult,
    TrialStatus,
)
from kubeloop.reports import Note, Page, Plot, Section, Table

START = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = {
    "learning_rate": ParameterSpace(kind="double", min=1e-4, max=0.1, is_log=True),
    "layers": ParameterSpace(kind="int", min=1, max=4),
    "optimizer": ParameterSpace(kind="categorical", values=("sgd", "adam")),
    "batch": ParameterSpace(kind="discrete", values=(16, 32)),
}


def build_trial(number: int, **changes: Any) -> TrialResult:  # any field of a trial
    draw = random.Random(number)
    rate = 10 ** draw.uniform(-4, -1)
    parameters: dict[str, ParameterValue] = {
        "learning_rate": rate,
        "layers": draw.randint(1, 4),
        "optimizer": draw.choice(("sgd", "adam")),
        "batch": draw.choice((16, 32)),
    }
    fields: dict[str, Any] = {
        "name": f"digits-{number:03}",
        "status": TrialStatus.SUCCEEDED,
        "parameters": parameters,
        "objective": 1 - abs(rate - 0.03) * 5,
        "metrics": {"accuracy": 1 - abs(rate - 0.03) * 5},
        "message": "Trial has succeeded",
        "started_at": START + timedelta(seconds=number),
        "completed_at": START + timedelta(seconds=number + 2),
        **changes,
    }
    return TrialResult(**fields)


def build_result(*trials: TrialResult, **changes: Any) -> ExperimentResult:
    fields: dict[str, Any] = {
        "name": "digits",
        "namespace": "default",
        "status": ExperimentStatus.SUCCEEDED,
        "reason": "",
        "message": "",
        "objective_metric": "accuracy",
        "is_maximized": True,
        "max_trial_count": len(trials),
        "trials": trials,
        "search_space": SPACE,
        **changes,
    }
    return ExperimentResult(**fields)


def failed(number: int) -> TrialResult:
    return build_trial(
        number, status=TrialStatus.FAILED, objective=None, metrics={}, message="ValueError: no data"
    )


def headings(page: Page) -> list[str]:
    return [section.heading for section in page.sections]


def find(page: Page, heading: str) -> Section:
    return next(section for section in page.sections if section.heading == heading)


def figure(page: Page, heading: str) -> Any:  # Plotly's JSON
    (plot,) = (part for part in find(page, heading).parts if isinstance(part, Plot))
    return plot.figure


def notes(page: Page) -> list[str]:
    return [part.text for s in page.sections for part in s.parts if isinstance(part, Note)]


def test_many_trials_are_shown_from_every_side() -> None:
    page = build_search_page(build_result(*map(build_trial, range(30))), Curves())

    assert headings(page) == [
        "Result",
        "Optimisation history",
        "Parameters together",
        "Importance of parameters",
        "Parameters one by one",
        "Trials",
    ]
    dimensions = figure(page, "Parameters together")["data"][0]["dimensions"]
    assert [dimension["label"] for dimension in dimensions] == [*SPACE, "accuracy"]
    assert len(figure(page, "Parameters one by one")["data"]) == len(SPACE)


def test_the_history_follows_the_best_so_far() -> None:
    values = [0.5, 0.4, 0.8, 0.7]
    trials = [build_trial(n, objective=value) for n, value in enumerate(values)]

    best = figure(build_search_page(build_result(*trials), Curves()), "Optimisation history")
    least = figure(
        build_search_page(build_result(*trials, is_maximized=False), Curves()),
        "Optimisation history",
    )

    assert list(best["data"][0]["y"]) == [0.5, 0.5, 0.8, 0.8]
    assert list(least["data"][0]["y"]) == [0.5, 0.4, 0.4, 0.4]


def test_the_best_trial_stands_out_in_the_table() -> None:
    trials = [build_trial(n, objective=value) for n, value in enumerate([0.5, 0.8, 0.7])]
    (table,) = find(build_search_page(build_result(*trials), Curves()), "Trials").parts

    assert isinstance(table, Table)
    assert table.highlighted == {1}
    assert table.rows[1][:4] == [2, "001", "Succeeded", 0.8]


def test_few_trials_are_said_to_be_too_few_for_importances() -> None:
    page = build_search_page(build_result(*map(build_trial, range(6))), Curves())
    assert "Importances need at least 10 trials with a result; there are 6." in notes(page)


def test_a_search_without_a_result_has_a_page() -> None:
    page = build_search_page(build_result(failed(0), failed(1)), Curves())

    assert headings(page) == ["Result", "Trials"]
    assert notes(page) == [
        "No trial has reported accuracy.",
        "2 without a result: ValueError: no data",
    ]


def test_a_search_that_has_just_begun_has_a_page() -> None:
    assert "none" in render_report(build_result())


def test_early_stopped_curves_are_told_from_others_and_the_best() -> None:
    trials = [
        build_trial(0, objective=0.9),
        build_trial(1, objective=0.5, status=TrialStatus.EARLY_STOPPED),
        build_trial(2, objective=0.6),
    ]
    curves = Curves(
        values={"digits-000": (0.5, 0.9), "digits-001": (0.2, 0.5), "digits-002": (0.3, 0.6)}
    )
    drawn = figure(build_search_page(build_result(*trials), curves), "accuracy while trials ran")

    kinds = {trace["legendgroup"]: trace for trace in drawn["data"] if not trace.get("name")}
    assert set(kinds) == {"best", "stopped early", "other trials"}
    assert list(kinds["best"]["y"]) == [0.5, 0.9]
    assert kinds["stopped early"]["mode"] == "lines+markers"


def test_an_architecture_search_has_a_page_without_plots_of_parameters() -> None:
    trials = [
        build_trial(number, parameters={"architecture": f"[[{number}]]", "nn_config": "{}"})
        for number in range(3)
    ]

    page = build_search_page(build_result(*trials, search_space={}, algorithm="enas"), Curves())

    assert headings(page) == ["Result", "Optimisation history", "Trials"]
    (table,) = find(page, "Trials").parts
    assert isinstance(table, Table)
    assert "architecture" in table.columns
    assert "nn_config" not in table.columns
    assert "[[2]]" in table.rows[2]


def test_missing_curves_are_explained() -> None:
    page = build_search_page(
        build_result(*map(build_trial, range(3))), Curves(problem="nobody answers")
    )
    assert "Curves are missing: nobody answers" in notes(page)


def test_what_comes_from_programs_is_escaped() -> None:
    evil = "</script><script>alert(1)</script>"
    trials = [build_trial(0), build_trial(1, parameters={**build_trial(1).parameters})]
    bad = build_trial(2, status=TrialStatus.FAILED, objective=None, metrics={}, message=evil)

    html = render_report(build_result(*trials, bad, message=evil))

    assert evil not in html


def test_importances_find_the_parameter_that_matters() -> None:
    found = measure_importances(build_result(*map(build_trial, range(40))))

    assert found[0].name == "learning_rate"
    assert found[0].share > 0.5
    assert sum(importance.share for importance in found) == pytest.approx(1)
    json.dumps([importance.share for importance in found])


def test_importances_of_a_constant_objective_are_refused() -> None:
    trials = [build_trial(n, objective=0.5) for n in range(20)]
    with pytest.raises(TooFewTrialsError, match="no parameter mattered"):
        measure_importances(build_result(*trials))


def test_the_same_trials_have_the_same_page() -> None:
    result = build_result(*map(build_trial, range(12)))
    assert render_report(result) == render_report(result)
