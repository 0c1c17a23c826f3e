"""What a reconcile of a PyTorchJob concludes: the next status, and what to tell as events.

Nothing here writes to the API. A `StatusDraft` starts from the stored status, is changed by the
rules below, and is written by the reconciler if it differs.

Source: training-operator v1.9 `pytorchjob_controller.go` (UpdateJobStatus), `core/status.go`,
`core/job.go`, `common/pod.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    TRUE,
    format_time,
    is_condition_true,
    parse_time,
    write_job_condition,
)
from kubeloop.local.operators.pod_states import (
    count_restarts,
    is_active,
    is_being_deleted,
    is_lost,
    phase_of,
)
from kubeloop.local.operators.pod_troubles import Announcement, Severity
from kubeloop.local.operators.pytorchjob_pods import is_of_type, render_selector
from kubeloop.local.operators.pytorchjob_spec import (
    CONTAINER_NAME,
    MASTER,
    WORKER,
    count_replicas,
    has_master,
    replica_specs,
)

_KIND = "PyTorchJob"
_UNKNOWN_EXIT_CODE = 48879
_FIRST_RETRYABLE_EXIT_CODE = 128
_RESTARTED_POLICIES = ("OnFailure", "Always", "ExitCode")


@dataclass(slots=True, kw_only=True)
class StatusDraft:
    """The next status of one job."""

    job: Manifest
    """The job with its defaults."""
    now: datetime
    status: Manifest
    announcements: list[Announcement] = field(default_factory=list)

    @classmethod
    def of(cls, job: Manifest, *, now: datetime) -> StatusDraft:
        """Start from the stored status; a job seen for the first time is Created."""
        draft = cls(job=job, now=now, status=deepcopy(job.get("status") or {}))
        if not draft.status.get("conditions"):
            draft.write("Created", message=f"{_KIND} {draft.name} is created.")
        return draft

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.job["metadata"]["name"])

    def says(self, condition_type: str) -> bool:
        """Whether a condition is True."""
        return is_condition_true(self.status.get("conditions") or [], condition_type)

    @property
    def is_finished(self) -> bool:
        """Whether the job has succeeded or failed."""
        return self.says("Succeeded") or self.says("Failed")

    def write(
        self, condition_type: str, *, message: str, status: str = TRUE, outcome: str = ""
    ) -> None:
        """Write a condition; its reason is the kind and the `outcome`, or the condition's type."""
        self.status["conditions"] = write_job_condition(
            self.status.get("conditions") or [],
            condition_type,
            reason=_KIND + (outcome or condition_type),
            message=message,
            status=status,
            now=self.now,
        )

    def announce(self, outcome: str, *, message: str, severity: Severity = "Normal") -> None:
        """Tell about an outcome such as Failed as an event."""
        self.announcements.append(
            Announcement(severity=severity, reason=_KIND + outcome, message=message)
        )

    def stamp(self, key: str) -> None:
        """Set `startTime` or `completionTime` to now if it has no value yet."""
        self.status.setdefault(key, format_time(self.now))

    def elapsed_since(self, key: str) -> timedelta | None:
        """Time since `startTime` or `completionTime`, None when it has no value."""
        text = self.status.get(key)
        return self.now - parse_time(text) if text else None

    def set_no_replica_active(self, *, counted_as: str = "") -> None:
        """Take all replicas from active, and add them to another count if one is named."""
        for counts in (self.status.get("replicaStatuses") or {}).values():
            active = counts.pop("active", 0)
            if counted_as and active:
                counts[counted_as] = counts.get(counted_as, 0) + active


def judge_pods(
    draft: StatusDraft, pods: Iterable[Manifest], *, replica_type: str
) -> list[Manifest]:
    """Count one replica type's pods and decide which of them to restart.

    Pods that were lost with the control plane are restarted whatever the policy: a laptop that is
    closed and opened again has not made a program fail. (A cluster would fail those of `Never`.)

    Returns:
        The failed pods to delete, so that they are created again.
    """
    policy = replica_specs(draft.job)[replica_type]["restartPolicy"]
    counts: dict[str, int] = {}
    to_restart = []
    for pod in pods:
        exit_code = _find_exit_code(pod)
        if exit_code is not None:
            metadata = pod["metadata"]
            text = f"Pod: {metadata['namespace']}.{metadata['name']} exited with code {exit_code}"
            draft.announcements.append(
                Announcement(severity="Normal", reason="ExitedWithCode", message=text)
            )
        is_excused = is_lost(pod) and policy not in _RESTARTED_POLICIES
        if not is_excused and (counted := _classify(pod)) is not None:
            counts[counted] = counts.get(counted, 0) + 1
        if phase_of(pod) != "Failed" or not (is_excused or policy in _RESTARTED_POLICIES):
            continue
        code = _UNKNOWN_EXIT_CODE if exit_code is None else exit_code
        if policy != "ExitCode" or code >= _FIRST_RETRYABLE_EXIT_CODE:
            message = f"job {draft.name} is restarting because {replica_type} replica(s) failed."
            draft.announce("Restarting", message=message, severity="Warning")
            draft.write("Restarting", message=message)
            to_restart.append(pod)
        else:
            message = f'job "{draft.name}" is failing because "{replica_type}" replica(s) failed.'
            draft.announce("Failed", message=message, severity="Warning")
            draft.write("Failed", message=message)
    selector = render_selector(draft.name, replica_type=replica_type)
    draft.status.setdefault("replicaStatuses", {})[replica_type] = {**counts, "selector": selector}
    return to_restart


