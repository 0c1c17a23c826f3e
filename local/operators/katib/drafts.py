"""A status being worked on: what a pass changes, and whether there is anything to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    FALSE,
    TRUE,
    find_condition,
    format_time,
    is_condition_true,
    write_condition,
)
from kubeloop.local.operators.katib.terms import CREATED, RUNNING

Severity = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An event to record once the status is stored."""

    reason: str
    message: str
    severity: Severity = "Normal"


@dataclass(slots=True, kw_only=True)
class StatusDraft:
    """An object's status, ours to change, part by part: each part is replaced, none is mended."""

    stored: Manifest
    now: datetime
    status: Manifest
    announcements: list[Announcement] = field(default_factory=list)

    @classmethod
    def of(cls, stored: Manifest, *, now: datetime) -> StatusDraft:
        """Start from what is stored."""
        return cls(stored=stored, now=now, status=dict(stored.get("status") or {}))

    @property
    def conditions(self) -> list[Manifest]:
        """The conditions as they are now."""
        return list(self.status.get("conditions") or [])

    @property
    def is_changed(self) -> bool:
        """Whether there is something to write."""
        return self.status != (self.stored.get("status") or {})

    def says(self, condition_type: str) -> bool:
        """Whether a condition is True."""
        return is_condition_true(self.conditions, condition_type)

    def write(self, condition_type: str, *, reason: str, message: str, status: str = TRUE) -> None:
        """Write one condition."""
        self.status["conditions"] = write_condition(
            self.conditions,
            condition_type,
            reason=reason,
            message=message,
            status=status,
            now=self.now,
        )

    def start(self, *, reason: str, message: str) -> None:
        """Note the first look at the object; nothing happens at later ones."""
        if not self.says(CREATED):
            self.status.setdefault("startTime", format_time(self.now))
            self.write(CREATED, reason=reason, message=message)

    def finish(self, condition_type: str, *, reason: str, message: str) -> None:
        """Note the end: Running becomes False, keeping its words, and the time is stamped."""
        self.negate(RUNNING)
        self.write(condition_type, reason=reason, message=message)
        self.status["completionTime"] = format_time(self.now)

    def negate(self, condition_type: str) -> None:
        """Turn a condition to False, if there is one, keeping its words."""
        if current := find_condition(self.conditions, condition_type):
            self.write(
                condition_type,
                reason=current.get("reason", ""),
                message=current.get("message", ""),
                status=FALSE,
            )

    def drop(self, *condition_types: str) -> None:
        """Take conditions out."""
        self.status["conditions"] = [
            entry for entry in self.conditions if entry["type"] not in condition_types
        ]

    def announce(self, reason: str, message: str, *, severity: Severity = "Normal") -> None:
        """Record an event once the status is stored."""
        self.announcements.append(Announcement(reason=reason, message=message, severity=severity))

    def render(self) -> Manifest:
        """The object with the new status."""
        return {**self.stored, "status": self.status}
