"""What becomes of a trial when its job succeeds or fails.

Source: katib v0.19 `trial_controller_util.go`, `trial/util/job_util.go`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubeloop.katib.suggestion.manifests import UNAVAILABLE
from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    conditions_of,
    format_time,
    is_condition_true,
)
from kubeloop.local.operators.katib.drafts import StatusDraft
from kubeloop.local.operators.katib.gjson import MISSING, find_match
from kubeloop.local.operators.katib.terms import (
    EARLY_STOPPED,
    FAILED,
    KILLED,
    METRICS_UNAVAILABLE,
    RUNNING,
    SUCCEEDED,
)

_COMPLETED = (SUCCEEDED, FAILED, KILLED, EARLY_STOPPED)
_CLASSES = (KILLED, FAILED, SUCCEEDED, EARLY_STOPPED, RUNNING, METRICS_UNAVAILABLE)
PENDING = "Pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVerdict:
    """What a trial's job has come to, and the words of the condition that says so."""

    outcome: str
    reason: str = ""
    message: str = ""


def classify_trial(trial: Manifest) -> str:
    """The one class that a trial is counted in: a condition type, or Pending."""
    conditions = conditions_of(trial)
    return next((c for c in _CLASSES if is_condition_true(conditions, c)), PENDING)


def is_completed(draft: StatusDraft) -> bool:
    """Whether the trial's job is needed no more."""
    return any(draft.says(condition) for condition in _COMPLETED)


def is_settled(draft: StatusDraft) -> bool:
    """Whether the job's end can change nothing any more."""
    return is_completed(draft) or draft.says(METRICS_UNAVAILABLE)


def judge_job(trial: Manifest, job: Manifest) -> JobVerdict:
    """Ask the job with the trial's conditions, failure first.

    Raises:
        InputError: A condition cannot be read.
    """
    spec = trial["spec"]
    for outcome, condition in (
        (FAILED, spec.get("failureCondition")),
        (SUCCEEDED, spec.get("successCondition")),
    ):
        match = find_match(job, condition) if condition else MISSING
        if match is not MISSING:
            words = match if isinstance(match, dict) else {}
            return JobVerdict(
                outcome=outcome,
                reason=str(words.get("reason") or ""),
                message=str(words.get("message") or ""),
            )
    return JobVerdict(outcome=RUNNING)


def run(draft: StatusDraft, *, job_name: str) -> None:
    """The job exists and has not ended."""
    if draft.says(RUNNING):
        return
    draft.write(RUNNING, reason="TrialRunning", message="Trial is running")
    draft.announce("JobRunning", f"Job {job_name} is running")


def succeed(draft: StatusDraft, verdict: JobVerdict, *, job_name: str) -> None:
    """The job succeeded and `status.observation` is written."""
    if _is_objective_available(draft):
        reason, message = _add_words("TrialSucceeded", "Trial has succeeded", verdict)
        draft.finish(SUCCEEDED, reason=reason, message=message)
        draft.announce("JobSucceeded", f"Job {job_name} has succeeded")
        return
    reason, message = _add_words("MetricsUnavailable", "Metrics are not available", verdict)
    draft.finish(METRICS_UNAVAILABLE, reason=reason, message=message)
    draft.announce(
        "MetricsUnavailable",
        f"Metrics are not available for Job {job_name}",
        severity="Warning",
    )


def fail(draft: StatusDraft, verdict: JobVerdict, *, job_name: str) -> None:
    """The job failed, or could not be created."""
    reason, message = _add_words("TrialFailed", "Trial has failed", verdict)
    draft.finish(FAILED, reason=reason, message=message)
    words = " ".join(filter(None, (verdict.message, verdict.reason)))
    announced = f"Job {job_name} has failed"
    draft.announce("JobFailed", f"{announced}. {words}" if words else announced)


def stop_early(draft: StatusDraft, cause: str, *, job_name: str) -> None:
    """The early stopping rules have been met and `status.observation` is written.

    Running stays True, as Katib leaves it; the time of the end is ours.
    """
    draft.write(EARLY_STOPPED, reason="TrialEarlyStopped", message="Trial is early stopped")
    draft.status["completionTime"] = format_time(draft.now)
    draft.announce("TrialEarlyStopped", f"Job {job_name} is stopped early: {cause}")


def _add_words(reason: str, message: str, verdict: JobVerdict) -> tuple[str, str]:
    if verdict.message:
        message = f"{message}. Job message: {verdict.message}"
    if verdict.reason:
        reason = f"{reason}. Job reason: {verdict.reason}"
    return reason, message


def _is_objective_available(draft: StatusDraft) -> bool:
    objective = draft.stored["spec"]["objective"]["objectiveMetricName"]
    metrics = (draft.status.get("observation") or {}).get("metrics") or []
    return any(m["name"] == objective and m.get("latest") != UNAVAILABLE for m in metrics)
