"""What the status of a step's Pod says: that it waits, runs, or how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubeloop.local.client import Manifest
from kubeloop.local.operators.pod_states import LOST_REASONS
from kubeloop.local.pipelines.engine.executor import CONTAINER_NAME
from kubeloop.local.pipelines.engine.executor_log import ExecutorFilter

_LOG_LINES = 20
_LOG_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEnd:
    """How a Pod ended."""

    succeeded: bool
    is_lost: bool = False
    """Its machine went away under it; what it did is not known."""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""


def pod_end(pod: Manifest) -> PodEnd | None:
    """How the Pod ended, None while it may still do something."""
    status = pod.get("status") or {}
    phase = status.get("phase")
    if phase == "Succeeded":
        return PodEnd(succeeded=True, exit_code=0)
    if phase != "Failed":
        return None
    terminated = (_container_state(pod).get("terminated")) or {}
    reason = status.get("reason") or ""
    return PodEnd(
        succeeded=False,
        is_lost=reason in LOST_REASONS,
        exit_code=terminated.get("exitCode"),
        reason=reason or terminated.get("reason") or "",
        message=status.get("message") or terminated.get("message") or "",
    )


def is_over(pod: Manifest) -> bool:
    """Whether none of the Pod's processes is left."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def started_at(pod: Manifest) -> float:
    """When the container started, 0 before."""
    state = _container_state(pod)
    running = state.get("running") or state.get("terminated") or {}
    text = running.get("startedAt")
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def describe_waiting(pod: Manifest) -> str:
    """Why the Pod does not run yet; empty while all is well."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Pending')}: {condition.get('message', '')}"
    waiting = _container_state(pod).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return ""
    return f"{reason}: {waiting.get('message', '')}".rstrip(": ")


def describe_end(task_name: str, end: PodEnd, *, log: str) -> str:
    """One sentence on why a step failed, and the last lines that it printed."""
    cause = "failed" if end.exit_code is None else f"failed with exit code {end.exit_code}"
    if end.reason and end.reason != "Error":
        cause += f" ({end.reason})"
    if end.message:
        cause += f": {end.message}"
    lines = list(ExecutorFilter().filter(log.splitlines()))
    tail = "\n".join(lines[-_LOG_LINES:])[-_LOG_CHARACTERS:]
    return (
        f"Task {task_name!r} {cause}. Its last lines:\n{tail}"
        if tail
        else f"Task {task_name!r} {cause}."
    )


def _container_state(pod: Manifest) -> dict[str, Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    for status in statuses:
        if status.get("name") == CONTAINER_NAME:
            state: dict[str, Any] = status.get("state") or {}
            return state
    return {}
