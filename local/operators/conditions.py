"""How Kubeflow's controllers write `status.conditions`.

The order of the list carries meaning: clients read the last entry as the object's state. So a
write takes the old entry of its type out and appends the new one, and a write that says nothing
new leaves the list untouched. PyTorchJob has three rules more than Katib: they are in
`write_job_condition`.

Functions here are pure: they take the list and the time, and return a new list.

Source: training-operator `pkg/util/status.go`, katib `util/status_util.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from kubeloop.local.client import Manifest

Clock = Callable[[], datetime]
"""Tells the time, aware of its zone."""

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"


def utc_now() -> datetime:
    """The clock of the running plane."""
    return datetime.now(tz=UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes `metav1.Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The moment that an RFC 3339 text names."""
    return datetime.fromisoformat(text).astimezone(UTC)


def conditions_of(manifest: Manifest) -> list[Manifest]:
    """`status.conditions`, empty when there is no status yet."""
    return list((manifest.get("status") or {}).get("conditions") or [])


def find_condition(conditions: Iterable[Manifest], condition_type: str) -> Manifest | None:
    """The entry of a type, if any."""
    return next((entry for entry in conditions if entry["type"] == condition_type), None)


def is_condition_true(conditions: Iterable[Manifest], condition_type: str) -> bool:
    """Whether the entry of a type exists and says True."""
    entry = find_condition(conditions, condition_type)
    return entry is not None and entry["status"] == TRUE


def write_condition(
    conditions: Iterable[Manifest],
    condition_type: str,
    *,
    reason: str,
    message: str,
    now: datetime,
    status: str = TRUE,
) -> list[Manifest]:
    """Write one condition by the rules that PyTorchJob and Katib share.

    - Nothing changes when the type's entry has the same status and the same reason, whatever the
      message.
    - `lastTransitionTime` is kept when the status is unchanged.
    - The old entry goes, the new one is appended.
    """
    entries = list(conditions)
    current = find_condition(entries, condition_type)
    if current and (current["status"], current.get("reason")) == (status, reason):
        return entries
    stamp = format_time(now)
    unchanged = current is not None and current["status"] == status
    kept_transition = current.get("lastTransitionTime") if current and unchanged else None
    return [entry for entry in entries if entry["type"] != condition_type] + [
        {
            "type": condition_type,
            "status": status,
            "reason": reason,
            "message": message,
            "lastUpdateTime": stamp,
            "lastTransitionTime": kept_transition or stamp,
        }
    ]


def write_job_condition(
    conditions: Iterable[Manifest],
    condition_type: str,
    *,
    reason: str,
    message: str,
    now: datetime,
    status: str = TRUE,
) -> list[Manifest]:
    """Write one condition of a training job, by three rules more.

    - Nothing is written any more once Failed is True.
    - Running and Restarting exclude each other.
    - Failed and Succeeded turn Running to False where it stands, its times untouched.
    """
    entries = list(conditions)
    if is_condition_true(entries, "Failed"):
        return entries
    written = write_condition(
        entries, condition_type, reason=reason, message=message, now=now, status=status
    )
    if written == entries:
        return entries
    excluded = {"Running": "Restarting", "Restarting": "Running"}.get(condition_type)
    ends = condition_type in ("Failed", "Succeeded")
    return [
        {**entry, "status": FALSE} if ends and entry["type"] == "Running" else entry
        for entry in written
        if entry["type"] != excluded
    ]
