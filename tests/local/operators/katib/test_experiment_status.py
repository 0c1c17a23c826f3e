"""Counters, the optimal trial and the end rules, on trials made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kubeloop.local.operators.katib.drafts import StatusDraft
from kubeloop.local.operators.katib.experiment_status import (
    TrialFacts,
    conclude,
    count_trials,
    has_new_budget,
    update_optimal_trial,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_trial(
    name: str, *types: str, values: tuple[str, str, str] | None = None, strategy: str = "max"
) -> TrialFacts:
    metric = dict(zip(("min", "max", "latest"), values or (), strict=False))
    observation = {"observation": {"metrics": [{"name": "accuracy", **metric}]}} if values else {}
    trial = {
        "metadata": {"name": name},
        "spec": {
            "objective": {
                "objectiveMetricName": "accuracy",
                "metricStrategies": [{"name": "accuracy", "value": strategy}],
            },
            "parameterAssignments": [{"name": "lr", "value": name}],
        },
        "status": {
            "conditions": [
                {"type": t.removeprefix("!"), "status": "False" if t.startswith("!") else "True"}
                for t in types
            ],
            **observation,
        },
    }
    return TrialFacts.of(trial)


def draft(**spec: Any) -> StatusDraft:  # any part of the spec
    objective = {"type": "maximize", "objectiveMetricName": "accuracy", **spec.pop("objective", {})}
    return StatusDraft.of({"spec": {"objective": objective, **spec}}, now=NOW)


def test_each_trial_is_counted_in_one_class() -> None:
    trials = [
        make_trial("pending", "Created"),
        make_trial("fresh"),
        make_trial("running", "Created", "Running"),
        make_trial("succeeded", "Created", "!Running", "Succeeded"),
        make_trial("failed", "Created", "!Running", "Failed"),
        make_trial("killed", "Running", "Failed", "Killed"),
        make_trial("stopped", "!Running", "EarlyStopped"),
        make_trial("silent", "!Running", "MetricsUnavailable"),
    ]
    work = draft()

    counts = count_trials(work, trials)

    assert work.status == {
        "trials": 8,
        "pendingTrialList": ["pending", "fresh"],
        "trialsPending": 2,
        "runningTrialList": ["running"],
        "trialsRunning": 1,
        "succeededTrialList": ["succeeded"],
        "trialsSucceeded": 1,
        "failedTrialList": ["failed"],
        "trialsFailed": 1,
        "killedTrialList": ["killed"],
        "trialsKilled": 1,
        "earlyStoppedTrialList": ["stopped"],
        "trialsEarlyStopped": 1,
        "metricsUnavailableTrialList": ["silent"],
        "trialMetricsUnavailable": 1,
    }
    assert (counts.active, counts.completed, counts.without_metrics) == (3, 4, 1)


def test_counters_that_fall_to_zero_disappear() -> None:
    work = draft()
    work.status = {"trialsRunning": 2, "runningTrialList": ["a", "b"]}

    count_trials(work, [])

    assert work.status == {}


def find_best(*trials: TrialFacts, **objective: Any) -> str:
    work = draft(objective=objective)
    update_optimal_trial(work, trials)
    return str(work.status.get("currentOptimalTrial", {}).get("bestTrialName", ""))


def test_the_first_of_equals_wins() -> None:
    equal = [make_trial(name, values=("1", "1", "1")) for name in ("first", "second")]

    assert find_best(*equal) == "first"


@pytest.mark.parametrize(("strategy", "best"), [("min", "a"), ("max", "b"), ("latest", "a")])
def test_the_strategy_chooses_the_value(strategy: str, best: str) -> None:
    trials = [
        make_trial("a", values=("3", "4", "4"), strategy=strategy),
        make_trial("b", values=("1", "9", "2"), strategy=strategy),
    ]

    assert find_best(*trials) == best


def test_less_is_better_when_minimising() -> None:
    trials = [
        make_trial("a", values=("3", "3", "3"), strategy="min"),
        make_trial("b", values=("-1e3", "3", "3"), strategy="min"),
    ]

    assert find_best(*trials, type="minimize") == "b"


def test_the_newest_stands_in_for_an_extreme_that_is_missing() -> None:
    trial = make_trial("text", values=("unavailable", "unavailable", "0.5"))

    assert find_best(make_trial("a", values=("0.1", "0.1", "0.1")), trial) == "text"


def test_a_text_makes_its_trial_the_optimal_one() -> None:
    trial = make_trial("text", values=("unavailable", "unavailable", "high"))

    assert find_best(make_trial("a", values=("1", "1", "1")), trial) == "text"


@pytest.mark.parametrize("nan", ["nan", "NaN", "-nan"])
def test_nan_is_never_optimal_nor_in_the_way(nan: str) -> None:
    diverged = make_trial("diverged", values=(nan, nan, nan))
    fine = make_trial("fine", values=("0.1", "0.1", "0.1"))

    assert find_best(diverged) == ""
    assert find_best(diverged, fine) == "fine"
    assert find_best(fine, diverged) == "fine"


def test_an_unavailable_objective_is_passed_over() -> None:
    silent = make_trial("silent", values=("unavailable", "unavailable", "unavailable"))

    assert find_best(silent) == ""


def end(trials: list[TrialFacts], **spec: Any) -> tuple[str, str]:
    work = draft(**spec)
    best = update_optimal_trial(work, trials)
    conclude(work, count_trials(work, trials), best=best)
    last = work.conditions[-1]
    return last["type"], last["reason"]


GOOD = make_trial("good", "Succeeded", values=("0.9", "0.9", "0.9"))
BAD = make_trial("bad", "Failed")
SILENT = make_trial("silent", "MetricsUnavailable")


@pytest.mark.parametrize(
    ("goal", "kind", "reached"),
    [
        (0.9, "maximize", True),
        (0.91, "maximize", False),
        (0.9, "minimize", True),
        (0.89, "minimize", False),
    ],
)
def test_the_goal_is_reached_at_the_goal(*, goal: float, kind: str, reached: bool) -> None:
    outcome = end([GOOD], objective={"goal": goal, "type": kind})

    expected = ("Succeeded", "ExperimentGoalReached") if reached else ("Running",)
    assert outcome[: len(expected)] == expected


def test_the_goal_comes_before_the_failures() -> None:
    outcome = end([GOOD, BAD, BAD], objective={"goal": 0.5}, maxFailedTrialCount=1)

    assert outcome == ("Succeeded", "ExperimentGoalReached")


@pytest.mark.parametrize(
    ("trials", "maximum", "fails"),
    [
        ([BAD], 1, True),
        ([BAD, SILENT], 2, True),
        ([BAD], 2, False),
        ([BAD], 0, True),
        ([GOOD], 0, False),
        ([BAD, BAD], None, False),
    ],
)
def test_bad_trials_fail_the_experiment_at_the_limit(
    *, trials: list[TrialFacts], maximum: int | None, fails: bool
) -> None:
    assert (end(trials, maxFailedTrialCount=maximum)[0] == "Failed") is fails


def test_the_failures_come_before_the_number_of_trials() -> None:
    assert end([BAD, GOOD], maxFailedTrialCount=1, maxTrialCount=2)[0] == "Failed"


def test_trials_without_metrics_count_towards_the_maximum() -> None:
    assert end([GOOD, SILENT], maxTrialCount=2) == ("Succeeded", "ExperimentMaxTrialsReached")


def test_without_limits_it_runs_on() -> None:
    assert end([GOOD, BAD, SILENT]) == ("Running", "ExperimentRunning")


@pytest.mark.parametrize(
    ("policy", "reason", "maximum", "resumes"),
    [
        ("LongRunning", "ExperimentMaxTrialsReached", 5, True),
        ("FromVolume", "ExperimentMaxTrialsReached", 5, True),
        ("Never", "ExperimentMaxTrialsReached", 5, False),
        ("LongRunning", "ExperimentGoalReached", 5, False),
        ("LongRunning", "ExperimentMaxTrialsReached", 4, False),
        ("LongRunning", "ExperimentMaxTrialsReached", None, False),
    ],
)
def test_only_a_spent_budget_that_was_raised_resumes(
    *, policy: str, reason: str, maximum: int | None, resumes: bool
) -> None:
    work = draft(resumePolicy=policy, maxTrialCount=maximum)
    condition = {"type": "Succeeded", "status": "True", "reason": reason}
    work.stored["status"] = {"conditions": [condition]}
    work.status = {"trials": 4}

    assert has_new_budget(work) is resumes
