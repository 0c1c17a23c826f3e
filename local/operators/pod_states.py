"""Reads what a pod's status means to the controller that made it."""

from __future__ import annotations

from datetime import datetime

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import conditions_of, is_condition_true, parse_time

LOST_REASONS = frozenset(("NodeLost", "NodeShutdown", "Terminated", "Shutdown"))
"""Reasons of pods whose machine went away under them; what they did is not known."""

_CONTAINER_STATUSES = ("initContainerStatuses", "containerStatuses")


def phase_of(pod: Manifest) -> str:
    """The pod's phase; Pending until somebody reports one."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_being_deleted(pod: Manifest) -> bool:
    """Whether somebody has asked for the pod's end."""
    return "deletionTimestamp" in pod["metadata"]


def is_terminal(pod: Manifest) -> bool:
    """Whether all containers have ended for good."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_active(pod: Manifest) -> bool:
    """Whether a pod is neither finished nor being deleted."""
    return not is_terminal(pod) and not is_being_deleted(pod)


def is_lost(pod: Manifest) -> bool:
    """Whether the pod failed because its machine, here the control plane, went away."""
    status = pod.get("status") or {}
    return phase_of(pod) == "Failed" and status.get("reason") in LOST_REASONS


def is_ready(pod: Manifest) -> bool:
    """Whether the pod's condition Ready is True."""
    return is_condition_true(conditions_of(pod), "Ready")


def count_restarts(pod: Manifest) -> int:
    """How often the pod's containers, init containers included, were started anew."""
    status = pod.get("status") or {}
    return sum(
        container.get("restartCount", 0)
        for key in _CONTAINER_STATUSES
        for container in status.get(key) or []
    )


def find_finish_time(pod: Manifest) -> datetime | None:
    """When the last container ended, None when nobody reported it."""
    states = (
        (container.get("state") or {}).get("terminated") or {}
        for container in (pod.get("status") or {}).get("containerStatuses") or []
    )
    times = [parse_time(state["finishedAt"]) for state in states if state.get("finishedAt")]
    return max(times, default=None)
