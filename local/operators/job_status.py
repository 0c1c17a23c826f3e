"""Counts the pods of a Job and decides what becomes of it.

A finished pod is counted exactly once, whatever is deleted and whenever the plane dies: the pod
holds a finalizer until its uid stands in `status.uncountedTerminatedPods`, and the uid moves into
the counter only once the finalizer is gone.

Source: Kubernetes `pkg/controller/job/job_controller.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    FALSE,
    TRUE,
    find_condition,
    format_time,
    is_condition_true,
    parse_time,
)
from kubeloop.local.operators.pod_states import (
    count_restarts,
    find_finish_time,
    is_active,
    is_being_deleted,
    is_ready,
    is_terminal,
    phase_of,
)

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
_OUTCOMES = ("succeeded", "failed")
_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a Job ends: the condition that says so, and the one that announces it."""

    condition_type: str
    target_type: str
    reason: str
    message: str


COMPLETE = Verdict(
    condition_type="Complete",
    target_type="SuccessCriteriaMet",
    reason="CompletionsReached",
    message="Reached expected number of succeeded pods",
)
BACKOFF_LIMIT_EXCEEDED = Verdict(
    condition_type="Failed",
    target_type="FailureTarget",
    reason="BackoffLimitExceeded",
    message="Job has reached the specified backoff limit",
)
DEADLINE_EXCEEDED = Verdict(
    condition_type="Failed",
    target_type="FailureTarget",
    reason="DeadlineExceeded",
    message="Job was active longer than specified deadline",
)
_VERDICTS = (COMPLETE, BACKOFF_LIMIT_EXCEEDED, DEADLINE_EXCEEDED)


def is_tracked(pod: Manifest) -> bool:
    """Whether the pod still has to be counted before it may disappear."""
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or [])


