"""What ingestion has to say about a source: what it left out, chose, and found wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_LISTED = 1000
OFF = "off"
"""Severity of a rule that is not to be applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A file or row that does not become an example."""

    path: str
    reason: str


class Severity(StrEnum):
    """What a finding means for the commit."""

    ERROR = "error"
    """No commit is made."""
    WARNING = "warning"
    """The commit is made, and says so."""
    INFO = "info"
    """Worth knowing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a validation rule found."""

    rule: str
    """Name of the rule."""
    severity: Severity
    message: str
    """One sentence: how much of what, and what to do."""
    count: int = 0
    """Examples concerned."""
    examples: tuple[str, ...] = ()
    """Some of them."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Finding:
        """Read from JSON."""
        return cls(
            **{
                **document,
                "severity": Severity(document["severity"]),
                "examples": tuple(document["examples"]),
            }
        )


@dataclass(slots=True)
class ScanLog:
    """What scanning a source brought up; lists are bounded, counts are not."""

    num_seen: int = 0
    """Files or rows that should have become examples."""
    num_corrupt: int = 0
    """Those that cannot be read."""
    num_ignored: int = 0
    """Files of another sort."""
    corrupt: list[Rejection] = field(default_factory=list)
    ignored: list[Rejection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was chosen without being told."""

    def reject(self, path: str, reason: str) -> None:
        """Note an example that cannot be read."""
        self.num_corrupt += 1
        if len(self.corrupt) < MAX_LISTED:
            self.corrupt.append(Rejection(path=path, reason=reason))

    def ignore(self, path: str, reason: str) -> None:
        """Note a file that is no example."""
        self.num_ignored += 1
        if len(self.ignored) < MAX_LISTED:
            self.ignored.append(Rejection(path=path, reason=reason))

    def note(self, text: str) -> None:
        """Say what was chosen."""
        if text not in self.notes:
            self.notes.append(text)