def conclude(draft: StatusDraft) -> None:
    """Write what the counted replicas mean for the job.

    Upstream visits replica types in random order; here the Master comes first, so that a job
    whose master and workers end in the same moment ends in the same way every time.
    """
    draft.stamp("startTime")
    for replica_type, spec in replica_specs(draft.job).items():
        counts = draft.status["replicaStatuses"][replica_type]
        active, succeeded = counts.get("active", 0), counts.get("succeeded", 0)
        decides = replica_type == (MASTER if has_master(draft.job) else WORKER)
        if decides and _has_succeeded(draft, replicas=spec["replicas"], succeeded=succeeded):
            _succeed(draft)
            if has_master(draft.job):
                return
        elif decides and active:
            draft.write("Running", message=f"{_KIND} {_describe(draft)} is running.")
        failed = counts.get("failed", 0)
        if failed and spec["replicas"] > succeeded + active:
            _suffer_failure(draft, replica_type=replica_type, num_failed=failed)


def exceeds_backoff_limit(draft: StatusDraft, pods: list[Manifest]) -> bool:
    """Whether containers restarted too often. Pods that were created anew do not count."""
    limit = draft.job["spec"]["runPolicy"].get("backoffLimit")
    if limit is None:
        return False
    num_restarts = sum(
        count_restarts(pod)
        for replica_type, spec in replica_specs(draft.job).items()
        if spec["restartPolicy"] in _RESTARTED_POLICIES
        for pod in pods
        if is_of_type(pod, replica_type) and phase_of(pod) == "Running"
    )
    if limit > 0:
        return bool(num_restarts >= limit)
    return num_restarts > 0 or _has_new_failure(draft, pods)


def _has_new_failure(draft: StatusDraft, pods: list[Manifest]) -> bool:
    known = sum(
        counts.get("failed", 0) for counts in (draft.status.get("replicaStatuses") or {}).values()
    )
    num_failed = sum(phase_of(pod) == "Failed" and not is_lost(pod) for pod in pods)
    num_active = sum(is_active(pod) for pod in pods)
    return bool(num_failed > known and num_active != count_replicas(draft.job))


def _find_exit_code(pod: Manifest) -> int | None:
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        terminated = (status.get("state") or {}).get("terminated")
        if status["name"] == CONTAINER_NAME and terminated is not None:
            return int(terminated.get("exitCode", 0))
    return None


def _classify(pod: Manifest) -> str | None:
    phase = phase_of(pod)
    if phase == "Running":
        return "failed" if is_being_deleted(pod) else "active"
    return {"Succeeded": "succeeded", "Failed": "failed"}.get(phase)


def _has_succeeded(draft: StatusDraft, *, replicas: int, succeeded: int) -> bool:
    if succeeded == replicas:
        return True
    is_elastic = draft.job["spec"].get("elasticPolicy") is not None
    return is_elastic and not has_master(draft.job) and succeeded > 0


def _describe(draft: StatusDraft) -> str:
    if has_master(draft.job):
        return draft.name
    return f"{draft.job['metadata']['namespace']}/{draft.name}"


def _succeed(draft: StatusDraft) -> None:
    verb = "is successfully completed" if has_master(draft.job) else "successfully completed"
    message = f"{_KIND} {_describe(draft)} {verb}."
    draft.announce("Succeeded", message=message)
    draft.stamp("completionTime")
    draft.write("Succeeded", message=message)


def _suffer_failure(draft: StatusDraft, *, replica_type: str, num_failed: int) -> None:
    if draft.says("Failed"):
        return
    cause = f"because {num_failed} {replica_type} replica(s) failed."
    if replica_specs(draft.job)[replica_type]["restartPolicy"] != "Never":
        message = f"{_KIND} {draft.name} is restarting {cause}"
        draft.announce("Restarting", message=message, severity="Warning")
        draft.write("Restarting", message=message)
        return
    message = f"{_KIND} {draft.name} is failed {cause}"
    draft.announce("Failed", message=message)
    draft.stamp("completionTime")
    draft.write("Failed", message=message)
