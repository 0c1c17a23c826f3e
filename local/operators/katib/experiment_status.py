"""What an experiment's trials add up to: counters, the optimal trial, and whether it is over.

Pure functions. One value is judged otherwise than upstream: NaN is never optimal,
where Katib keeps the first trial for ever once it has reported NaN.

Source: katib v0.19 `experiment/util/status_util.go`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubeloop.katib.suggestion.manifests import UNAVAILABLE, choose_value, parse_strategies
from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import find_condition
from kubeloop.local.operators.katib.drafts import StatusDraft
from kubeloop.local.operators.katib.metrics import parse_number
from kubeloop.local.operators.katib.terms import (
    EARLY_STOPPED,
    FAILED,
    FROM_VOLUME,
    KILLED,
    LONG_RUNNING,
    METRICS_UNAVAILABLE,
    RESTARTING,
    RUNNING,
    SUCCEEDED,
)
from kubeloop.local.operators.katib.trial_status import PENDING, classify_trial
from kubeloop.local.operators.pod_states import is_being_deleted

GOAL_REACHED = "ExperimentGoalReached"
MAX_TRIALS_REACHED = "ExperimentMaxTrialsReached"
SUGGESTION_END_REACHED = "ExperimentSuggestionEndReached"
_FAILED_REASON = "ExperimentFailed"

_FIELDS = {  # class of a trial → list of names, count
    RUNNING: ("runningTrialList", "trialsRunning"),
    PENDING: ("pendingTrialList", "trialsPending"),
    FAILED: ("failedTrialList", "trialsFailed"),
    SUCCEEDED: ("succeededTrialList", "trialsSucceeded"),
    KILLED: ("killedTrialList", "trialsKilled"),
    EARLY_STOPPED: ("earlyStoppedTrialList", "trialsEarlyStopped"),
    METRICS_UNAVAILABLE: ("metricsUnavailableTrialList", "trialMetricsUnavailable"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """What an experiment needs to know of one of its trials."""

    name: str
    trial_class: str
    is_being_deleted: bool
    objective: str | None
    """The objective's value by its strategy; None when there is none, or it is NaN."""
    assignments: list[Manifest]
    metrics: list[Manifest]

    @classmethod
    def of(cls, trial: Manifest) -> TrialFacts:
        """Read them from a trial."""
        metadata, observation = trial["metadata"], (trial.get("status") or {}).get("observation")
        metrics = (observation or {}).get("metrics") or []
        return cls(
            name=metadata["name"],
            trial_class=classify_trial(trial),
            is_being_deleted=is_being_deleted(trial),
            objective=_find_objective(trial["spec"]["objective"], metrics),
            assignments=trial["spec"].get("parameterAssignments") or [],
            metrics=metrics,
        )

    @property
    def is_active(self) -> bool:
        """Whether it runs or waits to."""
        return self.trial_class in (PENDING, RUNNING)

    @property
    def is_silent(self) -> bool:
        """Whether it was stopped early before it reported anything."""
        return self.trial_class == EARLY_STOPPED and not self.metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many trials are in which class."""

    total: int
    active: int
    completed: int
    """Trials that need no replacement; those without metrics are not among them."""
    failed: int
    without_metrics: int


def is_over(draft: StatusDraft) -> bool:
    """Whether the experiment has succeeded or failed."""
    return draft.says(SUCCEEDED) or draft.says(FAILED)


def has_active_trials(draft: StatusDraft) -> bool:
    """Whether, as far as the status knows, a trial runs or waits to."""
    return bool(draft.status.get("trialsRunning") or draft.status.get("trialsPending"))


def is_resumable(experiment: Manifest) -> bool:
    """Whether a finished experiment may be given a larger budget."""
    conditions = (experiment.get("status") or {}).get("conditions") or []
    succeeded = find_condition(conditions, SUCCEEDED)
    return (
        succeeded is not None
        and succeeded["status"] == "True"
        and succeeded.get("reason") == MAX_TRIALS_REACHED
        and experiment["spec"].get("resumePolicy") in (LONG_RUNNING, FROM_VOLUME)
    )


def has_new_budget(draft: StatusDraft) -> bool:
    """Whether a finished experiment has been given more trials.

    Upstream also restarts an experiment without a maximum at every look, and ends it again in the
    same breath; nothing can come of it, so it is left out.
    """
    maximum = draft.stored["spec"].get("maxTrialCount")
    if maximum is None or not is_resumable(draft.stored):
        return False
    return bool(maximum > draft.status.get("trials", 0))


def restart(draft: StatusDraft) -> None:
    """Open a finished experiment again."""
    draft.drop(SUCCEEDED, FAILED)
    draft.write(RESTARTING, reason="ExperimentRestarting", message="Experiment is restarted")


def count_trials(draft: StatusDraft, trials: Sequence[TrialFacts]) -> Counts:
    """Write counters and name lists; empty ones are left out, as upstream serialises them."""
    names: dict[str, list[str]] = {trial_class: [] for trial_class in _FIELDS}
    for trial in trials:
        names[trial.trial_class].append(trial.name)
    values: dict[str, int | list[str]] = {"trials": len(trials)}
    for trial_class, (list_field, count_field) in _FIELDS.items():
        values[list_field] = names[trial_class]
        values[count_field] = len(names[trial_class])
    for name, value in values.items():
        if value:
            draft.status[name] = value
        else:
            draft.status.pop(name, None)
    sizes = {trial_class: len(members) for trial_class, members in names.items()}
    return Counts(
        total=len(trials),
        active=sizes[PENDING] + sizes[RUNNING],
        completed=sizes[SUCCEEDED] + sizes[FAILED] + sizes[KILLED] + sizes[EARLY_STOPPED],
        failed=sizes[FAILED],
        without_metrics=sizes[METRICS_UNAVAILABLE],
    )


def update_optimal_trial(draft: StatusDraft, trials: Iterable[TrialFacts]) -> float | None:
    """Write the optimal trial and return its objective, None when it is no number.

    The first of equals wins. A text that is no number makes its trial the optimal one, so that the
    newest text is shown.
    """
    is_minimized = draft.stored["spec"]["objective"].get("type") == "minimize"
    best_trial, best_value = None, None
    for trial in trials:
        if trial.objective is None:
            continue
        value = parse_number(trial.objective)
        if value is None:
            best_trial = trial
        elif best_value is None or (value < best_value if is_minimized else value > best_value):
            best_trial, best_value = trial, value
    if best_trial is not None:
        draft.status["currentOptimalTrial"] = {
            "bestTrialName": best_trial.name,
            "parameterAssignments": best_trial.assignments,
            "observation": {"metrics": best_trial.metrics},
        }
    return best_value


def conclude(draft: StatusDraft, counts: Counts, *, best: float | None) -> None:
    """Write whether the experiment goes on, by the first end rule that holds."""
    spec = draft.stored["spec"]
    num_bad = counts.failed + counts.without_metrics
    max_failed, max_trials = spec.get("maxFailedTrialCount"), spec.get("maxTrialCount")
    if _reaches_goal(spec["objective"], best):
        succeed(draft, GOAL_REACHED, "Objective goal has reached")
    elif max_failed is not None and num_bad and num_bad >= max_failed:
        fail(draft, "Experiment has failed because max failed count has reached")
    elif max_trials is not None and counts.completed + counts.without_metrics >= max_trials:
        succeed(draft, MAX_TRIALS_REACHED, "max trial count has reached")
    else:
        draft.write(RUNNING, reason="ExperimentRunning", message="Experiment is running")


def succeed(draft: StatusDraft, reason: str, cause: str) -> None:
    """End the experiment well."""
    draft.finish(SUCCEEDED, reason=reason, message=f"Experiment has succeeded because {cause}")


def fail(draft: StatusDraft, message: str) -> None:
    """End the experiment badly."""
    draft.finish(FAILED, reason=_FAILED_REASON, message=message)


def _reaches_goal(objective: Manifest, best: float | None) -> bool:
    goal = objective.get("goal")
    if goal is None or best is None:
        return False
    return bool(best <= goal if objective.get("type") == "minimize" else best >= goal)


def _find_objective(objective: Manifest, metrics: Iterable[Manifest]) -> str | None:
    name = objective["objectiveMetricName"]
    metric = next((metric for metric in metrics if metric["name"] == name), None)
    strategy = parse_strategies(objective).get(name)
    if metric is None or strategy is None:
        return None
    text = choose_value(metric, strategy)
    return None if text == UNAVAILABLE or _is_nan(text) else text


def _is_nan(text: str) -> bool:
    try:
        return math.isnan(float(text))
    except ValueError:
        return False
