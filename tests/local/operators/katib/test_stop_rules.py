"""Early stopping rules, tested report by report."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.local.operators.katib.metrics import NO_TIME, MetricLog
from kubeloop.local.operators.katib.stop_rules import StopRules


def rule(
    value: str, comparison: str = "less", *, name: str = "accuracy", start: int = 0
) -> dict[str, Any]:
    return {"name": name, "value": value, "comparison": comparison, "startStep": start}


def build(*rules: dict[str, Any], objective_type: str = "maximize") -> StopRules:
    objective = {"type": objective_type, "objectiveMetricName": "accuracy"}
    return StopRules({"spec": {"objective": objective, "earlyStoppingRules": list(rules)}})


def count_until_stopped(rules: StopRules, *values: float | str, name: str = "accuracy") -> int:
    """After how many reports the trial is to be stopped; -1: not at all."""
    for number, value in enumerate(values, start=1):
        rules.note([MetricLog(time_stamp=NO_TIME, name=name, value=str(value))])
        if rules.verdict:
            return number
    return -1


def test_a_rule_is_tested_from_its_start_step_on() -> None:
    assert count_until_stopped(build(rule("0.5", start=3)), 0.1, 0.2, 0.3, 0.4) == 3


def test_a_rule_without_a_start_step_is_tested_at_once() -> None:
    assert count_until_stopped(build(rule("0.5")), 0.1) == 1


def test_the_best_value_of_the_objective_is_compared() -> None:
    assert count_until_stopped(build(rule("0.5", start=2)), 0.6, 0.1, 0.1) == -1
    minimised = build(rule("0.5", "greater", start=2), objective_type="minimize")
    assert count_until_stopped(minimised, 0.4, 0.9, 0.9) == -1


def test_the_newest_value_of_another_metric_is_compared() -> None:
    rules = build(rule("5", "greater", name="loss"))

    assert count_until_stopped(rules, 1, 2, 6, name="loss") == 3


@pytest.mark.parametrize(("comparison", "value"), [("less", 0.4), ("greater", 0.6), ("equal", 0.5)])
def test_a_rule_compares_as_it_says(comparison: str, value: float) -> None:
    others = {0.4, 0.5, 0.6} - {value}

    assert count_until_stopped(build(rule("0.5", comparison)), value) == 1
    for other in others:
        assert count_until_stopped(build(rule("0.5", comparison)), other) == -1


def test_a_trial_goes_on_until_all_its_rules_have_been_met() -> None:
    rules = build(rule("0.5"), rule("5", "greater", name="loss"))

    assert count_until_stopped(rules, 0.1, 0.1) == -1
    assert count_until_stopped(rules, 6, name="loss") == 1


def test_what_is_no_number_is_no_report() -> None:
    assert count_until_stopped(build(rule("0.5", start=2)), "NaN", "high", 0.1, 0.1) == 4


def test_a_trial_without_rules_goes_on() -> None:
    assert count_until_stopped(build(), -1.0) == -1


def test_the_verdict_says_why() -> None:
    rules = build(rule("0.5", start=2))

    count_until_stopped(rules, 0.1, 0.25)

    assert rules.verdict == "accuracy 0.25 is less than 0.5 after 2 reports"