@dataclass(slots=True, kw_only=True)
class JobDraft:
    """The next status of one Job."""

    job: Manifest
    now: datetime
    status: Manifest

    @classmethod
    def of(cls, job: Manifest, *, now: datetime) -> JobDraft:
        """Start from the stored status."""
        return cls(job=job, now=now, status=deepcopy(job.get("status") or {}))

    @property
    def conditions(self) -> list[Manifest]:
        """The conditions, in the order of their first writing."""
        conditions: list[Manifest] = self.status.setdefault("conditions", [])
        return conditions

    @property
    def is_suspended(self) -> bool:
        """Whether the spec says to suspend."""
        return bool(self.job["spec"].get("suspend"))

    @property
    def finish_time(self) -> datetime | None:
        """When the Job completed or failed, None while it runs."""
        for condition_type in ("Complete", "Failed"):
            if is_condition_true(self.conditions, condition_type):
                entry = find_condition(self.conditions, condition_type) or {}
                return parse_time(entry["lastTransitionTime"])
        return None

    @property
    def uncounted(self) -> dict[str, list[str]]:
        """Uids of finished pods on their way into the counters, by outcome."""
        uncounted: dict[str, list[str]] = self.status.setdefault("uncountedTerminatedPods", {})
        return uncounted

    def total(self, outcome: str) -> int:
        """Number of pods that ended so far with an outcome: succeeded or failed."""
        return int(self.status.get(outcome, 0)) + len(self.uncounted.get(outcome, ()))

    def set_condition(
        self, condition_type: str, *, reason: str, message: str, status: str = TRUE
    ) -> bool:
        """Write a condition where it stands, or append it; a first False is not worth writing.

        Returns:
            Whether the condition's status is new.
        """
        entry = find_condition(self.conditions, condition_type)
        if status == (entry["status"] if entry else FALSE):
            return False
        stamp = format_time(self.now)
        written = {
            "type": condition_type,
            "status": status,
            "reason": reason,
            "message": message,
            "lastProbeTime": stamp,
            "lastTransitionTime": stamp,
        }
        if entry is None:
            self.conditions.append(written)
        else:
            entry.update(written)
        return True

    def count(self, pods: Iterable[Manifest]) -> None:
        """Move counted pods into the counters, and note those that have ended since."""
        tracked = {pod["metadata"]["uid"]: pod for pod in pods if is_tracked(pod)}
        for outcome in _OUTCOMES:
            noted = self.uncounted.pop(outcome, [])
            waiting = [uid for uid in noted if uid in tracked]
            if counted := len(noted) - len(waiting):
                self.status[outcome] = self.status.get(outcome, 0) + counted
            if waiting:
                self.uncounted[outcome] = waiting
        known = {uid for uids in self.uncounted.values() for uid in uids}
        for uid, pod in tracked.items():
            ended = _find_outcome(pod)
            if ended is not None and uid not in known:
                self.uncounted.setdefault(ended, []).append(uid)

    def observe(self, pods: Iterable[Manifest]) -> None:
        """Write the numbers of pods that are active, ready and on their way out."""
        pods = list(pods)
        active = [pod for pod in pods if is_active(pod)]
        self.status["ready"] = sum(is_ready(pod) for pod in active)
        self.status["terminating"] = sum(
            is_being_deleted(pod) and not is_terminal(pod) for pod in pods
        )
        self.status.pop("active", None)
        if active:
            self.status["active"] = len(active)

    def find_verdict(self, pods: Iterable[Manifest]) -> Verdict | None:
        """How the Job ends, None when it goes on. A verdict once announced stands."""
        for verdict in _VERDICTS:
            entry = find_condition(self.conditions, verdict.target_type)
            if entry and (entry["status"], entry["reason"]) == (TRUE, verdict.reason):
                return verdict
        if self._exceeds_backoff_limit(pods):
            return BACKOFF_LIMIT_EXCEEDED
        if (remaining := self.seconds_to_deadline()) is not None and remaining <= 0:
            return DEADLINE_EXCEEDED
        completions = self.job["spec"].get("completions")
        succeeded = self.total("succeeded")
        if completions is None:
            is_complete = succeeded > 0 and not any(is_active(pod) for pod in pods)
        else:
            is_complete = succeeded >= completions
        return COMPLETE if is_complete and not self.is_suspended else None

    def seconds_to_deadline(self) -> float | None:
        """Time left to run, None without a deadline or while suspended."""
        limit_seconds = self.job["spec"].get("activeDeadlineSeconds")
        started = self.status.get("startTime")
        if limit_seconds is None or started is None or self.is_suspended:
            return None
        elapsed = self.now - parse_time(started)
        return float(limit_seconds - elapsed.total_seconds())

    def count_wanted(self) -> int:
        """How many pods should be active now."""
        spec = self.job["spec"]
        parallelism = int(spec.get("parallelism", 1))
        completions = spec.get("completions")
        if completions is not None:
            return max(min(parallelism, int(completions) - self.total("succeeded")), 0)
        num_active = int(self.status.get("active", 0))
        return min(parallelism, num_active) if self.total("succeeded") else parallelism

    def _exceeds_backoff_limit(self, pods: Iterable[Manifest]) -> bool:
        spec = self.job["spec"]
        limit = int(spec.get("backoffLimit", 6))
        if self.total("failed") > limit:
            return True
        if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            return False
        num_restarts = sum(
            count_restarts(pod) for pod in pods if phase_of(pod) in ("Running", "Pending")
        )
        return num_restarts >= limit if limit else num_restarts > 0


def seconds_to_next_try(
    pods: Iterable[Manifest], *, now: datetime, first: float, last: float
) -> float:
    """How long to wait before a new pod, after pods have failed one after the other.

    Args:
        pods: All pods of the Job.
        now: The present.
        first: Seconds to wait after one failure; doubled with each that follows.
        last: The longest wait in seconds.
    """
    ends: dict[str, list[datetime]] = {"Succeeded": [], "Failed": []}
    for pod in filter(is_terminal, pods):
        created = parse_time(pod["metadata"]["creationTimestamp"])
        ends[phase_of(pod)].append(find_finish_time(pod) or created)
    newest_success = max(ends["Succeeded"], default=None)
    failures = [end for end in ends["Failed"] if newest_success is None or end > newest_success]
    if not failures:
        return 0.0
    doublings = min(len(failures) - 1, _MAX_DOUBLINGS)
    delay = timedelta(seconds=min(first * 2**doublings, last))
    return (max(failures) + delay - now).total_seconds()


def _find_outcome(pod: Manifest) -> str | None:
    if phase_of(pod) == "Succeeded":
        return "succeeded"
    return "failed" if phase_of(pod) == "Failed" or is_being_deleted(pod) else None
