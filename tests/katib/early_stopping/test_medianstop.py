"""Median stop: which rules new trials get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from kubeloop.katib.early_stopping import EARLY_STOPPING, GetEarlyStoppingRulesRequest
from kubeloop.katib.suggestion import InvalidSettingsError
from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    ComparisonType,
    EarlyStoppingRule,
    EarlyStoppingSpec,
    Experiment,
    ExperimentSpec,
    ObjectiveSpec,
    ObjectiveType,
    Trial,
    TrialConditionType,
    TrialSpec,
    TrialStatus,
)

SUCCEEDED = TrialConditionType.SUCCEEDED


def build_settings(**settings: str) -> EarlyStoppingSpec:
    return EarlyStoppingSpec(
        algorithm_name="medianstop",
        algorithm_settings=tuple(
            AlgorithmSetting(name=name, value=value) for name, value in settings.items()
        ),
    )


def find_rules(
    reports: Mapping[str, Sequence[str]],
    *,
    condition: TrialConditionType = SUCCEEDED,
    objective_type: ObjectiveType = ObjectiveType.MAXIMIZE,
    **settings: str,
) -> tuple[EarlyStoppingRule, ...]:
    """The rules after trials that reported these values of `accuracy`."""
    objective = ObjectiveSpec(type=objective_type, objective_metric_name="accuracy")
    experiment = Experiment(
        name="e",
        spec=ExperimentSpec(
            parameters=(),
            objective=objective,
            algorithm=AlgorithmSpec(algorithm_name="random"),
            early_stopping=build_settings(**settings),
        ),
    )
    trials = tuple(
        Trial(
            name=name,
            spec=TrialSpec(objective=objective, parameter_assignments=()),
            status=TrialStatus(condition=condition),
        )
        for name in reports
    )

    def read_values(trial: str, metric: str, limit: int) -> Sequence[str]:
        assert metric == "accuracy"
        return reports[trial][:limit]

    request = GetEarlyStoppingRulesRequest(experiment=experiment, trials=trials)
    return EARLY_STOPPING["medianstop"](read_values).get_early_stopping_rules(request)


def test_the_rule_is_the_mean_of_the_means_of_the_first_reports() -> None:
    rules = find_rules({"a": ["1", "2", "3", "4", "90"], "b": ["3"] * 4, "c": ["0.5", "0.5"]})

    assert rules == (
        EarlyStoppingRule(
            name="accuracy", value="2.0", comparison=ComparisonType.LESS, start_step=4
        ),
    )


def test_what_is_minimised_is_stopped_when_greater() -> None:
    (rule,) = find_rules(
        {"a": ["1"]}, objective_type=ObjectiveType.MINIMIZE, min_trials_required="1", start_step="1"
    )

    assert (rule.comparison, rule.value, rule.start_step) == (ComparisonType.GREATER, "1.0", 1)


def test_no_rule_before_enough_trials_have_succeeded() -> None:
    assert find_rules({"a": ["1"], "b": ["1"]}) == ()
    assert find_rules({"a": ["1"], "b": ["1"]}, min_trials_required="2") != ()


@pytest.mark.parametrize("condition", [TrialConditionType.RUNNING, TrialConditionType.EARLYSTOPPED])
def test_only_trials_that_have_succeeded_count(condition: TrialConditionType) -> None:
    assert find_rules({"a": ["1"]}, condition=condition, min_trials_required="1") == ()


def test_reports_that_are_no_numbers_do_not_count() -> None:
    assert find_rules({"a": ["unavailable"]}, min_trials_required="1") == ()
    (rule,) = find_rules({"a": ["NaN", "2"]}, min_trials_required="1")
    assert rule.value == "2.0"


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"patience": "3"}, "unknown setting patience for algorithm medianstop"),
        ({"start_step": "0"}, "start_step must be an integer of 1 or more"),
        ({"min_trials_required": "0"}, "min_trials_required must be an integer of 1 or more"),
        ({"start_step": "four"}, "start_step must be an integer of 1 or more, not 'four'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], refusal: str) -> None:
    service = EARLY_STOPPING["medianstop"](lambda *_: ())

    with pytest.raises(InvalidSettingsError, match=refusal):
        service.validate_early_stopping_settings(build_settings(**settings))
