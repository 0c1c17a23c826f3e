"""Says on a job why its pods do not run: what a person would find by looking at each of them.

Source: training-operator v1.9 `core/job.go` (RecordAbnormalPods).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import TRUE

Severity = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An event to record about a job."""

    severity: Severity
    reason: str
    message: str


def find_troubles(pod: Manifest) -> Iterator[Announcement]:
    """What keeps a pod that is not finished from running.

    Containers that ended badly or wait with a message; for a pod without containers yet, its
    newest condition if that is not True.
    """
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or status.get("initContainerStatuses")
    if containers:
        for container in containers:
            yield from _judge_container(name, container)
        return
    conditions = status.get("conditions") or []
    newest = max(conditions, key=lambda c: c.get("lastTransitionTime") or "", default=None)
    if newest is not None and newest["status"] != TRUE:
        yield Announcement(
            severity="Warning",
            reason=newest.get("reason") or newest["type"],
            message=f"Error pod {name} condition message: {newest.get('message', '')}",
        )


def _judge_container(pod_name: str, container: Manifest) -> Iterator[Announcement]:
    state = container.get("state") or {}
    where = f"Error pod {pod_name} container {container['name']}"
    if (terminated := state.get("terminated")) and terminated.get("exitCode"):
        yield Announcement(
            severity="Warning",
            reason=terminated.get("reason") or "Error",
            message=(
                f"{where} exitCode: {terminated['exitCode']} "
                f"terminated message: {terminated.get('message', '')}"
            ),
        )
    if (waiting := state.get("waiting")) and waiting.get("message"):
        yield Announcement(
            severity="Warning",
            reason=waiting.get("reason") or "Waiting",
            message=f"{where} waiting message: {waiting['message']}",
        )
